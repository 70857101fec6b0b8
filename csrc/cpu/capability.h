// Which instruction set the CPU kernels run with.
#pragma once

namespace kronext::cpu {

// In this order a machine that runs one runs those before it. kAmxEmulated is AMX's kernels with
// the matrix instructions computed by a twin in C++, for tests on machines without them.
enum class Capability { kPortable, kAvx2, kAvx512, kAvx512BFloat16, kAmx, kAmxEmulated };

// The best set that this machine runs and this build holds, or the lower one that the environment
// variable KRONEXT_CPU_CAPABILITY names (portable, avx2, avx512, avx512_bf16, amx). Decided once
// per process; throws std::invalid_argument for a name that is unknown or beyond this machine.
Capability capability();
Capability detected_capability();
const char* name_of(Capability capability);

}  // namespace kronext::cpu
