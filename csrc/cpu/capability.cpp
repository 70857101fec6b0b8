#include "csrc/cpu/capability.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace kronext::cpu {
namespace {

Capability detect() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl");
  if (avx512) return Capability::kAvx512;
  if (avx2) return Capability::kAvx2;
#endif
  return Capability::kPortable;
}

Capability choose() {
  const char* text = std::getenv("KRONEXT_CPU_CAPABILITY");
  if (!text || !*text) return detected_capability();
  const std::string wanted = text;
  for (Capability c : {Capability::kPortable, Capability::kAvx2, Capability::kAvx512}) {
    if (wanted != name_of(c)) continue;
    if (c <= detected_capability()) return c;
    throw std::invalid_argument("kronext: this machine runs CPU capabilities up to " +
                                std::string(name_of(detected_capability())) +
                                " (got KRONEXT_CPU_CAPABILITY=" + wanted + ")");
  }
  throw std::invalid_argument(
      "kronext: KRONEXT_CPU_CAPABILITY must be portable, avx2 or avx512 (got "
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
