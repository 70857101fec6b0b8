#include "csrc/cuda/rearranged.cuh"

#include <algorithm>
#include <cstring>

#include "csrc/cuda/placement.h"
#include "csrc/cuda/power_iteration.h"

namespace kronext::cuda {
namespace {

// Blocks in a grid for each multiprocessor: a few waves even out.
constexpr int64_t kWaves = 4;
// Rows i that a block sums in float32 at most.
constexpr int64_t kMostRows = 64;

template <class F>
auto with_pass(Dtype h, Dtype factor, const F& f) {
  const bool wide = factor == Dtype::kFloat64;
  switch (h) {
    case Dtype::kFloat64:
      return f(RearrangedPass<double, Dtype::kFloat64>::shape());
    case Dtype::kFloat32:
      return wide ? f(RearrangedPass<double, Dtype::kFloat32>::shape())
                  : f(RearrangedPass<float, Dtype::kFloat32>::shape());
  }
}

}  // namespace
}  // namespace kronext::cuda
