// From orthogonal columns M = U Sigma in shared memory to eigenvalues, eigenvectors and root.
#pragma once

#include "csrc/cuda/resident_products.cuh"
#include "csrc/cuda/spectral_scale.cuh"

namespace kronext::cuda {

// n numbers each, in the scale of the solver.
struct SpectrumMemory {
  float* lambda;  // Sigma^2 - s, what a root is made from
  float* value;   // what `values` gets
  float* length;  // 1 / Sigma
  float* gain;    // of a column in the root
  int* order;     // ascending

  SpectrumMemory() = default;
  __device__ __forceinline__ SpectrumMemory(unsigned char* memory, int padded) {
    lambda = reinterpret_cast<float*>(memory);
    value = lambda + padded;
    length = value + padded;
    gain = length + padded;
    order = reinterpret_cast<int*>(gain + padded);
  }
};

template <class Shape, class Wide>
struct Spectrum {
  MatrixThreads<Shape> threads;
  const SpectralTask& task;
  const SpectralOptions& options;
  Scale scale;
  float shift;
  Columns columns;
  SpectrumMemory memory;
  unsigned* scratch;

  __device__ __forceinline__ Spectrum(const SpectralTask& task, const SpectralOptions& options,
                                      const Scale& scale, float shift, unsigned char* shared)
      : task(task), options(options), scale(scale), shift(shift) {
    const ResidentLayout layout(forgotten(task.n));
    columns = {reinterpret_cast<float*>(shared + layout.columns_at()), layout.pitch(), layout.n};
    memory = SpectrumMemory(shared, layout.padded);
    scratch = reinterpret_cast<unsigned*>(shared + layout.scratch_at());
  }

  // Eigenvalues, their order, and what scales a column of M to one of U and to one of the root's.
  __device__ __forceinline__ void measure() const {
    const int lane = threads.thread % Shape::kLanes, team = threads.thread / Shape::kLanes;
    for (int first = 0; first < columns.n; first += Shape::kTeams * kColumnsOfBlock) {
      measure_block(first + team * kColumnsOfBlock, lane);
    }
    threads.sync();
    float largest = 0.f;
    for (int j = 0; j < columns.n; ++j) largest = fmaxf(largest, memory.lambda[j]);
    for (int i = threads.thread; i < columns.n; i += Shape::kThreads) {
      memory.order[rank_of(i)] = i;
      const double damped = damped_eigenvalue(scale.up(double(memory.lambda[i])),
                                              scale.up(double(largest)), options.damping);
      memory.gain[i] = half_gain(damped, options.damping.root);
    }
    threads.sync();
  }

  // Whether all results that are wanted fit float32.
  __device__ __forceinline__ bool representable() const {
    bool fits = true;
    for (int i = threads.thread; i < columns.n; i += Shape::kThreads) {
      if (task.values) fits &= isfinite(scale.up(memory.value[i]));
      if (task.root) fits &= isfinite(memory.gain[i] * memory.gain[i]);
    }
    return !threads.any(!fits, scratch);
  }

  __device__ __forceinline__ void write() const {
    const int n = columns.n;
    if (task.values) {
      for (int k = threads.thread; k < n; k += Shape::kThreads) {
        task.values[k] = scale.up(memory.value[memory.order[k]]);
      }
    }
    if (task.vectors) {
      for (int k = threads.thread; k < n * n; k += Shape::kThreads) {
        const int column = memory.order[k % n];
        task.vectors[k] = columns.data[column * columns.pitch + k / n] * memory.length[column];
      }
    }
    if (task.root) write_root();
    if (threads.thread == 0) *task.info = kDone;
  }

 private:
  // Four columns from `first` on, by one team; those beyond the matrix repeat the last one.
  __device__ __forceinline__ void measure_block(int first, int lane) const {
    const float* at[kColumnsOfBlock];
    Wide square[kColumnsOfBlock], form[kColumnsOfBlock];
#pragma unroll
    for (int c = 0; c < kColumnsOfBlock; ++c) {
      at[c] = columns.data + min(first + c, columns.n - 1) * columns.pitch;
      square[c] = form[c] = Wide(0.f);
    }
    for (int i = lane; i < columns.n; i += Shape::kLanes) {
#pragma unroll
      for (int c = 0; c < kColumnsOfBlock; ++c) {
        square[c] = multiply_add(at[c][i], at[c][i], square[c]);
      }
    }
    if (task.values) {
      for (int i = 0; i < columns.n; ++i) add_row_of_form(i, lane, at, form);
    }
#pragma unroll
    for (int c = 0; c < kColumnsOfBlock; ++c) {
#pragma unroll
      for (int bit = 1; bit < Shape::kLanes; bit *= 2) {
        square[c] = square[c] + shuffle_xor(threads.mask, square[c], bit);
        form[c] = form[c] + shuffle_xor(threads.mask, form[c], bit);
      }
      if (lane != 0 || first + c >= columns.n) continue;
      const Wide length = inverse_root(square[c]);
      const float lambda = float(square[c] - Wide(shift));
      memory.length[first + c] = float(length);
      memory.lambda[first + c] = lambda;
      memory.value[first + c] = task.values ? 2.f * float(form[c] * (length * length)) : lambda;
    }
  }

  // form[c] += x_i (sum_{j < i} a_ij x_j + a_ii x_i / 2): half of xT A x, from the lower triangle.
  __device__ __forceinline__ void add_row_of_form(int i, int lane,
                                                  const float* const (&at)[kColumnsOfBlock],
                                                  Wide (&form)[kColumnsOfBlock]) const {
    Wide sum[kColumnsOfBlock];
#pragma unroll
    for (int c = 0; c < kColumnsOfBlock; ++c) sum[c] = Wide(0.f);
    for (int j = lane; j <= i; j += Shape::kLanes) {
      const float a = scale.down(entry(task, i, j)) * (i == j ? 0.5f : 1.f);
#pragma unroll
      for (int c = 0; c < kColumnsOfBlock; ++c) sum[c] = multiply_add(a, at[c][j], sum[c]);
    }
#pragma unroll
    for (int c = 0; c < kColumnsOfBlock; ++c) {
      form[c] = multiply_add(sum[c], Wide(at[c][i]), form[c]);
    }
  }

  // Equal values keep their order.
  __device__ __forceinline__ int rank_of(int i) const {
    const float mine = memory.value[i];
    int rank = 0;
    for (int j = 0; j < columns.n; ++j) {
      rank += memory.value[j] < mine || (memory.value[j] == mine && j < i);
    }
    return rank;
  }

  // (U g)(U g)T with g = f^(1/2), divided by the power of two that brings the largest g to [1, 2):
  // products neither overflow nor vanish.
  __device__ __forceinline__ void write_root() const {
    const int n = columns.n;
    float largest = 0.f;
    for (int j = 0; j < n; ++j) largest = fmaxf(largest, memory.gain[j]);
    int exponent = int(__float_as_uint(largest) >> 23) - 127;
    exponent = exponent < -63 ? -63 : exponent;
    const float down = power_of_two(-exponent), up = power_of_two(2 * exponent);
    threads.sync();  // before columns change: all have read their vectors
    for (int j = threads.thread / Shape::kLanes; j < n; j += Shape::kTeams) {
      const float factor = memory.length[j] * (memory.gain[j] * down);
      for (int i = threads.thread % Shape::kLanes; i < n; i += Shape::kLanes) {
        columns.data[j * columns.pitch + i] *= factor;
      }
    }
    threads.sync();
    lower_gram<Shape>(columns, threads.thread, [&](int i, int j, float product) {
      task.root[i * n + j] = product * up;
      task.root[j * n + i] = product * up;
    });
  }
};

}  // namespace kronext::cuda
