// A problem that one thread can solve whole, or that several share.
//
// First come `pack_steps` independent steps that fill the shared memory (packed operands), then
// `steps` independent steps that read it. Steps may run in any order on any thread; each writes its
// own part of the result, so the result does not depend on who ran it.
#pragma once

#include <stdint.h>

#include "csrc/core/prefetch.h"

namespace kronext {

template <class Problem>
struct JobKernel {
  double (*work)(const Problem&);  // multiply-adds, to share threads fairly
  int64_t (*shared_bytes)(const Problem&);
  int64_t (*scratch_bytes)(const Problem&);  // for each thread
  int64_t (*pack_steps)(const Problem&);
  int64_t (*steps)(const Problem&);
  void (*pack)(const Problem&, int64_t step, void* shared);
  void (*run)(const Problem&, int64_t step, const void* shared, void* scratch);
  int (*operands)(const Problem&, Operand* operands);  // what it reads and writes, and how many
};

}  // namespace kronext
