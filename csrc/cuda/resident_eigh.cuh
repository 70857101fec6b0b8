// Eigendecomposition and inverse root of symmetric float32 matrices of up to 160 rows, each in the
// shared memory of one block, or of a part of one.
//
//   A + s I = L LT    wide arithmetic (wide_arithmetic.cuh), pivoted; s = 0 where A is positive
//                     definite, else the smallest of a ladder of shifts that makes it so
//   M = L             float32; rotations from the right make the columns of M orthogonal
//   M = U Sigma       eigenvectors U, eigenvalues Sigma^2 - s
//   root = U f UT     half of it computed, the mirror written
//
// Only the factorisation needs more than float32: rotations change A by a factor (I + E) on either
// side, |E| about 1e-6, so small eigenvalues keep their relative accuracy, and with a shift an
// absolute one of 1e-6 (s + lambda). Values that are wanted are Rayleigh quotients of U in wide
// arithmetic, whose error is the square of U's.
//
// Warm start: B = QT A Q in wide arithmetic, B + s I = L LT, M = Q L. M is nearly orthogonal
// already and takes as many sweeps as it needs.
//
// Operations: n^3 / 3 wide (warm: 1.8 n^3; values: n^3 / 2 more), 2.2 n^3 a sweep with about log2 n
// + 2 sweeps (warm: 2 to 4), n^3 / 2 for the root. Bytes: A in its lower triangle, outputs.
#pragma once

#include "csrc/cuda/resident_products.cuh"
#include "csrc/cuda/resident_spectrum.cuh"

namespace kronext::cuda {

// A warm start whose basis errs by rounding alone is used as it is; up to kFarFromOrthogonal it is
// made orthogonal first, further off it is dropped. |QT Q - I|_F, the former for each row.
constexpr float kRoundedBasis = 0x1p-24f;
constexpr float kFarFromOrthogonal = 1e-3f;
// Attempts at a factorisation, and those of them that a basis serves: indefinite matrices need more
// than it would save.
constexpr int kMaxShifts = 17, kWarmShifts = 2;

// 0, 2^-20, then every fourth power until no matrix with entries below 2 is indefinite.
__device__ __forceinline__ float shift_of(int attempt, int n) {
  if (attempt == 0) return 0.f;
  return fminf(power_of_two(2 * attempt - 22), 2.f * float(n));
}

template <class Shape, class Wide>
struct ResidentSolver {
  MatrixThreads<Shape> threads;
  const SpectralTask& task;
  Columns columns;
  float* second;  // of a warm start
  EliminationMemory<Wide> elimination;
  unsigned* scratch;

  __device__ __forceinline__ ResidentSolver(const SpectralTask& task, unsigned char* memory)
      : task(task) {
    const ResidentLayout layout(task.n);
    columns = {reinterpret_cast<float*>(memory + layout.columns_at()), layout.pitch(), task.n};
    second = reinterpret_cast<float*>(memory + layout.second_at());
    elimination = {reinterpret_cast<Wide*>(memory),
                   reinterpret_cast<unsigned*>(memory + layout.padded * 8)};
    scratch = reinterpret_cast<unsigned*>(memory + layout.scratch_at());
  }

  // The bits of the largest magnitude; those of a NaN or an infinity are larger than any number's.
  __device__ __forceinline__ unsigned largest_entry() const {
    unsigned largest = 0;
    for_lower_triangle(task.n, threads.thread, Shape::kThreads, [&](int i, int j) {
      largest = max(largest, __float_as_uint(entry(task, i, j)) & 0x7fffffffu);
    });
    return threads.largest(largest, scratch);
  }

  // M = L. Returns the shift.
  __device__ __forceinline__ float factor_cold(const Scale& scale) const {
    PivotedCholesky<Shape, Wide> cholesky(threads.thread);
    float shift = 0.f;
    for (int attempt = 0; attempt < kMaxShifts; ++attempt) {
      shift = shift_of(attempt, task.n);
      load_matrix(scale);
      cholesky.fill(columns, shift);
      if (cholesky.factor(columns, elimination, threads)) break;
    }
    return shift;
  }

  // M = Q L. Returns the shift.
  __device__ __forceinline__ float factor_warm(const Scale& scale) const {
    PivotedCholesky<Shape, Wide> cholesky(threads.thread);
    const Columns l = {second, columns.pitch, columns.n};
    float shift = 0.f;
    for (int attempt = 0; attempt < kMaxShifts; ++attempt) {
      shift = shift_of(attempt, task.n);
      if (attempt == 0) load_basis();
      if (attempt == kWarmShifts) load_identity();
      const auto a = [&](int i, int j) { return scale.down(entry(task, i, j)); };
      project(cholesky, columns, a, second, threads);
      cholesky.add_to_diagonal(task.n, shift);
      if (cholesky.factor(l, elimination, threads)) break;
    }
    multiply(columns, second, columns.data, threads);
    return shift;
  }

  // Sweeps until one leaves only orthogonal columns. False: kMaxSweeps were not enough.
  __device__ __forceinline__ bool orthogonalise() const {
    const int blocks = (task.n + 2 * kColumnsOfBlock - 1) / (2 * kColumnsOfBlock) * 2;
    const int lane = threads.thread % Shape::kLanes, team = threads.thread / Shape::kLanes;
    for (int sweep = 0; sweep < kMaxSweeps; ++sweep) {
      SweepRecord record;
      for (int round = 0; round < blocks - 1; ++round) {
        for (int first = 0; first < blocks / 2; first += Shape::kTeams) {
          const bool present = first + team < blocks / 2;
          const BlockPair met = round_robin(round, first + team, blocks);
          ColumnPair<Shape::kLanes, Shape::kRows> pair;
          pair.load(columns, met, lane, present);
          if (pair.rotate(round == 0, threads.mask, lane, record)) {
            pair.store(columns, met, lane, present);
          }
        }
        threads.sync();
      }
      record.cosine = threads.largest(record.cosine, scratch);
      record.tangent = threads.largest(record.tangent, scratch);
      if (converged(record)) return true;
    }
    return false;
  }

 private:
  // The matrix as columns, both triangles. What lies beyond a column is not used before the factor
  // has overwritten it.
  __device__ __forceinline__ void load_matrix(const Scale& scale) const {
    for_lower_triangle(columns.n, threads.thread, Shape::kThreads, [&](int i, int j) {
      const float a = scale.down(entry(task, i, j));
      columns.data[i * columns.pitch + j] = columns.data[j * columns.pitch + i] = a;
    });
    threads.sync();
  }

  __device__ __forceinline__ void clear_padding() const {
    const int padding = columns.pitch - columns.n;
    for (int k = threads.thread; k < columns.n * padding; k += Shape::kThreads) {
      columns.data[k / padding * columns.pitch + columns.n + k % padding] = 0.f;
    }
  }

  __device__ __forceinline__ void load_basis() const {
    const int n = columns.n, pitch = columns.pitch;
    for (int k = threads.thread; k < n * n; k += Shape::kThreads) {
      columns.data[k % n * pitch + k / n] = assume_global(task.basis)[k];
    }
    threads.sync();
    const float distance = newton_schulz_factor();
    if (!(distance <= kFarFromOrthogonal)) return load_identity();
    if (distance > kRoundedBasis * float(n)) {
      multiply({second, pitch, n}, columns.data, columns.data, threads);
    }
    // Only now: the product writes there too. The projection takes four rows at a time.
    clear_padding();
    threads.sync();
  }

  // second <- (3 I - Q QT) / 2, by which Q becomes orthogonal up to the square of the distance.
  // Returns that: |Q QT - I|_F.
  __device__ __forceinline__ float newton_schulz_factor() const {
    const int pitch = columns.pitch;
    float squares = 0.f;
    lower_gram<Shape>(columns, threads.thread, [&](int i, int j, float product) {
      const float off = product - (i == j ? 1.f : 0.f);
      squares = fmaf(i == j ? off : 2.f * off, off, squares);
      second[j * pitch + i] = second[i * pitch + j] = (i == j ? 1.f : 0.f) - 0.5f * off;
    });
    threads.sync();
    return sqrtf(threads.sum(squares, scratch));
  }

  __device__ __forceinline__ void load_identity() const {
    threads.sync();
    for (int k = threads.thread; k < columns.n * columns.pitch; k += Shape::kThreads) {
      columns.data[k] = k / columns.pitch == k % columns.pitch ? 1.f : 0.f;
    }
    threads.sync();
  }
};

// Blocks take `Shape::kMatrices` tasks each, every one with `matrix_bytes` of shared memory. They
// share nothing; whatever becomes of a matrix, its neighbours do not notice.
template <class Shape, class Wide, bool kWarm>
__global__ void __launch_bounds__(Shape::kBlockThreads, Shape::kBlocks)
    resident_eigh_kernel(const SpectralTask* tasks, int count, int matrix_bytes,
                         SpectralOptions options) {
  KRONEXT_DYNAMIC_SHARED(shared);
  const int place = int(threadIdx.x) / Shape::kThreads;
  const int index = int(blockIdx.x) * Shape::kMatrices + place;
  if (index >= count) return;
  const SpectralTask& task = tasks[index];
  unsigned char* const memory = shared + place * matrix_bytes;
  const ResidentSolver<Shape, Wide> solver(task, memory);
  const MatrixThreads<Shape>& threads = solver.threads;
  const auto fail = [&](Info info) {
    write_failure(task, options, info, threads.thread, Shape::kThreads);
  };

  if (task.n == 0) {
    if (threads.thread == 0) *task.info = kDone;
    return;
  }
  const unsigned largest = solver.largest_entry();
  if (largest >= kInfinityBits) return fail(kNonFinite);
  const Scale scale = scale_of(largest);
  float shift;
  if constexpr (kWarm) {
    shift = solver.factor_warm(scale);
  } else {
    shift = solver.factor_cold(scale);
  }
  if (!solver.orthogonalise()) return fail(kNotConverged);
  const Spectrum<Shape, Wide> spectrum(task, options, scale, shift, memory);
  spectrum.measure();
  if (!spectrum.representable()) return fail(kNotConverged);
  spectrum.write();
}

}  // namespace kronext::cuda
