// Implicit QL on kGroups x kLanes<D> tridiagonal matrices in lock step.
//
// A sweep chases a bulge from the bottom m to the top l of the first unreduced block of each matrix
// (LAPACK's steqr, QL variant). All matrices step through the rows together but each has its own
// window [l, m], found anew before every sweep: outside it a matrix gets the identity. Waiting for
// nobody costs 4 to 10% of extra steps; the results of a matrix never depend on its neighbours.
//
// A rotation by theta is recorded as t = tan(theta / 2), s = sin(theta), the three shears of
// eigh_rotations.h.
#pragma once

#include "csrc/cpu/eigh_lanes.h"

namespace kronext::cpu::KRONEXT_CPU {

// The rows [low, high] that some sweeps touched, of each lane.
template <class D, int kGroups = kEighGroups>
struct LaneWindows {
  Mask<D> low[kGroups];
  Mask<D> high[kGroups];
};

struct SweepRange {
  int64_t low;  // over all matrices
  int64_t high;
};

template <class D, int kGroups = kEighGroups>
class LockstepQl {
 public:
  using Lane = Vector<D>;
  using LaneMask = Mask<D>;

  // For each group n values: the diagonal, which becomes the eigenvalues, and the couplings e[i] of
  // rows i and i + 1. `marks` is room for n flags. `shifts`, if given, are eigenvalues in the order
  // in which QL deflates them: with them the first sweep at a row already converges, save for
  // rounding, and half as many sweeps have rotations to apply.
  LockstepQl(int64_t n, Lane* diagonal, Lane* off_diagonal, uint8_t* marks, const Lane* shifts,
             D tolerance)
      : n_(n), diagonal_(diagonal), off_diagonal_(off_diagonal), marks_(marks), shifts_(shifts) {
    for (int g = 0; g < G; ++g) {
      last_low_[g] = all_lanes(-1);
      Lane size{};
      for (int64_t i = 0; i < n; ++i)
        size =
            maximum(size, absolute<D>(diagonal[g * n + i]) + absolute<D>(off_diagonal[g * n + i]));
      tolerance_[g] = size * tolerance + Format::kFloor;
    }
  }

  // One sweep of every matrix; false if none has anything left to reduce. The rotation of columns
  // (i, i + 1) goes to record(group, i, t, s): the identity, t = s = 0, for lanes that are outside
  // their windows.
  template <class Record>
  bool sweep(const Record& record, SweepRange& range, LaneWindows<D, kGroups>& windows);
  bool sweep_values();

  // The lanes that still have something to reduce.
  void unreduced(LaneMask* lanes) const;

  int64_t max_sweeps() const { return 30 * n_; }

 private:
  static constexpr int G = kGroups;
  using Format = FloatFormat<D>;
  // Rows where the window of some lane has its end.
  static constexpr uint8_t kTop = 1, kBottom = 2;

  // The first unreduced block of each lane: rows [low, high], the entry at its bottom and the
  // shift.
  struct Blocks {
    LaneMask started[G], ended[G], low[G], high[G];
    Lane d_high[G], shift[G];
  };

  // A coupling is negligible relative to its neighbours, as in LAPACK, or absolutely; near
  // sqrt(smallest normal) none could be rotated away, since its square vanishes.
  KRONEXT_INLINE LaneMask coupled(int g, Lane e, Lane neighbours) const {
    return absolute<D>(e) > neighbours * Format::kRoundoff + tolerance_[g];
  }
  static KRONEXT_INLINE LaneMask all_lanes(int64_t row) {
    return typename IntegerOf<D>::type(row) - LaneMask{};
  }
  Lane* diagonal(int g) const { return diagonal_ + g * n_; }
  Lane* off_diagonal(int g) const { return off_diagonal_ + g * n_; }

  bool find_blocks(Blocks& blocks, SweepRange& range);
  void start_blocks(Blocks& blocks, int64_t i, const LaneMask* starts);
  void end_blocks(Blocks& blocks, int64_t i, const LaneMask* ends) const;

  int64_t n_;
  Lane* diagonal_;
  Lane* off_diagonal_;
  uint8_t* marks_;
  const Lane* shifts_;
  Lane tolerance_[G];
  int64_t first_ = 0;     // every matrix is reduced above this row
  LaneMask last_low_[G];  // where each lane's last sweep ended
};

// Wilkinson's shift, the eigenvalue of the 2 x 2 block at the top nearer to its first entry, or a
// known one.
template <class D, int kGroups>
inline void LockstepQl<D, kGroups>::start_blocks(Blocks& b, int64_t i, const LaneMask* starts) {
  const LaneMask row = all_lanes(i);
#pragma GCC unroll 4
  for (int g = 0; g < G; ++g) {
    const Lane d = diagonal(g)[i], e = off_diagonal(g)[i], half = D(0.5) * (diagonal(g)[i + 1] - d);
    const Lane square = half * half + e * e;
    const Lane offset =
        e * e * reciprocal(absolute<D>(half) + square * reciprocal_square_root(square));
    Lane shift = d - (half < 0 ? -offset : offset);
    if (shifts_) shift = last_low_[g] == row ? shift : shifts_[g * n_ + i];
    b.shift[g] = starts[g] ? shift : b.shift[g];
    b.low[g] = starts[g] ? row : b.low[g];
    b.started[g] |= starts[g];
  }
}

template <class D, int kGroups>
inline void LockstepQl<D, kGroups>::end_blocks(Blocks& b, int64_t i, const LaneMask* ends) const {
  const LaneMask row = all_lanes(i);
#pragma GCC unroll 4
  for (int g = 0; g < G; ++g) {
    b.high[g] = ends[g] ? row : b.high[g];
    b.d_high[g] = ends[g] ? diagonal(g)[i] : b.d_high[g];
    b.ended[g] |= ends[g];
  }
}

// Sets negligible couplings to zero on the way.
template <class D, int kGroups>
inline bool LockstepQl<D, kGroups>::find_blocks(Blocks& b, SweepRange& range) {
  Lane *d[G], *e[G], size[G];
  for (int g = 0; g < G; ++g) {
    d[g] = diagonal(g);
    e[g] = off_diagonal(g);
    size[g] = absolute<D>(d[g][first_]);
    b.started[g] = b.ended[g] = LaneMask{};
    b.low[g] = all_lanes(n_);
    b.high[g] = all_lanes(-1);
    b.d_high[g] = b.shift[g] = Lane{};
  }
  range = {n_, 0};
  for (int64_t i = first_; i < n_ - 1; ++i) {
    LaneMask starts[G], ends[G], any_start{}, any_end{};
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g) {
      const Lane next_size = absolute<D>(d[g][i + 1]), e_i = e[g][i];
      const LaneMask remains = coupled(g, e_i, size[g] + next_size);
      size[g] = next_size;
      e[g][i] = reinterpret_cast<Lane>(reinterpret_cast<LaneMask>(e_i) & remains);
      starts[g] = remains & ~b.started[g];
      ends[g] = b.started[g] & ~b.ended[g] & ~remains;
      any_start |= starts[g];
      any_end |= ends[g];
    }
    marks_[i] = 0;
    if (any<D>(any_start)) {
      start_blocks(b, i, starts);
      marks_[i] |= kTop;
      range.low = minimum(range.low, i);
    }
    if (any<D>(any_end)) {
      end_blocks(b, i, ends);
      marks_[i] |= kBottom;
      range.high = i;
    }
  }
  if (range.low == n_) return false;
  first_ = range.low;

  LaneMask open[G], any_open{};
  for (int g = 0; g < G; ++g) {
    open[g] = b.started[g] & ~b.ended[g];
    any_open |= open[g];
    last_low_[g] = b.low[g];
  }
  marks_[n_ - 1] = 0;
  if (any<D>(any_open)) {
    end_blocks(b, n_ - 1, open);
    marks_[n_ - 1] = kBottom;
    range.high = n_ - 1;
  }
  return true;
}

template <class D, int kGroups>
template <class Record>
bool LockstepQl<D, kGroups>::sweep(const Record& record, SweepRange& range,
                                   LaneWindows<D, kGroups>& windows) {
  Blocks blocks;
  if (!find_blocks(blocks, range)) return false;
  for (int g = 0; g < G; ++g) {
    windows.low[g] = blocks.low[g];
    windows.high[g] = blocks.high[g];
  }

  const Lane one = splat(D(1));
  const LaneMask sign_bit = reinterpret_cast<LaneMask>(splat(D(-0.0)));
  const uint8_t* marks = marks_;
  Lane *d[G], *e[G];
  LaneMask active[G];
  Lane bulge[G], sine[G], cosine[G], p[G], d_upper[G];
  for (int g = 0; g < G; ++g) {
    d[g] = diagonal(g);
    e[g] = off_diagonal(g);
    active[g] = LaneMask{};
    bulge[g] = sine[g] = cosine[g] = p[g] = Lane{};
    d_upper[g] = d[g][range.high];
  }
  for (int64_t i = range.high - 1; i >= range.low; --i) {
    const bool bottom = marks[i + 1] & kBottom;
    if (bottom) {
#pragma GCC unroll 4
      for (int g = 0; g < G; ++g) {
        const LaneMask starts = blocks.high[g] == all_lanes(i + 1);
        active[g] |= starts;
        bulge[g] = starts ? blocks.d_high[g] - blocks.shift[g] : bulge[g];
        sine[g] = starts ? one : sine[g];
        cosine[g] = starts ? one : cosine[g];
        p[g] = starts ? Lane{} : p[g];
      }
    }
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g) {
      const Lane d_i = d[g][i], e_i = e[g][i], f = sine[g] * e_i, b = cosine[g] * e_i;
      // The rotation that takes (x, f) to (r, 0). The sign of r is free: that of x gives c >= 0,
      // |t| <= 1. A vanishing x counts as tiny, which makes the rotation of (0, 0) the identity.
      const LaneMask sign = reinterpret_cast<LaneMask>(bulge[g]) & sign_bit;
      const Lane x = maximum(absolute<D>(bulge[g]), splat(Format::kTiny));
      const Lane square = f * f + x * x, inverse = reciprocal_square_root(square);
      const Lane r = reinterpret_cast<Lane>(reinterpret_cast<LaneMask>(square * inverse) ^ sign);
      const Lane s = reinterpret_cast<Lane>(reinterpret_cast<LaneMask>(f * inverse) ^ sign);
      const Lane c = x * inverse;

      const Lane above = d_upper[g] - p[g];
      const Lane slope = (d_i - above) * s + (c * b) * D(2);
      p[g] = s * slope;
      bulge[g] = c * slope - b;
      sine[g] = s;
      cosine[g] = c;
      d[g][i + 1] = active[g] ? above + p[g] : d_upper[g];
      e[g][i + 1] = active[g] ? r : e[g][i + 1];
      d_upper[g] = d_i;
      record(g, i, active[g] ? s * reciprocal(one + c) : Lane{}, active[g] ? s : Lane{});
    }
    if (bottom) {
      for (int g = 0; g < G; ++g)
        e[g][i + 1] = blocks.high[g] == all_lanes(i + 1) ? Lane{} : e[g][i + 1];
    }
    if (marks[i] & kTop) {
#pragma GCC unroll 4
      for (int g = 0; g < G; ++g) {
        const LaneMask ends = blocks.low[g] == all_lanes(i);
        active[g] &= ~ends;
        d_upper[g] = ends ? d_upper[g] - p[g] : d_upper[g];
        e[g][i] = ends ? bulge[g] : e[g][i];
      }
    }
  }
  for (int g = 0; g < G; ++g) d[g][range.low] = d_upper[g];
  return true;
}

template <class D, int kGroups>
inline bool LockstepQl<D, kGroups>::sweep_values() {
  SweepRange range;
  LaneWindows<D, kGroups> windows;
  return sweep([](int, int64_t, Lane, Lane) {}, range, windows);
}

template <class D, int kGroups>
inline void LockstepQl<D, kGroups>::unreduced(LaneMask* lanes) const {
  for (int g = 0; g < G; ++g) {
    lanes[g] = LaneMask{};
    for (int64_t i = 0; i < n_ - 1; ++i)
      lanes[g] |= coupled(g, off_diagonal(g)[i],
                          absolute<D>(diagonal(g)[i]) + absolute<D>(diagonal(g)[i + 1]));
  }
}

}  // namespace kronext::cpu::KRONEXT_CPU
