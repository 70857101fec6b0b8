// Eigenvalues and eigenvectors of D + rho z zT, D diagonal: what a merge of divide and conquer is.
//
//   f(x) = 1 / rho + sum_j z_j^2 / (d_j - x) = 0,   u_j = z_j / (d_j - x) up to length
//
// One root lies between each pole d_j and the next, the last one beyond all of them. Lanes hold
// roots, poles are broadcast. A root is kept as an offset from the nearer pole, `base`: then
// d_j - x = (d_j - base) - offset has a small relative error however close they are. The iteration
// fits a / (d_p - x) + b / (d_q - x) + c to f with the slopes of the poles on either side (Li, The
// middle way, 1993), and bisects where that leaves the interval. Eigenvectors come from the z for
// which the roots found are exact (Gu and Eisenstat, 1994), which makes them orthogonal.
#pragma once

#include "csrc/cpu/eigh_lanes.h"

namespace kronext::cpu::KRONEXT_CPU {

using Roots = Vector<double>;
constexpr int kRoots = kLanes<double>;

struct RankOneUpdate {
  int64_t count;
  const double* poles;    // ascending, no two equal
  const double* squares;  // z_j^2 > 0
  double rho;             // > 0
};

class SecularEquation {
 public:
  explicit SecularEquation(const RankOneUpdate& update) : u_(update) {
    for (int64_t j = 0; j < u_.count; ++j) length_ += u_.squares[j];
  }

  // Roots first .. first + kRoots - 1, as far as there are so many: base + offset. False where one
  // did not converge.
  bool solve(int64_t first, double* base, double* offset) const;

 private:
  using Mask = VectorTypes<double, kRoots>::Mask;

  // f at base + offset, its sums over the poles up to p and from q on, and their slopes.
  struct Value {
    Roots left{}, right{}, left_slope{}, right_slope{};
  };
  template <bool kLeft, bool kRight>
  KRONEXT_INLINE void add_poles(int64_t begin, int64_t end, Mask split, Roots base, Roots offset,
                                Value& value) const;
  Value evaluate(int64_t first, Mask split, Roots base, Roots offset) const;
  Roots at(const double* values, Mask index) const {
    Roots result;
    for (int lane = 0; lane < kRoots; ++lane) result[lane] = values[index[lane]];
    return result;
  }

  RankOneUpdate u_;
  double length_ = 0;
};

template <bool kLeft, bool kRight>
KRONEXT_INLINE void SecularEquation::add_poles(int64_t begin, int64_t end, Mask split, Roots base,
                                               Roots offset, Value& value) const {
  for (int64_t j = begin; j < end; ++j) {
    const Roots inverse = reciprocal((splat(u_.poles[j]) - base) - offset);
    const Roots term = splat(u_.squares[j]) * inverse, slope = term * inverse;
    if constexpr (kLeft && kRight) {
      const Mask is_left = j - Mask{} <= split;
      value.left += is_left ? term : Roots{};
      value.left_slope += is_left ? slope : Roots{};
      value.right += is_left ? Roots{} : term;
      value.right_slope += is_left ? Roots{} : slope;
    } else if constexpr (kLeft) {
      value.left += term;
      value.left_slope += slope;
    } else {
      value.right += term;
      value.right_slope += slope;
    }
  }
}

inline SecularEquation::Value SecularEquation::evaluate(int64_t first, Mask split, Roots base,
                                                        Roots offset) const {
  // Only near the diagonal the lanes differ in which side a pole is on.
  const int64_t begin = maximum<int64_t>(0, minimum(first, u_.count - 2)),
                end = minimum(first + kRoots, u_.count);
  Value value;
  add_poles<true, false>(0, begin, split, base, offset, value);
  add_poles<true, true>(begin, end, split, base, offset, value);
  add_poles<false, true>(end, u_.count, split, base, offset, value);
  return value;
}

// x of c x^2 - a x + b = 0: the one nearer to zero or, where `other`, the other one.
KRONEXT_INLINE Roots solve_quadratic(Roots a, Roots b, Roots c, Vector<int64_t, kRoots> other);

}  // namespace kronext::cpu::KRONEXT_CPU
