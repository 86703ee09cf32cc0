// AArch64: what the system reports, since the identification registers belong to it.
#include "dispatch/cpu.h"

#if defined(__aarch64__)

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__linux__)
#include <sys/auxv.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace vectile {
namespace {

// The bits of AT_HWCAP, which are the kernel's interface (its elf_hwcaps.rst).
#if defined(__linux__)
bool has_bits(auto... bit) {
  static const unsigned long word = getauxval(AT_HWCAP);
  return ((word >> bit & 1ul) & ...) != 0;
}
constexpr int kAsimd = 1, kCrc32 = 7, kAtomics = 8, kCpuid = 11, kAsimdRdm = 12, kAsimdDp = 20;
#elif defined(__APPLE__)
bool has_feature(const char* name) {
  int value = 0;
  std::size_t size = sizeof value;
  return sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value != 0;
}
#endif

bool has_simd() {
#if defined(__linux__)
  return has_bits(kAsimd);
#else
  return true;  // part of the platform
#endif
}

// ARMv8.2-A and its dot product.
bool has_dot_product() {
#if defined(__linux__)
  return has_bits(kAsimd, kCrc32, kAtomics, kAsimdRdm, kAsimdDp);
#elif defined(__APPLE__)
  return has_feature("hw.optional.arm.FEAT_DotProd");
#else
  return false;
#endif
}

struct Name {
  char text[64] = "AArch64";
  Name() {
#if defined(__linux__)
    if (!has_bits(kCpuid)) return;
    std::uint64_t midr;  // read for us by the kernel: implementer in bits 24-31, part in 4-15
    asm("mrs %0, MIDR_EL1" : "=r"(midr));
    const struct {
      std::uint32_t implementer, part;
      const char* name;
    } known[] = {
        {0x41, 0xd03, "Arm Cortex-A53"},  {0x41, 0xd07, "Arm Cortex-A57"},
        {0x41, 0xd08, "Arm Cortex-A72"},  {0x41, 0xd0b, "Arm Cortex-A76"},
        {0x41, 0xd0c, "Arm Neoverse N1"}, {0x41, 0xd40, "Arm Neoverse V1"},
        {0x41, 0xd49, "Arm Neoverse N2"}, {0x41, 0xd4f, "Arm Neoverse V2"},
        {0xc0, 0xac3, "Ampere-1"},
    };
    for (const auto& row : known)
      if (row.implementer == (midr >> 24 & 0xff) && row.part == (midr >> 4 & 0xfff))
        std::strncpy(text, row.name, sizeof text - 1);
#elif defined(__APPLE__)
    std::size_t size = sizeof text - 1;
    sysctlbyname("machdep.cpu.brand_string", text, &size, nullptr, 0);
#endif
  }
};

}  // namespace

bool cpu_supports(const char* tier) {
  const struct {
    const char* name;
    bool present;
  } table[] = {
      {"scalar", true}, {"neon", has_simd()}, {"neon_dotprod", has_simd() && has_dot_product()}};
  for (const auto& row : table)
    if (std::strcmp(row.name, tier) == 0) return row.present;
  return false;
}

const char* cpu_name() {
  static const Name name;
  return name.text;
}

}  // namespace vectile

#endif
