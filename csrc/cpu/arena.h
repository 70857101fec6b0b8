// Pieces of the workspace that a caller hands to a kernel.
#pragma once

#include "csrc/cpu/simd.h"

namespace kronext::cpu::KRONEXT_CPU {

// Hands out aligned pieces of the workspace; from a null base it only adds up their sizes.
class Arena {
 public:
  explicit Arena(void* base) : base_(static_cast<char*>(base)) {}
  template <class Item>
  Item* take(int64_t count) {
    char* p = base_ ? base_ + used_ : nullptr;
    used_ += round_up<size_t>(count * sizeof(Item), 64);
    return reinterpret_cast<Item*>(p);
  }
  size_t used() const { return used_; }

 private:
  char* base_;
  size_t used_ = 0;
};

}  // namespace kronext::cpu::KRONEXT_CPU
