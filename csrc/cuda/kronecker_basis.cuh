// The small algebra of power iteration on the device: iterates as orthonormal bases, and bases as
// singular triples. The mathematics is that of csrc/cpu/kronecker_basis.h.
//
// One block takes one basis (orthonormalise), or the two of a batch entry (triples), because each
// step needs the last: dot products in float64 over all of a column, in a fixed order. A thread
// always works on the same entries, so only sums need barriers. Bytes: for r columns of d values
// about (3 + 3 r) r d values read and 3 r d written, from the second-level cache.
#pragma once

#include "csrc/core/power_iteration.h"
#include "csrc/core/small_svd.h"
#include "csrc/cuda/block.cuh"
#include "csrc/cuda/launch.cuh"

namespace kronext::cuda {

constexpr int kBasisThreads = 512;
using BasisBlock = BlockReduction<kBasisThreads>;

struct BasisTask {
  void* columns;         // made orthonormal
  const void* previous;  // orthonormal; replaces columns that vanish
  double* inside;        // scratch, as many values as columns
  double* sine;          // of the largest angle between a column and the span of `previous`
  int64_t size;
  int32_t count;
};

template <class T>
class Orthonormaliser {
 public:
  __device__ Orthonormaliser(const BasisTask& task, const BasisBlock& block)
      : task_(task),
        block_(block),
        columns_(static_cast<T*>(task.columns)),
        previous_(static_cast<const T*>(task.previous)) {}

  // A column that is nothing but rounding beside the leading one is replaced by one of the previous
  // basis: r orthonormal columns cannot all lie in the span of fewer than r.
  __device__ double run() const {
    const double negligible = double(task_.count) * (sizeof(T) == 8 ? 1e-14 : 1e-6);
    double turned = 0, leading = 0;
    for (int64_t k = 0; k < task_.count; ++k) {
      double stayed = orthogonalise(k);
      if (k == 0) leading = stayed;
      for (int64_t i = 0; stayed <= negligible * leading && i < task_.count; ++i) {
        for_mine(block_, task_.size, [&](int64_t e) { column(k)[e] = previous(i)[e]; });
        const double part = orthogonalise(k);
        if (part * part * double(task_.count) >= 0.5) stayed = part;
      }
      if (!(stayed <= kLargest)) {
        for_mine(block_, task_.count * task_.size, [&](int64_t e) { columns_[e] = T(NAN); });
        return 0;
      }
      const double sine = distance(k);
      turned = sine > turned ? sine : turned;
    }
    return turned;
  }

 private:
  __device__ T* column(int64_t k) const { return columns_ + k * task_.size; }
  __device__ const T* previous(int64_t k) const { return previous_ + k * task_.size; }
  __device__ double dot(const T* x, const T* y) const {
    return sum_of(block_, task_.size, [=](int64_t e) { return double(x[e]) * double(y[e]); });
  }

  // Takes the first k columns out of column k, twice because once leaves a rounded rest of them,
  // and makes what stays of norm 1. Returns the length of what stayed.
  __device__ double orthogonalise(int64_t k) const {
    T* const x = column(k);
    double stayed = 1;
    for (int pass = 0; pass < (k > 0 ? 3 : 1); ++pass) {
      for (int64_t i = 0; pass > 0 && i < k; ++i) {
        const T* const other = column(i);
        const double factor = dot(other, x);
        for_mine(block_, task_.size,
                 [=](int64_t e) { x[e] = T(double(x[e]) - factor * double(other[e])); });
      }
      const double length = norm(block_, x, task_.size);
      if (!(length > 0 && length <= kLargest)) return length;
      for_mine(block_, task_.size, [=](int64_t e) { x[e] = T(double(x[e]) * (1 / length)); });
      stayed *= length;
    }
    return stayed;
  }

  // The sine of the angle between column k and the span of the previous basis.
  __device__ double distance(int64_t k) const {
    const T* const x = column(k);
    for (int64_t i = 0; i < task_.count; ++i) {
      const double along = dot(previous(i), x);
      if (threadIdx.x == 0) task_.inside[i] = along;
    }
    __syncthreads();
    return sqrt(sum_of(block_, task_.size, [&](int64_t e) {
      double rest = double(x[e]);
      for (int64_t i = 0; i < task_.count; ++i) rest -= task_.inside[i] * double(previous(i)[e]);
      return rest * rest;
    }));
  }

  const BasisTask& task_;
  const BasisBlock& block_;
  T* columns_;
  const T* previous_;
};

template <class T>
__global__ void __launch_bounds__(kBasisThreads, 1)
    orthonormalise_kernel(const BasisTask* tasks, const int* done) {
  KRONEXT_DYNAMIC_SHARED(shared);
  if (done && *done) return;
  const BasisTask& task = tasks[blockIdx.x];
  const BasisBlock block{reinterpret_cast<double*>(shared)};
  const double sine = Orthonormaliser<T>(task, block).run();
  if (threadIdx.x == 0) *task.sine = sine;
}

// How far each of `count` batch entries turned: the larger sine of its two sides, which follow each
// other. Where `done` is given, it becomes 1 once all are at most `tolerance`.
template <int threads>
__global__ void __launch_bounds__(threads)
    turned_kernel(const double* sines, double* turned, int64_t count, double tolerance, int* done) {
  KRONEXT_DYNAMIC_SHARED(shared);
  if (done && *done) return;
  const BlockReduction<threads> block{reinterpret_cast<double*>(shared)};
  const double moving = sum_of(block, count, [=](int64_t i) {
    turned[i] = sines[2 * i] > sines[2 * i + 1] ? sines[2 * i] : sines[2 * i + 1];
    return turned[i] <= tolerance ? 0.0 : 1.0;
  });
  if (done && threadIdx.x == 0 && moving == 0) *done = 1;
}

struct TriplesTask {
  void *left, *right;  // orthonormal bases of rank m x m and n x n matrices; become the factors
  void* image;         // Hhat times the right basis; overwritten
  void* sigma;
  int32_t* info;
  const double* turned;
  double* small;  // scratch: 2 rank^2 + rank values
  double* rows;   // rank values for each thread
  int32_t m, n, rank;
};

template <class T>
class TripleMaker {
 public:
  __device__ TripleMaker(const TriplesTask& task, const BasisBlock& block)
      : task_(task),
        block_(block),
        m_(task.m),
        n_(task.n),
        left_(static_cast<T*>(task.left)),
        right_(static_cast<T*>(task.right)),
        image_(static_cast<T*>(task.image)),
        sigma_(static_cast<T*>(task.sigma)) {}

  // False where something was not finite.
  __device__ bool run() const {
    const int64_t rank = task_.rank;
    double *const b = task_.small, *const q = b + rank * rank, *const values = q + rank * rank;
    bool finite = true;
    for (int64_t k = 0; k < rank; ++k) {
      for (int64_t i = 0; i < rank; ++i) {
        const double entry = dot(left_ + i * m_ * m_, image_ + k * m_ * m_, m_ * m_);
        finite &= fabs(entry) <= kLargest;
        if (threadIdx.x == 0) b[k * rank + i] = entry;
      }
    }
    double sigma = 0;
    if (finite && rank > 1) {
      if (threadIdx.x == 0) small_svd(b, q, values, rank);
      __syncthreads();
      rotate(left_, m_ * m_, b);
      rotate(right_, n_ * n_, q);
      rotate(image_, m_ * m_, q);
    }
    if (finite && m_ > 0 && n_ > 0) sigma = finish_leading();
    if (!(finite && sigma == sigma)) {
      for (int64_t k = 0; k < rank; ++k) {
        fill_identity(left_ + k * m_ * m_, m_);
        fill_identity(right_ + k * n_ * n_, n_);
      }
      for_mine(block_, rank, [&](int64_t k) { sigma_[k] = T(0); });
      return false;
    }
    for_mine(block_, rank, [&](int64_t k) { sigma_[k] = T(k == 0 ? sigma : values[k]); });
    return true;
  }

 private:
  __device__ double dot(const T* x, const T* y, int64_t size) const {
    return sum_of(block_, size, [=](int64_t e) { return double(x[e]) * double(y[e]); });
  }

  // columns <- columns * matrix, a small square matrix with contiguous columns.
  __device__ void rotate(T* columns, int64_t size, const double* matrix) const {
    const int64_t rank = task_.rank;
    double* const row = task_.rows + threadIdx.x;
    for_mine(block_, size, [&](int64_t e) {
      for (int64_t k = 0; k < rank; ++k) {
        double sum = 0;
        for (int64_t i = 0; i < rank; ++i) {
          sum += double(columns[i * size + e]) * matrix[k * rank + i];
        }
        row[k * kBasisThreads] = sum;
      }
      for (int64_t k = 0; k < rank; ++k) columns[k * size + e] = T(row[k * kBasisThreads]);
    });
  }

  // x <- (x + xT) / 2: a thread writes an entry below the diagonal and its mirror.
  __device__ void symmetrise(T* x, int64_t dim) const {
    __syncthreads();
    for_mine(block_, dim * dim, [=](int64_t e) {
      const int64_t i = e / dim, j = e % dim;
      if (j >= i) return;
      const T mean = T(0.5 * (double(x[i * dim + j]) + double(x[j * dim + i])));
      x[i * dim + j] = x[j * dim + i] = mean;
    });
    __syncthreads();
  }

  __device__ void scale(T* x, double factor, int64_t size) const {
    for_mine(block_, size, [=](int64_t e) { x[e] = T(double(x[e]) * factor); });
  }

  __device__ void fill_identity(T* x, int64_t dim) const {
    for_mine(block_, dim * dim,
             [=](int64_t e) { x[e] = e % (dim + 1) == 0 ? T(1 / sqrt(double(dim))) : T(0); });
  }

  // Makes the leading pair symmetric and of norm 1 with a trace that is not negative, and returns
  // <left, Hhat vec(right)>. The image is Hhat vec(right) before that; for a symmetric H the
  // symmetric part of right has the symmetric part of the image, and <left, .> sees no other.
  __device__ double finish_leading() const {
    symmetrise(left_, m_);
    symmetrise(right_, n_);
    const double left_norm = norm(block_, left_, m_ * m_),
                 right_norm = norm(block_, right_, n_ * n_);
    const double trace = sum_of(block_, n_, [&](int64_t i) { return double(right_[i * n_ + i]); });
    const double sign = trace < 0 ? -1 : 1;
    // The trace has read what other threads now scale.
    __syncthreads();
    scale(left_, sign / left_norm, m_ * m_);
    scale(right_, sign / right_norm, n_ * n_);
    const double sigma = sign * dot(left_, image_, m_ * m_) / right_norm;
    if (sigma < 0) scale(left_, -1, m_ * m_);
    return fabs(sigma);
  }

  const TriplesTask& task_;
  const BasisBlock& block_;
  int64_t m_, n_;
  T *left_, *right_, *image_, *sigma_;
};

// One block for each batch entry.
template <class T>
__global__ void __launch_bounds__(kBasisThreads, 1)
    triples_kernel(const TriplesTask* tasks, double tolerance) {
  KRONEXT_DYNAMIC_SHARED(shared);
  const TriplesTask& task = tasks[blockIdx.x];
  const BasisBlock block{reinterpret_cast<double*>(shared)};
  const bool finite = TripleMaker<T>(task, block).run();
  if (threadIdx.x == 0) *task.info = !finite ? 1 : *task.turned <= tolerance ? 0 : 2;
}

}  // namespace kronext::cuda
