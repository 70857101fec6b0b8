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
  static constexpr int64_t kPanelsOfBlock = kB / kW;

  void prepare(int64_t block, D* factor) const;
  void apply_to_strip(T* strip, int columns, T* products) const;

  // Blocks before this one hold panels of 1 + 2 + ... blocks of rows.
  T* transposed(int64_t block) const { return transposed_ + triangle(block) * kB * kB; }
  T* rows(int64_t block) const { return rows_ + triangle(block) * kB * kB; }
  T* factor(int64_t block) const { return factors_ + block * kB * kB; }

  Reduction<D> t_;
  int64_t workers_, blocks_;
  T* transposed_;  // of a block: YT, as panels of kB rows and depth up to the last reflector's end
  T* rows_;        // of a block: Y, as panels of depth kB
  T* factors_;     // of a block: -S, as panels of depth kB
  D* gram_;
  T *strips_, *products_;  // one a worker
  int64_t bytes_;
};

template <class T, class D>
ReflectorBlocks<T, D>::ReflectorBlocks(const Reduction<D>& t, int64_t workers, void* workspace)
    : t_(t), workers_(workers), blocks_(ceil_divide(t.n, kB)) {
  Arena arena(workspace);
  transposed_ = arena.take<T>(triangle(blocks_) * kB * kB);
  rows_ = arena.take<T>(triangle(blocks_) * kB * kB);
  factors_ = arena.take<T>(blocks_ * kB * kB);
  gram_ = arena.take<D>(workers * kB * kB);
  strips_ = arena.take<T>(workers * blocks_ * kB * kW);
  products_ = arena.take<T>(workers * 2 * kB * kW);
  bytes_ = arena.used();
}

// `factor` is room for S.
template <class T, class D>
void ReflectorBlocks<T, D>::prepare(int64_t block, D* factor) const {
  constexpr Dtype kDtype = sizeof(D) == 8 ? Dtype::kFloat64 : Dtype::kFloat32;
  const int64_t first = block * kB, length = first + kB, pitch = row_pitch<D>(t_.n);
  const Matrix y{t_.row(first), kDtype, kB, length, pitch, 1};
  for (int64_t p = 0; p < kPanelsOfBlock; ++p)
    pack_panel<T>(y, p * kW, transposed(block) + p * length * kW);
  for (int64_t p = 0; p < length / kW; ++p)
    pack_panel<T>(y.transposed(), p * kW, rows(block) + p * kB * kW);
  for (int64_t m = 0; m < kB; ++m) {
    const D* v = t_.row(first + m);
    const D tau = first + m < t_.n ? t_.tau[first + m] : D(0);
    D overlap[kB], unused[kB];
    const PendingPairs<D> others{t_.row(first), t_.row(first), pitch, 0, m};
    others.dots(v, length, overlap, unused);
    for (int64_t c = 0; c < kB; ++c) {
      D sum = c == m;
      for (int64_t i = c; i < m; ++i) sum -= overlap[i] * factor[i * kB + c];
      factor[m * kB + c] = tau * sum;
    }
  }
  T* to = this->factor(block);
  for (int64_t p = 0; p < kPanelsOfBlock; ++p)
    for (int64_t c = 0; c < kB; ++c)
      for (int64_t r = 0; r < kW; ++r) *to++ = T(-factor[(p * kW + r) * kB + c]);
}

template <class T, class D>
void ReflectorBlocks<T, D>::apply_to_strip(T* strip, int columns, T* products) const {
  T* scaled = products + kB * kW;
  for (int64_t block = 0; block < blocks_; ++block) {
    const int64_t length = (block + 1) * kB;
    multiply_block<T>({transposed(block), length * kW, kPanelsOfBlock, kW}, {strip, 0, 1, columns},
                      length, false, products);
    multiply_block<T>({factor(block), kB * kW, kPanelsOfBlock, kW}, {products, 0, 1, columns}, kB,
                      false, scaled);
    multiply_block<T>({rows(block), kB * kW, length / kW, kW}, {scaled, 0, 1, columns}, kB, true,
                      strip);
  }
}

template <class T, class D>
void ReflectorBlocks<T, D>::apply(const Team& team, T* vectors, int64_t row_stride) const {
  constexpr Dtype kDtype = sizeof(T) == 8 ? Dtype::kFloat64 : Dtype::kFloat32;
  const int64_t n = t_.n;
  team(blocks_, [&](int64_t block, int64_t worker) { prepare(block, gram_ + worker * kB * kB); });
  team(panel_count<T>(n), [&](int64_t index, int64_t worker) {
    T* strip = strips_ + worker * blocks_ * kB * kW;
    const Matrix columns{vectors, kDtype, n, n, 1, row_stride};
    const int count = panel_extent<T>(n, index);
    pack_panel<T>(columns, index * kW, strip);
    for (int64_t k = n * kW; k < blocks_ * kB * kW; ++k) strip[k] = 0;
    apply_to_strip(strip, count, products_ + worker * 2 * kB * kW);
    for (int64_t i = 0; i < n; ++i)
      for (int c = 0; c < count; c += kLanes<T>)
        store_first<T>(vectors + i * row_stride + index * kW + c, load(strip + i * kW + c),
                       count - c);
  });
}

template <class T, class D>
int64_t apply_reflectors_bytes(int64_t n, int64_t workers) {
  return ReflectorBlocks<T, D>({n, nullptr, nullptr, nullptr, nullptr}, workers, nullptr).bytes();
}

// V <- H_{n-1} ... H_2 V, n x n.
template <class T, class D>
void apply_reflectors(const Team& team, const Reduction<D>& t, T* vectors, int64_t row_stride,
                      void* workspace) {
  ReflectorBlocks<T, D>(t, team.workers, workspace).apply(team, vectors, row_stride);
}

}  // namespace kronext::cpu::KRONEXT_CPU
