#include "csrc/cpu/capability.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace kronext::cpu {
namespace {

#if defined(__x86_64__)
// Whether the processor has AMX for bfloat16 and the system saves its tiles; asks the system's
// permission, which holds for all threads of the process.
bool may_use_amx() {
#if defined(__linux__)
  unsigned a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE)) return false;
  unsigned saved, upper;
  asm volatile("xgetbv" : "=a"(saved), "=d"(upper) : "c"(0));
  constexpr unsigned kTileState = 3u << 17, kBFloat16 = 1u << 22, kTile = 1u << 24;
  if ((saved & kTileState) != kTileState) return false;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & kBFloat16) || !(d & kTile)) return false;
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}
#endif

Capability detect() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl");
  const bool bfloat16 = avx512 && __builtin_cpu_supports("avx512bf16");
  if (bfloat16 && may_use_amx()) return Capability::kAmx;
  // vdpbf16ps makes nearly twice as many multiply-adds a second as FMA on Zen 5, on Intel half.
  if (bfloat16 && __builtin_cpu_is("amd")) return Capability::kAvx512BFloat16;
  if (avx512) return Capability::kAvx512;
  if (avx2) return Capability::kAvx2;
#endif
  return Capability::kPortable;
}

bool runs(Capability wanted) {
  const Capability detected = detected_capability();
  if (wanted == Capability::kAmxEmulated) return detected >= Capability::kAvx512BFloat16;
  return wanted <= detected;
}

Capability choose() {
  const char* text = std::getenv("KRONEXT_CPU_CAPABILITY");
  if (!text || !*text) return detected_capability();
  const std::string wanted = text;
  for (Capability c : {Capability::kPortable, Capability::kAvx2, Capability::kAvx512,
                       Capability::kAvx512BFloat16, Capability::kAmx, Capability::kAmxEmulated}) {
    if (wanted != name_of(c)) continue;
    if (runs(c)) return c;
    throw std::invalid_argument("kronext: this machine runs CPU capabilities up to " +
                                std::string(name_of(detected_capability())) +
                                " (got KRONEXT_CPU_CAPABILITY=" + wanted + ")");
  }
  throw std::invalid_argument(
      "kronext: KRONEXT_CPU_CAPABILITY must be portable, avx2, avx512, avx512_bf16 or amx (got "
      "KRONEXT_CPU_CAPABILITY=" +
      wanted + ")");
}

}  // namespace

Capability detected_capability() {
  static const Capability detected = detect();
  return detected;
}

Capability capability() {
  static const Capability chosen = choose();
  return chosen;
}

const char* name_of(Capability capability) {
  switch (capability) {
    case Capability::kAmxEmulated:
      return "amx_emulated";
    case Capability::kAmx:
      return "amx";
    case Capability::kAvx512BFloat16:
      return "avx512_bf16";
    case Capability::kAvx512:
      return "avx512";
    case Capability::kAvx2:
      return "avx2";
    case Capability::kPortable:
      break;
  }
  return "portable";
}

}  // namespace kronext::cpu
