// Sums of congruences on packed panels: C = sum_s w_s X_s B X_sT for both sides of a KroneckerStep.
//
// Samples are taken in groups. The panels of X lie side by side along the depth, sample after
// sample, so one product over the whole group also sums over its samples:
//
//   T = X_s B          for one row panel, a panel of the same layout that stays in the first-level
//   cache C += T XT          over the depth of the group, on or below the diagonal where B is
//   symmetric
//
// T and C are compute type within a group; the groups are summed in float64 (`sums`), so the error
// does not grow with the number of samples. Multiplications of a side: dim * depth^2 for T and half
// (all, for a general B) of dim^2 * depth for C; with B the identity T is X and costs nothing.
//
// Factored samples G_s = D_sT A_s with few positions T are never formed: A_s R A_sT is T x T and
//
//   left = sum_s D_sT M_s D_s,   M_s = w_s A_s R A_sT
//
// is a side with X_s = D_sT and a B of its own for each sample. Blocks of samples that fill whole
// panels keep every product on the tiles of the micro-kernel; entries of M between samples are set
// to zero.
#pragma once

#include "csrc/cpu/group_layout.h"
#include "csrc/cpu/symmetric_tile.h"

namespace kronext::cpu::KRONEXT_CPU {

// T = X B for one row panel: t[j][i] = sum_k B[k][j] x[k][i].
template <class T>
void times_inner(const T* x, const T* inner, int64_t inner_stride, int64_t depth, int columns,
                 T* t) {
  const int64_t chunks = maximum<int64_t>(1, ceil_divide(depth, kChunk<T>));
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    const int64_t begin = chunk * depth / chunks, end = (chunk + 1) * depth / chunks;
    for (int64_t p = 0; p < panel_count<T>(depth); ++p) {
      multiply_tile(inner + p * inner_stride + begin * kPanel<T>, x + begin * kPanel<T>,
                    end - begin, panel_extent<T>(depth, p), columns, chunk > 0,
                    t + p * kTileSize<T>);
    }
  }
}

// One group of the samples of a step; tasks of a stage are independent of each other.
template <class T>
class CongruenceGroup {
 public:
  static constexpr int kW = kPanel<T>;

  CongruenceGroup(const StepJob& job)
      : step_(*job.step),
        layout_(*job.step, job.formers),
        first_(job.first),
        count_(job.count),
        sums_{job.sums, nullptr} {
    T* inner = static_cast<T*>(job.inner);
    inner_[0] = inner;
    inner_[1] = inner + layout_.inner_size(0);
    T* group = static_cast<T*>(job.group);
    x_[0] = group;
    x_[1] = x_[0] + layout_.x_size(0);
    block_inner_[0] = x_[1] + layout_.x_size(1);
    block_inner_[1] = block_inner_[0] + layout_.block_inners_size();
    formed_ = block_inner_[1] + layout_.block_inners_size();
    if (job.sums) {
      sums_[1] = job.sums + layout_.tile_count(0, step_.left.symmetric()) * kTileSize<T>;
    }
  }

  int64_t tasks(Stage stage) const {
    switch (stage) {
      case Stage::kInner:
        return inner_panels(0) + inner_panels(1);
      case Stage::kForm:
        return layout_.formed_size() ? count_ : 0;
      case Stage::kPanels:
        return layout_.panels(0) + layout_.panels(1);
      case Stage::kBlocks:
        return layout_.whole ? 0 : 2 * layout_.blocks(count_);
      case Stage::kRows:
        return layout_.panels(0) + layout_.panels(1);
      case Stage::kEnd:
        break;
    }
    return 0;
  }

  void run(Stage stage, int64_t task, void* scratch_bytes) const {
    T* scratch = static_cast<T*>(scratch_bytes);
    const int64_t blocks = layout_.blocks(count_);
    switch (stage) {
      case Stage::kInner:
        return task < inner_panels(0) ? pack_inner(0, task) : pack_inner(1, task - inner_panels(0));
      case Stage::kForm:
        return form(task, scratch);
      case Stage::kPanels:
        return task < layout_.panels(0) ? pack(0, task) : pack(1, task - layout_.panels(0));
      case Stage::kBlocks:
        return task < blocks ? block_inner(0, task, scratch)
                             : block_inner(1, task - blocks, scratch);
      case Stage::kRows:
        // The last row of a symmetric side has the most tiles, and comes first.
        return task < layout_.panels(0) ? row(0, layout_.panels(0) - 1 - task, scratch)
                                        : row(1, tasks(stage) - 1 - task, scratch);
      case Stage::kEnd:
        return;
    }
  }

  // Row `task` of the results from the float64 sums of `slices` parts of the samples.
  void finish(int64_t task, int64_t slices, void* scratch) const {
    T* tile = static_cast<T*>(scratch);
    const int64_t slice_size = layout_.sum_size(step_);
    const int side = task < layout_.panels(0) ? 0 : 1;
    const int64_t row = side == 0 ? task : task - layout_.panels(0);
    if (!this->side(side).wanted()) return;
    const double weight = this->weight(side);
    for (int64_t column = 0; column < columns(side, row); ++column) {
      const double* sum = sums_[side] + tile_index(side, row, column) * kTileSize<T>;
      for (int e = 0; e < kTileSize<T>; ++e) {
        double total = sum[e];
        for (int64_t s = 1; s < slices; ++s) total += sum[s * slice_size + e];
        tile[e] = T(weight * total);
      }
      write(side, tile, row, column, T(1));
    }
  }

 private:
  const CongruenceSide& side(int index) const { return index == 0 ? step_.left : step_.right; }
  bool identity(int index) const { return side(index).structure == Structure::kIdentity; }

  // The scale of an identity is applied to the results, that of another B to its panels.
  double weight(int index) const {
    return step_.weight * (identity(index) ? side(index).scale : 1.0);
  }
  int64_t inner_panels(int index) const {
    return side(index).wanted() && !identity(index) ? layout_.panels(1 - index) : 0;
  }
  int64_t columns(int index, int64_t row) const {
    return side(index).symmetric() ? row + 1 : layout_.panels(index);
  }
  int64_t tile_index(int index, int64_t row, int64_t column) const {
    return side(index).symmetric() ? row * (row + 1) / 2 + column
                                   : row * layout_.panels(index) + column;
  }
  double sample_weight(int64_t sample) const {
    return step_.samples.weights ? step_.samples.weights[sample] : 1.0;
  }

  static Matrix sample_of(Matrix first, int64_t stride, int64_t index) {
    const int64_t bytes = first.dtype == Dtype::kFloat64   ? 8
                          : first.dtype == Dtype::kFloat32 ? 4
                                                           : 2;
    first.data = static_cast<char*>(first.data) + index * stride * bytes;
    return first;
  }
  static Matrix compute_matrix(T* data, int64_t rows, int64_t columns, int64_t row_stride) {
    return {data, kDtypeOf<T>, rows, columns, row_stride, 1};
  }

  // X of a sample (dim x depth), X = G or D^T on the left, GT or AT on the right.
  Matrix sample(int index, int64_t local) const {
    const Samples& s = step_.samples;
    if (layout_.whole) {
      const int64_t m = layout_.dim[0], n = layout_.dim[1];
      const Matrix g = s.factored ? compute_matrix(formed_ + local * m * n, m, n, n)
                                  : sample_of(s.g, s.g_stride, first_ + local);
      return index == 0 ? g : g.transposed();
    }
    return index == 0 ? sample_of(s.g, s.g_stride, first_ + local).transposed()
                      : sample_of(s.a, s.a_stride, first_ + local).transposed();
  }

  // B as panels: the micro-kernel wants B[k][j] with j inside the panel, the rows of BT.
  void pack_inner(int index, int64_t panel) const {
    T* out = inner_[index] + panel * layout_.inner_stride(index);
    pack_panel<T>(side(index).inner.transposed(), panel * kW, out);
    const T scale = T(side(index).scale);
    if (scale == T(1)) return;
    for (int64_t e = 0; e < layout_.dim[1 - index] * kW; ++e) out[e] *= scale;
  }

  // G_s = D_sT A_s, rows contiguous.
  void form(int64_t local, T* scratch) const {
    const Samples& s = step_.samples;
    const Matrix d = sample_of(s.g, s.g_stride, first_ + local).transposed();
    const Matrix a = sample_of(s.a, s.a_stride, first_ + local).transposed();
    const int64_t n = layout_.dim[1], depth = layout_.positions, stride = panel_stride<T>(depth);
    T* tiles = scratch;
    T* d_panel = tiles + kMaxStripTiles * kTileSize<T>;
    T* a_panels = d_panel + stride;
    for (int64_t p = 0; p < layout_.panels(1); ++p) pack_panel<T>(a, p * kW, a_panels + p * stride);
    for (int64_t row = 0; row < layout_.panels(0); ++row) {
      pack_panel<T>(d, row * kW, d_panel);
      const int rows = panel_extent<T>(layout_.dim[0], row);
      for (int64_t p = 0; p < layout_.panels(1); ++p) {
        const int columns = panel_extent<T>(n, p);
        multiply_strip(d_panel, a_panels + p * stride, stride, depth, 1, rows, columns, false,
                       tiles);
        T* out = formed_ + local * layout_.dim[0] * n + row * kW * n + p * kW;
        for (int r = 0; r < rows; ++r) {
          for (int c = 0; c < columns; ++c) out[r * n + c] = tiles[r * kW + c];
        }
      }
    }
  }

  void pack(int index, int64_t panel) const {
    if (layout_.whole && !side(index).wanted()) return;
    T* out = x_[index] + panel * layout_.stride(index);
    for (int64_t block = 0; block < layout_.blocks(count_); ++block) {
      const int64_t first = block * layout_.block_samples;
      const int64_t last = minimum(first + layout_.block_samples, count_);
      T* const end = out + layout_.block_depth[index] * kW;
      for (int64_t local = first; local < last; ++local) {
        const Matrix x = sample(index, local);
        pack_panel<T>(x, panel * kW, out);
        out += x.columns * kW;
      }
      while (out < end) *out++ = 0;
    }
  }

  // M of a block: w_s A_s R A_sT for its samples, zero between them, as panels for times_inner.
  void block_inner(int index, int64_t block, T* scratch) const {
    if (!side(index).wanted()) return;
    const int other = 1 - index;
    const int64_t count = layout_.block_panels(), depth = layout_.dim[other];
    const int64_t stride = layout_.inner_stride(index);
    T* tile = scratch;
    T* rows = tile + kMaxStripTiles * kTileSize<T>;  // A_s, its rows in the panels
    T* products = rows + count * stride;             // A_s R likewise
    if (identity(index)) products = rows;
    for (int64_t p = 0; p < count; ++p) {
      // The panels of the other side hold A_sT; squares of them are transposed.
      const int64_t offset = (block * layout_.block_depth[index] + p * kW) * kW;
      for (int64_t j = 0; j < layout_.panels(other); ++j) {
        T* square = x_[other] + j * layout_.stride(other) + offset;
        pack_panel<T>(compute_matrix(square, kW, panel_extent<T>(depth, j), kW), 0,
                      rows + p * stride + j * kTileSize<T>);
      }
      if (!identity(index)) {
        times_inner(rows + p * stride, inner_[index], stride, depth, kW, products + p * stride);
      }
    }
    T* out = block_inner_[index] + block * layout_.block_inner_size();
    for (int64_t a = 0; a < count; ++a) {
      for (int64_t b = 0; b < count; ++b, out += kTileSize<T>) {
        multiply_strip(products + b * stride, rows + a * stride, stride, depth, 1, kW, kW, false,
                       tile);
        keep_samples(block, b * kW, a * kW, tile, out);
      }
    }
  }

  // Copies a tile of M, rows from `first_row` and columns from `first_column` of the block.
  void keep_samples(int64_t block, int64_t first_row, int64_t first_column, const T* tile,
                    T* out) const {
    const int64_t first = block * layout_.block_samples;
    const int64_t samples = minimum(layout_.block_samples, count_ - first);
    int64_t column_sample[kW];
    for (int c = 0; c < kW; ++c) column_sample[c] = (first_column + c) / layout_.positions;
    for (int r = 0; r < kW; ++r) {
      const int64_t sample = (first_row + r) / layout_.positions;
      const T weight = sample < samples ? T(sample_weight(first_ + first + sample)) : T(0);
      for (int c = 0; c < kW; ++c) {
        const bool same = sample == column_sample[c] && sample < samples;
        out[r * kW + c] = same ? weight * tile[r * kW + c] : T(0);
      }
    }
  }

  // All tiles of one row of a side's result, over the depth of the group.
  void row(int index, int64_t row, T* scratch) const {
    if (!side(index).wanted()) return;
    const int64_t dim = layout_.dim[index], stride = layout_.stride(index);
    const int64_t depth = layout_.blocks(count_) * layout_.block_depth[index];
    const int rows = panel_extent<T>(dim, row);
    T* tiles = scratch;
    const T* left = times_inners(index, row, rows, tiles + kMaxStripTiles * kTileSize<T>);
    for (int64_t first = 0; first < columns(index, row); first += kMaxStripTiles) {
      const int64_t last = minimum(first + kMaxStripTiles, columns(index, row));
      multiply_strip(left, x_[index] + first * stride, stride, depth, last - first, rows,
                     panel_extent<T>(dim, last - 1), false, tiles);
      for (int64_t column = first; column < last; ++column) {
        T* tile = tiles + (column - first) * kTileSize<T>;
        if (sums_[index]) {
          add(tile, sums_[index] + tile_index(index, row, column) * kTileSize<T>);
        } else {
          write(index, tile, row, column, T(weight(index)));
        }
      }
    }
  }

  // w_s X_s B for every block of the group: t, or the panel of X itself where nothing changes it.
  const T* times_inners(int index, int64_t row, int rows, T* t) const {
    const T* x = x_[index] + row * layout_.stride(index);
    const bool weighted = layout_.whole && step_.samples.weights;
    if (layout_.whole && identity(index) && !weighted) return x;
    const int64_t depth = layout_.block_depth[index];
    for (int64_t block = 0; block < layout_.blocks(count_); ++block) {
      const T* source = x + block * depth * kW;
      T* out = t + block * depth * kW;
      if (!layout_.whole) {
        times_inner(source, block_inner_[index] + block * layout_.block_inner_size(), depth * kW,
                    depth, rows, out);
      } else if (!identity(index)) {
        times_inner(source, inner_[index], layout_.inner_stride(index), depth, rows, out);
        source = out;
      }
      if (weighted) {
        const T w = T(sample_weight(first_ + block));
        for (int64_t e = 0; e < depth * kW; ++e) out[e] = w * source[e];
      }
    }
    return t;
  }

  static void add(const T* tile, double* sum) {
    constexpr int kL = kLanes<T>;
    for (int e = 0; e < kTileSize<T>; e += kL) {
      store<double, kL>(sum + e, load<double, kL>(sum + e) +
                                     __builtin_convertvector(load(tile + e), Vector<double, kL>));
    }
  }

  void write(int index, const T* tile, int64_t row, int64_t column, T weight) const {
    if (side(index).out.dtype == Dtype::kFloat64) {
      if constexpr (sizeof(T) == 8) write_as<double>(index, tile, row, column, weight);
    } else {
      write_as<float>(index, tile, row, column, weight);
    }
  }

  template <class C>
  void write_as(int index, const T* tile, int64_t row, int64_t column, T weight) const {
    const Matrix& out = side(index).out;
    C* data = static_cast<C*>(out.data);
    if (side(index).symmetric()) {
      const SymmetricTile<T, C> writer{T(step_.decay), weight};
      return writer.write(tile, data, out.rows, out.row_stride, row, column);
    }
    data += row * kW * out.row_stride + column * kW;
    for (int r = 0; r < panel_extent<T>(out.rows, row); ++r) {
      for (int c = 0; c < panel_extent<T>(out.rows, column); ++c) {
        data[r * out.row_stride + c] = C(weight * tile[r * kW + c]);
      }
    }
  }

  const KroneckerStep& step_;
  GroupLayout<T> layout_;
  int64_t first_, count_;
  T* inner_[2];
  T* x_[2];
  T* block_inner_[2];
  T* formed_;
  double* sums_[2];
};

}  // namespace kronext::cpu::KRONEXT_CPU
