// From orthogonal columns M = U Sigma in panels to eigenvalues, eigenvectors and the root.
//
// Eigenvalues that are wanted are Rayleigh quotients of U in wide arithmetic, whose error is the
// square of U's; the root is made from Sigma^2 - s, which is as accurate for small eigenvalues as
// for large ones. The root is (U g)(U g)T with g = f^(1/2), its lower half computed, the mirror
// written.
//
// Operations: n^3 wide for the eigenvalues, n^3 / 2 for the root. Bytes: M once for each, and the
// results.
#pragma once

#include "csrc/cuda/panel_problem.cuh"

namespace kronext::cuda {

// For each tile of rows, its part of the form mT A m of every column m.
template <class Wide>
__global__ void __launch_bounds__(kTileThreads, 2)
    form_kernel(const PanelTask* tasks, unsigned char* workspace, SizeClasses classes) {
  KRONEXT_DYNAMIC_SHARED(shared);
  const PanelProblem<ForEachTile> problem(tasks, workspace, classes);
  if (!problem.finite() || !problem.task().values) return;
  const int n = problem.n;
  const int strip = problem.item / problem.pairs, row = strip * kTile;
  const int column = problem.item % problem.pairs * kTile;
  const PanelMatrix m = problem.panels_at(&PanelLayout::columns);
  const ScaledMatrix a = problem.scaled_matrix();
  TileSums<Wide> sums;
  sums.template add_product<float>(
      along_depth([=](int i, int k) { return row + i < n ? a(row + i, k) : 0.f; }),
      across_depth([=](int j, int k) { return m(k, column + j); }), n, shared);
  Wide* const parts = reinterpret_cast<Wide*>(shared);
#pragma unroll
  for (int c = 0; c < kTileSide; ++c) {
    Wide form = Wide(0.f);
#pragma unroll
    for (int r = 0; r < kTileSide; ++r) {
      const int i = row + sums.first_row() + r;
      const float x = i < n ? m(i, column + sums.first_column() + c) : 0.f;
      form = multiply_add(Wide(x), sums.sum[r][c], form);
    }
    parts[sums.first_row() / kTileSide * kTile + sums.first_column() + c] = form;
  }
  __syncthreads();
  const int c = int(threadIdx.x);
  if (c >= kTile || column + c >= n) return;
  Wide sum = parts[c];
  for (int r = 1; r < kTile / kTileSide; ++r) sum = sum + parts[r * kTile + c];
  problem.template at<double>(&PanelLayout::forms)[int64_t(strip) * n + column + c] = double(sum);
}

// What the last block of a matrix makes of the squares of its columns.
class Spectrum {
 public:
  __device__ __forceinline__ Spectrum(const PanelProblem<ForEachStrip>& problem,
                                      const SpectralOptions& options, unsigned char* shared)
      : problem_(problem),
        options_(options),
        n_(problem.n),
        value_(reinterpret_cast<double*>(shared)) {}

  __device__ __forceinline__ void finish() const {
    const bool solved = problem_.finite() && problem_.settled(kPanelSweeps - 1);
    const bool done = solved && measure();
    const int info = done ? kDone : problem_.finite() ? kNotConverged : kNonFinite;
    float* const values = problem_.task().values;
    if (values && !done) {
      for (int k = int(threadIdx.x); k < n_; k += kTileThreads) {
        assume_global(values)[k] = 1.f;
      }
    }
    if (threadIdx.x != 0) return;
    problem_.state().info = info;
    *assume_global(problem_.task().info) = info;
  }

 private:
  // Lengths, order, weights and values. False: a result does not fit float32.
  __device__ __forceinline__ bool measure() const {
    const SpectralTask& task = problem_.task();
    const Scale scale = problem_.scale();
    double* const square = problem_.at<double>(&PanelLayout::square);
    float* const length = problem_.at<float>(&PanelLayout::length);
    float* const weight = problem_.at<float>(&PanelLayout::weight);
    int* const order = problem_.at<int>(&PanelLayout::order);
    for (int j = int(threadIdx.x); j < n_; j += kTileThreads) {
      value_[j] = load_through_l2(square + j) - problem_.shift();
    }
    __syncthreads();
    double largest = 0;
    for (int j = 0; j < n_; ++j) largest = fmax(largest, value_[j]);
    bool fits = true;
    float largest_gain = 0.f;
    for (int j = int(threadIdx.x); j < n_; j += kTileThreads) {
      const double damped =
          damped_eigenvalue(scale.up(value_[j]), scale.up(largest), options_.damping);
      const float gain = half_gain(damped, options_.damping.root);
      length[j] = float(rsqrt(load_through_l2(square + j)));
      weight[j] = gain;
      largest_gain = fmaxf(largest_gain, gain);
      if (task.root) fits &= isfinite(gain * gain);
    }
    __syncthreads();
    if (task.values) {
      for (int j = int(threadIdx.x); j < n_; j += kTileThreads) {
        value_[j] = rayleigh_quotient(j) / load_through_l2(square + j);
        fits &= isfinite(float(scale.up(value_[j])));
      }
    }
    const int exponent = gain_exponent(largest_gain);
    fits = largest_of_block(fits ? 0u : 1u) == 0u;
    if (!fits) return false;
    for (int j = int(threadIdx.x); j < n_; j += kTileThreads) {
      weight[j] *= power_of_two(-exponent) * length[j];
      const int rank = rank_of(j);
      order[rank] = j;
      if (task.values) assume_global(task.values)[rank] = float(scale.up(value_[j]));
    }
    if (threadIdx.x == 0) problem_.state().root_exponent = exponent;
    return true;
  }

  // The power of two of the largest gain of all threads: weights are divided by it, so that their
  // products neither overflow nor vanish.
  __device__ __forceinline__ int gain_exponent(float largest_gain) const {
    const int exponent = int(largest_of_block(__float_as_uint(largest_gain)) >> 23) - 127;
    return exponent < -63 ? -63 : exponent > 63 ? 63 : exponent;
  }

  // With a barrier at each end.
  __device__ __forceinline__ unsigned largest_of_block(unsigned x) const {
    unsigned* const of_warp = reinterpret_cast<unsigned*>(value_ + n_);
    x = __reduce_max_sync(~0u, x);
    __syncthreads();
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = x;
    __syncthreads();
    for (int w = 0; w < kTileThreads / 32; ++w) x = max(x, of_warp[w]);
    return x;
  }

  __device__ __forceinline__ double rayleigh_quotient(int j) const {
    const double* const forms = problem_.at<double>(&PanelLayout::forms);
    double sum = 0;
    for (int strip = 0; strip < problem_.pairs; ++strip) sum += forms[int64_t(strip) * n_ + j];
    return sum;
  }

  // Equal values keep their order.
  __device__ __forceinline__ int rank_of(int j) const {
    const double mine = value_[j];
    int rank = 0;
    for (int i = 0; i < n_; ++i) rank += value_[i] < mine || (value_[i] == mine && i < j);
    return rank;
  }

  const PanelProblem<ForEachStrip>& problem_;
  const SpectralOptions& options_;
  int n_;
  double* value_;
};

constexpr int kSpectrumBytes = kLargestPanelMatrix * 8 + kTileThreads / 32 * 4;

// The square of each column, 64 a block; the last block of a matrix makes the spectrum from them.
__global__ void __launch_bounds__(kTileThreads, 2)
    spectrum_kernel(const PanelTask* tasks, unsigned char* workspace, SizeClasses classes,
                    SpectralOptions options) {
  KRONEXT_DYNAMIC_SHARED(shared);
  const PanelProblem<ForEachStrip> problem(tasks, workspace, classes);
  constexpr int kShares = kTileThreads / kTile;
  const int c = int(threadIdx.x) % kTile, share = int(threadIdx.x) / kTile;
  const int column = problem.item * kTile + c;
  double sum = 0;
  if (problem.finite()) {
    const PanelMatrix m = problem.panels_at(&PanelLayout::columns);
    for (int i = share; i < problem.n; i += kShares) {
      const double x = m(i, column);
      sum = fma(x, x, sum);
    }
  }
  double* const sums = reinterpret_cast<double*>(shared);
  sums[threadIdx.x] = sum;
  __syncthreads();
  if (share == 0 && column < problem.n) {
    for (int s = 1; s < kShares; ++s) sum += sums[s * kTile + c];
    problem.at<double>(&PanelLayout::square)[column] = sum;
  }
  __syncthreads();
  if (!problem.last_to_arrive(problem.state().arrived, problem.blocks(),
                              reinterpret_cast<int*>(shared))) {
    return;
  }
  Spectrum(problem, options, shared).finish();
}

__global__ void __launch_bounds__(kTileThreads, 2)
    vectors_kernel(const PanelTask* tasks, unsigned char* workspace, SizeClasses classes) {
  const PanelProblem<ForEachTile> problem(tasks, workspace, classes);
  if (!problem.task().vectors) return;
  const int n = problem.n;
  const int row = problem.item / problem.pairs * kTile, rank = problem.item % problem.pairs * kTile;
  const bool done = problem.state().info == kDone;
  const PanelMatrix m = problem.panels_at(&PanelLayout::columns);
  const float* const length = problem.at<float>(&PanelLayout::length);
  const int* const order = problem.at<int>(&PanelLayout::order);
  float* const out = assume_global(problem.task().vectors);
  for (int k = int(threadIdx.x); k < kTile * kTile; k += kTileThreads) {
    const int i = row + k / kTile, r = rank + k % kTile;
    if (i >= n || r >= n) continue;
    const int j = done ? order[r] : 0;
    out[int64_t(i) * n + r] = done ? m(i, j) * length[j] : i == r ? 1.f : 0.f;
  }
}

__global__ void __launch_bounds__(kTileThreads, 2)
    root_kernel(const PanelTask* tasks, unsigned char* workspace, SizeClasses classes,
                SpectralOptions options) {
  KRONEXT_DYNAMIC_SHARED(shared);
  const PanelProblem<ForEachLowerTile> problem(tasks, workspace, classes);
  const bool done = problem.state().info == kDone;
  if (!problem.task().root || (!done && options.keep_failed)) return;
  const int n = problem.n;
  const TilePlace tile = lower_tile(problem.item);
  const PanelMatrix m = problem.panels_at(&PanelLayout::columns);
  const float* const weight = problem.at<float>(&PanelLayout::weight);
  const auto rows = [=](int first) {
    return along_depth(
        [=](int i, int k) { return first + i < n ? m(first + i, k) * weight[k] : 0.f; });
  };
  TileSums<float> sums;
  if (done) sums.add_product<float>(rows(tile.row * kTile), rows(tile.column * kTile), n, shared);
  const float up = power_of_two(2 * problem.state().root_exponent);
  float* const out = assume_global(problem.task().root);
  sums.for_each([&](int r, int c, float sum) {
    const int i = tile.row * kTile + r, j = tile.column * kTile + c;
    if (i >= n || j > i) return;
    const float value = done ? sum * up : i == j ? 1.f : 0.f;
    out[int64_t(i) * n + j] = value;
    out[int64_t(j) * n + i] = value;
  });
}

}  // namespace kronext::cuda
