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

// x of c x^2 - a x + b = 0: the smaller one where both have a meaning, the larger one of `last`
// lanes, whose root has no pole beyond it.
KRONEXT_INLINE Roots solve_quadratic(Roots a, Roots b, Roots c,
                                     VectorTypes<double, kRoots>::Mask last) {
  const Roots root = square_root(absolute<double>(a * a - 4.0 * b * c));
  // The sum without cancellation is the numerator of one form and the denominator of the other.
  const Roots sum = a > 0.0 ? a + root : a - root;
  const Roots far = sum / (2.0 * c), near = (2.0 * b) / sum;
  const VectorTypes<double, kRoots>::Mask takes_far = (a > 0.0) == (last != 0);
  return takes_far ? far : near;
}

inline bool SecularEquation::solve(int64_t first, double* base_out, double* offset_out) const {
  constexpr int kMaxSteps = 80;
  const int64_t n = u_.count;
  if (n == 1) {
    base_out[0] = u_.poles[0];
    offset_out[0] = u_.rho * length_;
    return true;
  }
  Mask index;
  for (int lane = 0; lane < kRoots; ++lane) index[lane] = minimum(first + lane, n - 1);
  const Mask last = index == n - 1, left_pole = last ? n - 2 - Mask{} : index;
  const Roots d_p = at(u_.poles, left_pole), d_q = at(u_.poles, left_pole + 1);
  const Roots z_p = at(u_.squares, left_pole), z_q = at(u_.squares, left_pole + 1);
  const Roots gap = d_q - d_p, constant = splat(1 / u_.rho);

  // Which pole is nearer: the sign of f half way. The last root lies within rho |z|^2 of its pole.
  const Roots width = last ? splat(u_.rho * length_) : gap, half = 0.5 * width;
  Roots base = last ? d_q : d_p, offset = half;
  Value value = evaluate(first, left_pole, base, offset);
  Roots f = constant + (value.left + value.right);
  const Mask moves = (f < 0.0) & ~last;
  const Mask beyond = (f < 0.0) & last;
  base = moves ? d_q : base;
  Roots low = moves ? -half : beyond ? half : Roots{};
  Roots high = moves ? Roots{} : last & ~beyond ? half : last ? width : half;

  // The first guess keeps the rest of f as it is half way.
  {
    const Roots to_p = last ? -gap - half : -half, to_q = last ? -half : half;
    const Roots c = f - z_p / to_p - z_q / to_q;
    const Roots signed_gap = (moves | last) ? -gap : gap;
    const Roots a = c * signed_gap + z_p + z_q, b = ((moves | last) ? z_q : z_p) * signed_gap;
    const Roots guess = solve_quadratic(a, b, c, last);
    offset = (guess > low) & (guess < high) ? guess : 0.5 * (low + high);
  }

  const Roots delta_p = d_p - base, delta_q = d_q - base;
  Mask active = ~Mask{};
  for (int step = 0; step < kMaxSteps; ++step) {
    value = evaluate(first, left_pole, base, offset);
    f = constant + (value.left + value.right);
    const Roots slope = value.left_slope + value.right_slope;
    const Roots scale =
        constant + 8.0 * (value.right - value.left) + absolute<double>(offset) * slope;
    active &= absolute<double>(f) > scale * 0x1p-53;
    low = active & (f < 0.0) ? offset : low;
    high = active & (f >= 0.0) ? offset : high;
    const Roots to_p = delta_p - offset, to_q = delta_q - offset;
    const Roots c = f - to_p * value.left_slope - to_q * value.right_slope;
    const Roots a = (to_p + to_q) * f - to_p * to_q * slope, b = to_p * to_q * f;
    const Roots change = solve_quadratic(a, b, c, last);
    Roots next = offset + change;
    next = (next > low) & (next < high) ? next : 0.5 * (low + high);
    active &= absolute<double>(next - offset) > absolute<double>(next) * 0x1p-52;
    offset = active ? next : offset;
    if (!any<double>(active)) break;
  }
  for (int lane = 0; lane < kRoots && first + lane < n; ++lane) {
    base_out[first + lane] = base[lane];
    offset_out[first + lane] = offset[lane];
  }
  return !any<double>(active);
}

// Products over the roots for the poles first .. first + kRoots - 1: z_j^2 up to a common factor,
//   prod_i (x_i - d_j) / prod_{i != j} (d_i - d_j).
inline void exact_squares(const RankOneUpdate& u, const double* base, const double* offset,
                          int64_t first, double* squares) {
  using Index = VectorTypes<double, kRoots>::Mask;
  Roots pole;
  Index index;
  for (int lane = 0; lane < kRoots; ++lane) {
    index[lane] = minimum(first + lane, u.count - 1);
    pole[lane] = u.poles[index[lane]];
  }
  Roots product = splat(1.0);
  for (int64_t i = 0; i < u.count; ++i) {
    const Roots distance = (splat(base[i]) - pole) + splat(offset[i]);
    const Roots gap = splat(u.poles[i]) - pole;
    product *= distance * reciprocal(i - Index{} == index ? splat(1.0) : gap);
  }
  for (int lane = 0; lane < kRoots && first + lane < u.count; ++lane)
    squares[first + lane] = absolute<double>(product)[lane];
}

}  // namespace kronext::cpu::KRONEXT_CPU
