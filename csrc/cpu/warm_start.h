// The element by element parts of a warm start, n^2 operations each (csrc/core/warm_start.h).
#pragma once

#include "csrc/core/warm_start.h"

namespace kronext::cpu::KRONEXT_CPU {

extern const WarmStartKernel kWarmStart;

}  // namespace kronext::cpu::KRONEXT_CPU
