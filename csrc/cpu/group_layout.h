// Where the packed operands of a group of samples lie (congruence.h says what is done with them).
//
// A group is as deep as pays for adding its results to float64 sums, and small enough that its
// panels stay in the second-level cache.
#pragma once

#include "csrc/core/power_iteration.h"
#include "csrc/cpu/product.h"

namespace kronext::cpu::KRONEXT_CPU {

constexpr int64_t kGroupDepth = 512;
constexpr int64_t kGroupBytes = 512 * 1024;

// Sides are numbered 0 (left) and 1 (right).
template <class T>
struct GroupLayout {
  static constexpr int kW = kPanel<T>;

  int64_t dim[2];          // m, n
  int64_t positions;       // T of factored samples
  bool whole;              // samples are matrices G_s, given or formed
  int64_t block_samples;   // samples that share one B: 1, or as many as fill whole panels
  int64_t block_depth[2];  // depth of a block in the panels of a side
  int64_t group;           // samples in a group at most

  explicit GroupLayout(const KroneckerStep& step, int64_t formers)
      : dim{step.samples.m(), step.samples.n()},
        positions(step.samples.factored ? step.samples.g.rows : 0) {
    const int64_t m = dim[0], n = dim[1];
    block_samples = maximum<int64_t>(1, kW / maximum<int64_t>(1, positions));
    const int64_t rows = round_up<int64_t>(maximum<int64_t>(1, positions), kW);
    whole = !step.samples.factored || forming_costs_less(rows);
    if (whole) {
      block_samples = 1;
      block_depth[0] = n;
      block_depth[1] = m;
    } else {
      block_depth[0] = block_depth[1] = rows;
    }
    const int64_t depth = maximum<int64_t>(1, minimum(block_depth[0], block_depth[1]));
    const int64_t bytes = whole ? m * n : rows * maximum(m, n);
    const int64_t blocks = minimum(ceil_divide(kGroupDepth, depth),
                                   kGroupBytes / maximum<int64_t>(1, bytes * int64_t(sizeof(T))));
    group = block_samples * maximum<int64_t>(1, blocks);
    if (whole && step.samples.factored) group = maximum(group, formers);
    group = maximum<int64_t>(1, minimum(group, round_up(step.samples.count, block_samples)));
  }

  // Multiplications of a sample: formed, then both sides; or both sides through M_s, padding
  // included.
  bool forming_costs_less(int64_t rows) const {
    const double m = double(dim[0]), n = double(dim[1]);
    const double padded_m = double(round_up<int64_t>(dim[0], kLanes<T>));
    const double padded_n = double(round_up<int64_t>(dim[1], kLanes<T>));
    const double padded = double(rows) / double(block_samples);
    const double formed =
        m * n * double(positions) + padded_m * n * n + padded_n * m * m + 0.5 * m * n * (m + n);
    const double kept = padded * (1.5 * (m * m + n * n) + 2.0 * double(rows) * (m + n));
    return formed < kept;
  }

  int64_t blocks(int64_t samples) const { return ceil_divide(samples, block_samples); }
  int64_t panels(int side) const { return panel_count<T>(dim[side]); }
  int64_t depth(int side) const { return blocks(group) * block_depth[side]; }
  int64_t stride(int side) const { return panel_stride<T>(depth(side)); }
  int64_t x_size(int side) const { return panels(side) * stride(side); }

  // B of the left side is n x n: its panels are those of the other side's dimension.
  int64_t inner_stride(int side) const { return panel_stride<T>(dim[1 - side]); }
  int64_t inner_size(int side) const { return panels(1 - side) * inner_stride(side); }

  int64_t block_panels() const { return block_depth[0] / kW; }
  int64_t block_inner_size() const { return block_panels() * block_depth[0] * kW; }
  int64_t block_inners_size() const { return whole ? 0 : blocks(group) * block_inner_size(); }

  int64_t formed_size() const { return whole && positions ? group * dim[0] * dim[1] : 0; }
  int64_t group_size() const {
    return x_size(0) + x_size(1) + 2 * block_inners_size() + formed_size();
  }
  int64_t tile_count(int side, bool symmetric) const {
    return symmetric ? panels(side) * (panels(side) + 1) / 2 : panels(side) * panels(side);
  }
  int64_t sum_size(const KroneckerStep& step) const {
    return (tile_count(0, step.left.symmetric()) + tile_count(1, step.right.symmetric())) *
           kTileSize<T>;
  }
  int64_t scratch_size() const {
    const int64_t tiles = kMaxStripTiles * kTileSize<T>;
    const int64_t row = maximum(stride(0), stride(1));
    const int64_t block =
        whole ? 0 : 2 * block_panels() * maximum(inner_stride(0), inner_stride(1));
    const int64_t forming = formed_size() ? (panels(1) + 1) * panel_stride<T>(positions) : 0;
    return tiles + maximum(row, maximum(block, forming));
  }
};

}  // namespace kronext::cpu::KRONEXT_CPU
