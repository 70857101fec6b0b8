// Both products with the rearrangement of a dense H in one pass over its rows.
//
//   left[i,i'] = sum_jj' H4[i,j,i',j'] R[j,j'],   right[j,j'] = sum_ii' H4[i,j,i',j'] L[i,i']
//
// Row (i, j) of H is m segments of n values. Each segment i' is loaded once, multiplied into a dot
// product with row j of R (for left) and, times L[i,i'], into row j of right. Four operations a
// value: the pass runs at the speed of memory. Bytes: H once; L, R and both results stay in the
// caches. Rows of i are independent except for right, which each thread sums in float64 for its own
// range of i.
#pragma once

#include "csrc/cpu/kronecker_basis.h"
#include "csrc/cpu/pack.h"

namespace kronext::cpu::KRONEXT_CPU {

template <class T, class Source>
class RearrangedPass {
 public:
  static constexpr int kL = kLanes<T>;

  static int64_t scratch_bytes(const RearrangedProduct& p) {
    const int64_t m = p.l.rows, n = p.r.rows, width = round_up<int64_t>(n, kL);
    return (m * n + width) * int64_t(sizeof(Source)) + 64 +
           (n * width + width + m + m * kL) * int64_t(sizeof(T));
  }

  RearrangedPass(const RearrangedProduct& p, void* scratch)
      : p_(p), m_(p.l.rows), n_(p.r.rows), width_(round_up<int64_t>(n_, kL)) {
    r_ = static_cast<T*>(scratch);
    right_row_ = r_ + n_ * width_;
    dots_ = right_row_ + width_;
    l_row_ = dots_ + m_ * kL;
    row_ = reinterpret_cast<Source*>(l_row_ + m_);
    for (int64_t j = 0; j < n_; ++j) {
      for (int64_t c = 0; c < width_; ++c) r_[j * width_ + c] = c < n_ ? value(p.r, j, c) : T(0);
    }
  }

  void run(int64_t i, double* right) {
    for (int64_t c = 0; c < m_; ++c) l_row_[c] = value(p_.l, i, c);
    for (int64_t e = 0; e < m_ * kL; ++e) dots_[e] = 0;
    for (int64_t j = 0; j < n_; ++j) {
      const Source* row = row_of(i * n_ + j);
      for (int64_t first = 0; first < width_; first += kBlock * kL) {
        const int64_t vectors = minimum<int64_t>(kBlock, (width_ - first) / kL);
        segments<kBlock>(vectors, row + first, r_ + j * width_ + first, right_row_ + first);
      }
      for (int64_t c = 0; c < n_; ++c) right[j * n_ + c] += double(right_row_[c]);
    }
    T* left = static_cast<T*>(p_.left.data) + i * m_;
    for (int64_t c = 0; c < m_; ++c) {
      double sum = 0;
      for (int lane = 0; lane < kL; ++lane) sum += double(dots_[c * kL + lane]);
      left[c] = T(sum);
    }
  }

 private:
  // Vectors of a segment whose sums stay in registers.
  static constexpr int kBlock = kVectorRegisters / 2;

  static T value(const Matrix& x, int64_t row, int64_t column) {
    const int64_t offset = row * x.row_stride + column * x.column_stride;
    return x.dtype == Dtype::kFloat64 ? T(static_cast<const double*>(x.data)[offset])
                                      : T(static_cast<const float*>(x.data)[offset]);
  }

  // A row of H with as many values behind it as the vectors of the last segment read: those of the
  // rows that follow where H is dense, else zeros behind a copy.
  const Source* row_of(int64_t index) {
    const Source* source = static_cast<const Source*>(p_.h.data) + index * p_.h.row_stride;
    const int64_t count = m_ * n_;
    const bool followed =
        p_.h.row_stride == count && (index + 1) * count + width_ - n_ <= count * count;
    if (p_.h.column_stride == 1 && (width_ == n_ || followed)) return source;
    for (int64_t c = 0; c < count; ++c) row_[c] = source[c * p_.h.column_stride];
    for (int64_t c = count; c < count + width_ - n_; ++c) row_[c] = Source{};
    return row_;
  }

  // `vectors` vectors of every segment of a row. Values past a segment are those of the next one:
  // in the dot products they meet the zeros that pad R, in the row of right they fall into its
  // padding.
  template <int kVectors>
  void segments(int64_t vectors, const Source* h, const T* r, T* right) {
    if constexpr (kVectors > 1) {
      if (vectors < kVectors) return segments<kVectors - 1>(vectors, h, r, right);
    }
    Vector<T> sum[kVectors] = {}, factor[kVectors];
    for (int v = 0; v < kVectors; ++v) factor[v] = load(r + v * kL);
    for (int64_t c = 0; c < m_; ++c, h += n_) {
      const Vector<T> scale = splat(l_row_[c]);
      Vector<T> product = {};
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) {
        const Vector<T> x = load_converted<T>(h + v * kL);
        product += factor[v] * x;
        sum[v] += scale * x;
      }
      store(dots_ + c * kL, load(dots_ + c * kL) + product);
    }
    for (int v = 0; v < kVectors; ++v) store(right + v * kL, sum[v]);
  }

  const RearrangedProduct& p_;
  int64_t m_, n_, width_;  // a row of R or of right takes `width_` values
  T* r_;
  T* right_row_;
  T* dots_;
  T* l_row_;
  Source* row_;
};

// The sums of the slices in order, and the symmetric parts where they are wanted.
template <class T>
void finish_rearranged(const RearrangedProduct& p, const double* rights, int64_t slices) {
  const int64_t m = p.l.rows, n = p.r.rows, size = n * n;
  T* right = static_cast<T*>(p.right.data);
  for (int64_t e = 0; e < size; ++e) {
    double sum = 0;
    for (int64_t s = 0; s < slices; ++s) sum += rights[s * size + e];
    right[e] = T(sum);
  }
  if (p.left_symmetric) symmetrise(static_cast<T*>(p.left.data), m);
  if (p.right_symmetric) symmetrise(right, n);
}

}  // namespace kronext::cpu::KRONEXT_CPU
