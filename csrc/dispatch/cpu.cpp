#include "dispatch/cpu.h"

#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace vectile {

bool is_emulated([[maybe_unused]] const char* tier) {
#ifdef VECTILE_EMULATE
  return std::strncmp(tier, "avx512", 6) == 0;
#else
  return false;
#endif
}

#if defined(__x86_64__)
namespace {

struct Registers {
  std::uint32_t a = 0, b = 0, c = 0, d = 0;
};
Registers cpuid(std::uint32_t leaf, std::uint32_t sub = 0) {
  Registers r;
  __get_cpuid_count(leaf, sub, &r.a, &r.b, &r.c, &r.d);
  return r;
}

// Linux gives a process the tile registers only when it asks (ARCH_REQ_XCOMP_PERM, XTILEDATA).
bool tiles_granted() {
#if defined(__linux__)
  return syscall(SYS_arch_prctl, 0x1023, 18) == 0;
#else
  return false;
#endif
}

struct Features {
  bool avx2 = false, avx_vnni = false, avx512 = false, avx512_vnni = false;
  bool avx512_bf16 = false, avx512_fp16 = false, amx = false;

  Features() {
    const auto bits = [](std::uint32_t word, auto... n) { return ((word >> n & 1u) & ...) != 0; };
    const Registers one = cpuid(1), seven = cpuid(7), ext = cpuid(0x80000001u);
    const Registers seven_one = seven.a >= 1 ? cpuid(7, 1) : Registers();
    if (!bits(one.c, 27)) return;  // OSXSAVE: without it xgetbv faults
    std::uint32_t xcr0, high;
    asm volatile("xgetbv" : "=a"(xcr0), "=d"(high) : "c"(0));
    const bool ymm = (xcr0 & 0x06) == 0x06, zmm = (xcr0 & 0xe6) == 0xe6;
    const bool tiles = (xcr0 & 0x60000) == 0x60000;
    // x86-64-v3: SSE3 … SSE4.2, FMA, MOVBE, POPCNT, AVX, F16C; BMI1, AVX2, BMI2; LZCNT
    avx2 = ymm && bits(one.c, 0, 9, 12, 13, 19, 20, 22, 23, 28, 29) && bits(seven.b, 3, 5, 8) &&
           bits(ext.c, 5);
    // x86-64-v4: F, DQ, CD, BW, VL
    avx512 = avx2 && zmm && bits(seven.b, 16, 17, 28, 30, 31);
    avx_vnni = avx2 && bits(seven_one.a, 4);
    avx512_vnni = avx512 && bits(seven.c, 11);
    avx512_bf16 = avx512_vnni && bits(seven_one.a, 5);
    avx512_fp16 = avx512_bf16 && bits(seven.d, 23);
    amx = avx512_fp16 && tiles && bits(seven.d, 22, 24, 25) && tiles_granted();
  }
};

}  // namespace

bool cpu_supports(const char* tier) {
  static const Features f;
  const struct {
    const char* name;
    bool present;
  } table[] = {{"scalar", true},
               {"avx2", f.avx2},
               {"avx_vnni", f.avx_vnni},
               {"avx512", f.avx512},
               {"avx512_vnni", f.avx512_vnni},
               {"avx512_bf16", f.avx512_bf16},
               {"avx512_fp16", f.avx512_fp16},
               {"amx", f.amx}};
  if (is_emulated(tier)) tier = "avx2";
  for (const auto& row : table)
    if (std::strcmp(row.name, tier) == 0) return row.present;
  return false;
}

const char* cpu_name() {
  struct Brand {
    char text[49] = "x86-64";
    Brand() {
      if (cpuid(0x80000000u).a < 0x80000004u) return;
      for (std::uint32_t i = 0; i < 3; ++i) {
        const Registers r = cpuid(0x80000002u + i);
        std::memcpy(text + 16 * i, &r, sizeof r);
      }
    }
  };
  static const Brand brand;
  return brand.text;
}

#elif !defined(__aarch64__)  // that one has cpu_arm.cpp

bool cpu_supports(const char* tier) { return std::strcmp(tier, "scalar") == 0; }

const char* cpu_name() { return "unknown"; }

#endif

}  // namespace vectile
