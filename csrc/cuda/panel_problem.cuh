// What a block of the panel eigensolver knows of its matrix.
#pragma once

#include "csrc/cuda/jacobi_rotation.cuh"
#include "csrc/cuda/launch.cuh"
#include "csrc/cuda/panel_layout.h"
#include "csrc/cuda/product_tile.cuh"
#include "csrc/cuda/spectral_scale.cuh"
#include "csrc/cuda/spectral_task.cuh"

namespace kronext::cuda {

struct TilePlace {
  int row, column;
};

// The item-th tile of a lower triangle, counted along the rows.
__device__ __forceinline__ TilePlace lower_tile(int item) {
  int row = 0;
  while (item > row) item -= ++row;
  return {row, item};
}

__device__ __forceinline__ double panel_shift(int attempt) {
  return attempt == 0 ? 0 : ldexp(1.0, shift_exponent(attempt));
}

// An n x m matrix that lies in panels of n x 32.
struct PanelMatrix {
  float* data;
  int n;

  __device__ __forceinline__ float& operator()(int i, int j) const {
    return data[(int64_t(j / kPanel) * n + i) * kPanel + j % kPanel];
  }
};

// A symmetric matrix in the scale of the solver.
struct ScaledMatrix {
  const float* lower;
  int64_t row_stride;
  Scale scale;

  __device__ __forceinline__ float operator()(int i, int j) const {
    return scale.down(lower[max(i, j) * row_stride + min(i, j)]);
  }
};

template <class Items>
class PanelProblem {
 public:
  int n, pairs;
  int item;  // which of the matrix's blocks this is

  __device__ __forceinline__ PanelProblem(const PanelTask* tasks, unsigned char* workspace,
                                          const SizeClasses& classes)
      : PanelProblem(tasks, workspace, place_of(classes)) {}

  __device__ __forceinline__ const SpectralTask& task() const { return task_.spectral; }
  __device__ __forceinline__ PanelState& state() const { return *state_; }
  __device__ __forceinline__ int blocks() const { return Items::blocks(pairs); }
  __device__ __forceinline__ int panels() const { return 2 * pairs; }

  __device__ __forceinline__ bool finite() const { return state_->largest < kInfinityBits; }
  __device__ __forceinline__ Scale scale() const { return scale_of(state_->largest); }
  __device__ __forceinline__ ScaledMatrix scaled_matrix() const {
    return {assume_global(task().matrix), task().row_stride, scale()};
  }
  __device__ __forceinline__ double shift() const { return panel_shift(state_->failed_shifts); }

  // Whether the basis is orthogonal but for what one Newton-Schulz step takes away: |QT Q - I|_F is
  // at most so many times that of its worst tile.
  __device__ __forceinline__ bool warm() const {
    constexpr float kFar = 1e-3f;
    const float square = __uint_as_float(state_->defect) * float(pairs * pairs);
    return task().basis && square <= kFar * kFar;
  }

  // Whether a sweep is needed: the one before it has turned something by much.
  __device__ __forceinline__ bool sweeping(int sweep) const {
    return finite() && state_->factored && (sweep == 0 || !settled(sweep - 1));
  }
  // A sweep that was not needed records nothing, and is settled. Columns of one length turn by any
  // angle, however small their cosine, and rounding then brings back some 4e-6.
  __device__ __forceinline__ bool settled(int sweep) const {
    constexpr float kRoundedCosine = 1e-5f;
    const SweepRecord largest = {__uint_as_float(state_->cosine[sweep]),
                                 __uint_as_float(state_->tangent[sweep])};
    return largest.cosine <= kRoundedCosine || converged(largest);
  }

  template <class T>
  __device__ __forceinline__ T* at(int64_t PanelLayout::* place) const {
    return assume_global(reinterpret_cast<T*>(space_ + layout_.*place));
  }
  __device__ __forceinline__ PanelMatrix panels_at(int64_t PanelLayout::* place) const {
    return {at<float>(place), n};
  }

  // True in the last block of this launch that gets here for a counter, which goes back to zero.
  // What the others wrote before must be read past the first-level cache. A barrier for the block.
  __device__ __forceinline__ bool last_to_arrive(int& counter, int expected, int* shared) const {
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) *shared = atomicAdd(&counter, 1);
    __syncthreads();
    const bool last = *shared == expected - 1;
    __syncthreads();
    if (!last) return false;
    if (threadIdx.x == 0) counter = 0;
    __threadfence();
    return true;
  }

 private:
  struct Place {
    int matrix, item;
  };

  __device__ __forceinline__ PanelProblem(const PanelTask* tasks, unsigned char* workspace,
                                          const Place& place)
      : n(tasks[place.matrix].spectral.n),
        pairs(pairs_of(n)),
        item(place.item),
        task_(tasks[place.matrix]),
        state_(reinterpret_cast<PanelState*>(workspace + task_.state_at)),
        space_(workspace + task_.space_at),
        layout_(n, task_.spectral.basis != nullptr) {}

  static __device__ __forceinline__ Place place_of(const SizeClasses& classes) {
    int block = int(blockIdx.x), first = 0;
    for (int c = 0;; ++c) {
      const int each = Items::blocks(classes.each[c].pairs), matrices = classes.each[c].matrices;
      if (block < each * matrices) return {first + block / each, block % each};
      block -= each * matrices;
      first += matrices;
    }
  }

  const PanelTask& task_;
  PanelState* state_;
  unsigned char* space_;
  PanelLayout layout_;
};

}  // namespace kronext::cuda
