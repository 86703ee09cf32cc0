// Compares the float functions of simd/math.h with libm in double, over every float or every
// STRIDE-th one.
//   ulp_sweep [--stride N] [function ...]      exit status 1 when a function exceeds its bound of 2
//   ulp
// One ulp is the distance between neighbouring floats at the exact result, and 2^-149 among the
// subnormals.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "simd/math.h"

namespace vectile::VECTILE_TIER {
namespace {

constexpr double kBound = 2.0;

struct Function {
  const char* name;
  double (*exact)(double);
  void (*vector)(const float*, float*);
};

constexpr int kLanes = Vec<float>::lanes;

#define FUNCTION(name, exact)                                                          \
  Function {                                                                           \
    #name, exact, [](const float* x, float* y) { name(Vec<float>::load(x)).store(y); } \
  }

double exact_sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

const Function kFunctions[] = {
    FUNCTION(exp, std::exp),          FUNCTION(log, std::log), FUNCTION(tanh, std::tanh),
    FUNCTION(sigmoid, exact_sigmoid), FUNCTION(erf, std::erf), FUNCTION(expm1, std::expm1),
    FUNCTION(log1p, std::log1p),
};

// Distance from the exact result in ulp; infinity where NaN, infinity or the sign of zero differ.
double error_in_ulp(float got, double exact) {
  const float nearest = float(exact);
  if (std::isnan(exact) || std::isnan(got))
    return std::isnan(exact) == std::isnan(got) ? 0 : INFINITY;
  if (std::isinf(nearest) || std::isinf(got)) {
    if (got == nearest) return 0;
    if (std::isinf(exact) || std::signbit(got) != std::signbit(nearest)) return INFINITY;
    const double finite = std::isinf(got) ? std::copysign(0x1p128, got) : double(got);
    return std::fabs(finite - exact) / 0x1p104;
  }
  if (got == 0 && exact == 0) return std::signbit(got) == std::signbit(exact) ? 0 : INFINITY;
  int exponent;
  std::frexp(exact, &exponent);
  if (exponent < -125) exponent = -125;
  return std::fabs(double(got) - exact) / std::ldexp(1.0, exponent - 24);
}

bool sweep(const Function& f, uint64_t stride) {
  double worst = 0;
  float worst_at = 0;
  uint64_t tested = 0;
  const uint64_t end = uint64_t(1) << 32;
  for (uint64_t bits = 0; bits < end;) {
    float x[kLanes], y[kLanes];
    int n = 0;
    for (; n < kLanes && bits < end; ++n, bits += stride) x[n] = bit_cast<float>(uint32_t(bits));
    for (int i = n; i < kLanes; ++i) x[i] = x[0];
    f.vector(x, y);
    for (int i = 0; i < n; ++i) {
      const double error = error_in_ulp(y[i], f.exact(x[i]));
      if (!(error <= worst)) {
        worst = error;
        worst_at = x[i];
      }
    }
    tested += uint64_t(n);
  }
  std::printf("%-8s %-8s %.4f ulp at %a, %llu floats\n", VECTILE_TIER_NAME, f.name, worst,
              double(worst_at), (unsigned long long)tested);
  std::fflush(stdout);
  return worst <= kBound;
}

int main(int argc, char** argv) {
  uint64_t stride = 1;
  bool named = false, ok = true;
  for (int i = 1; i < argc; ++i) {
    if (!std::strcmp(argv[i], "--stride") && i + 1 < argc)
      stride = std::strtoull(argv[++i], nullptr, 10);
  }
  for (int i = 1; i < argc; ++i) {
    if (!std::strcmp(argv[i], "--stride")) {
      ++i;
      continue;
    }
    named = true;
    bool found = false;
    for (const Function& f : kFunctions) {
      if (!std::strcmp(argv[i], f.name)) found = true, ok = sweep(f, stride) && ok;
    }
    if (!found) return std::fprintf(stderr, "ulp_sweep: unknown function %s\n", argv[i]), 2;
  }
  if (!named) {
    for (const Function& f : kFunctions) ok = sweep(f, stride) && ok;
  }
  return ok ? 0 : 1;
}

}  // namespace
}  // namespace vectile::VECTILE_TIER

int main(int argc, char** argv) { return vectile::VECTILE_TIER::main(argc, argv); }
