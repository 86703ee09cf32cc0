// Compares the float functions of simd/math.h with libm in double, over every float or every
// STRIDE-th one.
//   ulp_sweep [--stride N] [function ...]      exit status 1 when a function exceeds its bound
// One ulp is the distance between neighbouring floats at the exact result, and 2^-149 among the
// subnormals.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "dispatch/cpu.h"
#include "simd/activations.h"
#include "simd/math.h"

namespace vectile::VECTILE_TIER {
namespace {

struct Function {
  const char* name;
  double bound;  // ulp, as documented in simd/math.h and vectile.ops
  double (*exact)(double);
  void (*vector)(const float*, float*);
};

constexpr int kLanes = Vec<float>::lanes;

#define FUNCTION(name, bound, exact)                                                          \
  Function {                                                                                  \
    #name, bound, exact, [](const float* x, float* y) { name(Vec<float>::load(x)).store(y); } \
  }

double exact_sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

double exact_softplus(double x) { return std::fmax(x, 0) + std::log1p(std::exp(-std::fabs(x))); }

const Function kFunctions[] = {
    FUNCTION(exp, 1, std::exp),     FUNCTION(log, 2, std::log),
    FUNCTION(tanh, 2, std::tanh),   FUNCTION(sigmoid, 2, exact_sigmoid),
    FUNCTION(erf, 2, std::erf),     FUNCTION(expm1, 2, std::expm1),
    FUNCTION(log1p, 2, std::log1p), FUNCTION(softplus, 2, exact_softplus),
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

// 0, the edges of the subnormals, the largest float, infinity, NaN
constexpr uint32_t kSpecialBits[] = {0, 1, 0x7fffff, 0x800000, 0x7f7fffff, 0x7f800000, 0x7fc00000};

struct Worst {
  double error = 0;
  float at = 0;
};

void measure(const Function& f, const float* x, int n, Worst& worst) {
  float y[kLanes];
  f.vector(x, y);
  for (int i = 0; i < n; ++i) {
    const double error = error_in_ulp(y[i], f.exact(x[i]));
    if (!(error <= worst.error)) worst = {error, x[i]};
  }
}

bool sweep(const Function& f, uint64_t stride) {
  Worst worst;
  for (const uint32_t magnitude : kSpecialBits) {
    float x[kLanes];
    for (int i = 0; i < kLanes; ++i) x[i] = bit_cast<float>(magnitude);
    measure(f, x, kLanes, worst);
    for (int i = 0; i < kLanes; ++i) x[i] = -x[i];
    measure(f, x, kLanes, worst);
  }
  const uint64_t end = uint64_t{1} << 32;
  uint64_t tested = 0;
  for (uint64_t bits = 0; bits < end;) {
    float x[kLanes] = {};
    int n = 0;
    for (; n < kLanes && bits < end; ++n, bits += stride) x[n] = bit_cast<float>(uint32_t(bits));
    measure(f, x, n, worst);
    tested += uint64_t(n);
  }
  std::printf("%-8s %-8s %.4f ulp at %a, %llu floats\n", VECTILE_TIER_NAME, f.name, worst.error,
              double(worst.at), static_cast<unsigned long long>(tested));
  std::fflush(stdout);
  return worst.error <= f.bound;
}

int run(int argc, char** argv) {
  if (!cpu_supports(VECTILE_TIER_NAME)) return 77;
  uint64_t stride = 1;
  const Function* chosen[64];
  int count = 0;
  for (int i = 1; i < argc; ++i) {
    if (!std::strcmp(argv[i], "--stride") && i + 1 < argc) {
      stride = std::strtoull(argv[++i], nullptr, 10);
      continue;
    }
    const int before = count;
    for (const Function& f : kFunctions)
      if (count < 64 && !std::strcmp(argv[i], f.name)) chosen[count++] = &f;
    if (count == before) {
      std::fprintf(stderr, "ulp_sweep: argument: expected a function, got %s\n", argv[i]);
      return 2;
    }
  }
  if (stride == 0)
    return std::fprintf(stderr, "ulp_sweep: stride: expected at least 1, got 0\n"), 2;
  if (count == 0)
    for (const Function& f : kFunctions) chosen[count++] = &f;
  bool ok = true;
  for (int i = 0; i < count; ++i) ok = sweep(*chosen[i], stride) && ok;
  return ok ? 0 : 1;
}

}  // namespace
}  // namespace vectile::VECTILE_TIER

int main(int argc, char** argv) { return vectile::VECTILE_TIER::run(argc, argv); }
