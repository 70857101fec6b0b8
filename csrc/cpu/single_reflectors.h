// V <- H_{n-1} ... H_2 V with the reflectors of single_tridiagonal.h.
//
// The reflectors k of a block of kRowBlock rows act as one product (compact WY):
//   H_last ... H_first = I - Y S YT,   row m of S = tau_m (e_m - (v_mT Y) S),
// Y with the v_k as columns, S lower triangular. A strip of V, kPanel<T> columns wide, is copied
// into a panel, which is at once an operand and a column of tiles of the micro-kernel, and all
// blocks pass over it there: 2 n^3 operations in all, as a block touches no row beyond its own.
#pragma once

#include "csrc/cpu/single_tridiagonal.h"

namespace kronext::cpu::KRONEXT_CPU {

template <class T, class D>
class ReflectorBlocks {
 public:
  ReflectorBlocks(const Reduction<D>& t, int64_t workers, void* workspace);
  void apply(const Team& team, T* vectors, int64_t row_stride) const;
  int64_t bytes() const { return bytes_; }

 private:
  static constexpr int kW = kPanel<T>;
  static constexpr int64_t kB = kRowBlock;
  static constexpr int64_t kPanels = kB / kW;  // of a block of reflectors
  static constexpr int64_t kMaxStrips = 6;     // of a task

  struct Scratch {
    T *rows, *factor, *strips, *product;
    D* negative;  // -S
  };

  static int64_t end(int64_t block) { return (block + 1) * kB; }
  // Several strips share the blocks once these are more than caches hold, and tasks are many enough
  // for a team.
  int64_t strips_of_task() const {
    return minimum(maximum<int64_t>(panel_count<T>(t_.n) / 16, 1), kMaxStrips);
  }
  // Blocks before this one take 1 + 2 + ... squares of kB x kB.
  T* transposed(int64_t block) const { return transposed_ + triangle(block) * kB * kB; }
  T* scaled(int64_t block) const { return scaled_ + triangle(block) * kB * kB; }

  void form_factor(int64_t block, const Scratch& scratch) const;
  void prepare(int64_t block, const Scratch& scratch) const;
  void apply_to_strips(const Matrix& columns, int64_t first, int64_t last,
                       const Scratch& scratch) const;

  Reduction<D> t_;
  int64_t blocks_;
  T* transposed_;  // of a block: YT, panels of depth end(block)
  T* scaled_;      // of a block: -Y S, panels of depth kB
  Scratch* scratch_;
  int64_t bytes_;
};

template <class T, class D>
ReflectorBlocks<T, D>::ReflectorBlocks(const Reduction<D>& t, int64_t workers, void* workspace)
    : t_(t), blocks_(ceil_divide(t.n, kB)) {
  Arena arena(workspace);
  const int64_t padded = blocks_ * kB;
  transposed_ = arena.take<T>(triangle(blocks_) * kB * kB);
  scaled_ = arena.take<T>(triangle(blocks_) * kB * kB);
  scratch_ = arena.take<Scratch>(workers);
  for (int64_t worker = 0; worker < workers; ++worker) {
    const Scratch scratch{arena.take<T>(kB * kW), arena.take<T>(kB * kB),
                          arena.take<T>(strips_of_task() * padded * kW), arena.take<T>(kB * kW),
                          arena.take<D>(kB * kB)};
    if (workspace) scratch_[worker] = scratch;
  }
  bytes_ = arena.used();
}

// -S, as panels of depth kB. In D, as S magnifies the errors of near parallel reflectors.
template <class T, class D>
void ReflectorBlocks<T, D>::form_factor(int64_t block, const Scratch& scratch) const {
  constexpr int kL = kLanes<D>;
  const int64_t first = block * kB, pitch = row_pitch<D>(t_.n);
  for (int64_t m = 0; m < kB; ++m) {
    const D tau = first + m < t_.n ? t_.tau[first + m] : D(0);
    const RowPairs<D> earlier{t_.row(first), t_.row(first + 1), 2 * pitch, 0, (m + 1) / 2};
    D even[kB / 2], odd[kB / 2];
    earlier.dots(t_.row(first + m), round_up<int64_t>(first + m, kL), even, odd);
    Vector<D> sum[kB / kL] = {};
    for (int64_t i = 0; i < m; ++i) {
      const Vector<D> overlap = splat(i % 2 ? odd[i / 2] : even[i / 2]);
#pragma GCC unroll 16
      for (int q = 0; q < kB / kL; ++q)
        sum[q] += overlap * load(scratch.negative + i * kB + q * kL);
    }
    D* row = scratch.negative + m * kB;
    for (int q = 0; q < kB / kL; ++q) store(row + q * kL, sum[q] * -tau);
    row[m] = -tau;
    for (int64_t c = 0; c < kB; ++c) scratch.factor[c / kW * kB * kW + m * kW + c % kW] = T(row[c]);
  }
}

template <class T, class D>
void ReflectorBlocks<T, D>::prepare(int64_t block, const Scratch& scratch) const {
  const FlushDenormals flush;
  const Matrix y{t_.row(block * kB), kDtypeOf<D>, kB, end(block), row_pitch<D>(t_.n), 1};
  for (int64_t p = 0; p < kPanels; ++p)
    pack_panel<T>(y, p * kW, transposed(block) + p * end(block) * kW);
  form_factor(block, scratch);
  for (int64_t p = 0; p < end(block) / kW; ++p) {
    pack_panel<T>(y.transposed(), p * kW, scratch.rows);
    multiply_block<T>({scratch.factor, kB * kW, kPanels, kW}, {scratch.rows, 0, 1, kW}, kB, false,
                      scaled(block) + p * kB * kW);
  }
}

// Strips [first, last) of the columns.
template <class T, class D>
void ReflectorBlocks<T, D>::apply_to_strips(const Matrix& columns, int64_t first, int64_t last,
                                            const Scratch& scratch) const {
  const FlushDenormals flush;
  const auto strip = [&](int64_t s) { return scratch.strips + (s - first) * blocks_ * kB * kW; };
  for (int64_t s = first; s < last; ++s) {
    pack_panel<T>(columns, s * kW, strip(s));
    for (int64_t k = t_.n * kW; k < blocks_ * kB * kW; ++k) strip(s)[k] = 0;
  }
  for (int64_t block = 0; block < blocks_; ++block)
    for (int64_t s = first; s < last; ++s) {
      const int count = panel_extent<T>(columns.rows, s);
      multiply_block<T>({transposed(block), end(block) * kW, kPanels, kW}, {strip(s), 0, 1, count},
                        end(block), false, scratch.product);
      multiply_block<T>({scaled(block), kB * kW, end(block) / kW, kW},
                        {scratch.product, 0, 1, count}, kB, true, strip(s));
    }
  for (int64_t i = 0; i < t_.n; ++i) {
    T* row = static_cast<T*>(columns.data) + i * columns.column_stride;
    for (int64_t s = first; s < last; ++s)
      for (int64_t c = 0; c < kW; c += kLanes<T>)
        store_first<T>(row + s * kW + c, load(strip(s) + i * kW + c), t_.n - s * kW - c);
  }
}

template <class T, class D>
void ReflectorBlocks<T, D>::apply(const Team& team, T* vectors, int64_t row_stride) const {
  team(blocks_, [&](int64_t block, int64_t worker) { prepare(block, scratch_[worker]); });
  const Matrix columns{vectors, kDtypeOf<T>, t_.n, t_.n, 1, row_stride};
  const int64_t strips = panel_count<T>(t_.n), width = strips_of_task();
  team(ceil_divide(strips, width), [&](int64_t task, int64_t worker) {
    apply_to_strips(columns, task * width, minimum(strips, (task + 1) * width), scratch_[worker]);
  });
}

template <class T, class D>
int64_t apply_reflectors_bytes(int64_t n, int64_t workers) {
  return ReflectorBlocks<T, D>({n, nullptr, nullptr, nullptr, nullptr}, workers, nullptr).bytes();
}

// V <- H_{n-1} ... H_2 V, n x n. `workspace` has apply_reflectors_bytes<T, D>(n, workers) bytes.
template <class T, class D>
void apply_reflectors(const Team& team, const Reduction<D>& t, T* vectors, int64_t row_stride,
                      void* workspace) {
  ReflectorBlocks<T, D>(t, team.workers, workspace).apply(team, vectors, row_stride);
}

}  // namespace kronext::cpu::KRONEXT_CPU
