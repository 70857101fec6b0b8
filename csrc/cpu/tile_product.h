// Products of packed panels on AMX matrix tiles, with float32 sums.
//
// A tile of the output (kPanel x kPanel) is four matrix tiles; 32 steps of the depth cost two loads
// of either operand and four products of 16 x 16 x 32, 16 cycles each, for every pair of parts that
// is multiplied. The chunk of the left panel stays in the first-level cache while those of the
// right panels stream past. Chunks are summed separately, as in product.h.
//
// Of two parts the products below 2^-16 are left out, of three those below 2^-24. But X XT of two
// parts needs all four products: then it is the Gram matrix of X rounded to 16 bits and stays
// positive semi-definite.
#pragma once

#include "csrc/cpu/bfloat16_panels.h"
#include "csrc/cpu/product.h"
#include "csrc/cpu/tile_instructions.h"

namespace kronext::cpu::KRONEXT_CPU {

struct PartPair {
  int left, right;
};
// Which parts are multiplied. From one to the next, one operand stays where it is.
template <int parts>
struct ProductTerms;
template <>
struct ProductTerms<1> {
  static constexpr PartPair kTerms[] = {{0, 0}};
  static constexpr int64_t kChunkBlocks = 16;
};
template <>
struct ProductTerms<2> {
  static constexpr PartPair kTerms[] = {{1, 0}, {0, 0}, {0, 1}};
  static constexpr int64_t kChunkBlocks = 8;
};
template <>
struct ProductTerms<3> {
  static constexpr PartPair kTerms[] = {{0, 2}, {0, 1}, {1, 1}, {1, 0}, {2, 0}, {0, 0}};
  static constexpr int64_t kChunkBlocks = 5;
};
template <int parts>
struct GramTerms : ProductTerms<parts> {};
template <>
struct GramTerms<2> : ProductTerms<2> {
  static constexpr PartPair kTerms[] = {{1, 1}, {1, 0}, {0, 0}, {0, 1}};
};

// Tiles have to be configured.
template <int parts, class Terms>
class TileProduct {
 public:
  using Panel = PairPanel<parts, true>;

  // What multiply_lower_strip in product.h does, from panels that lie panel_stride pairs apart.
  template <class Fetch>
  static void multiply_lower_strip(const BFloat16Pair* panels, int64_t panel_stride, int64_t depth,
                                   const Strip& strip, int rows, const Fetch& fetch, float* tiles) {
    const int64_t count = strip.last_column - strip.first_column;
    const BFloat16Pair* right = panels + strip.first_column * panel_stride;
    multiply_strip(
        panels + strip.row * panel_stride, {right, panel_stride, count, kW}, depth,
        [&](int64_t c, bool first) {
          const int64_t column = strip.first_column + c;
          if (first) fetch(column);
          const bool diagonal = column == strip.row;
          return Squares{rows > kL, !diagonal || rows > kL, !diagonal};
        },
        tiles);
  }

  // What multiply_block in product.h does, from nothing.
  static void multiply_block(const PanelRun<BFloat16Pair>& rows,
                             const PanelRun<BFloat16Pair>& columns, int64_t depth, float* tiles) {
    for (int64_t r = 0; r < rows.count; ++r, tiles += columns.count * kTileSize<float>) {
      multiply_strip(
          rows.first + r * rows.stride, columns, depth,
          [&](int64_t c, bool) {
            const bool right = columns.extent(c) > kL;
            return Squares{rows.extent(r) > kL, right, right};
          },
          tiles);
    }
  }

 private:
  static constexpr int kW = kPanel<float>, kL = kLanes<float>;
  static constexpr int kTermCount = sizeof(Terms::kTerms) / sizeof(PartPair);
  static constexpr int kBlockPairs = Panel::kBlock * kW;  // of 32 steps of the depth
  // The part of a chunk's left panel above which right panels should not push it out.
  static constexpr int64_t kResidentBytes = 20 * 1024;

  // Which squares of 16 x 16 there are besides the first.
  struct Squares {
    bool bottom, right, top_right;
  };

  // squares_of(column, first chunk) is called before each tile is begun.
  template <class SquaresOf>
  static void multiply_strip(const BFloat16Pair* left, const PanelRun<BFloat16Pair>& columns,
                             int64_t depth, const SquaresOf& squares_of, float* tiles) {
    left += Panel::rows(0, depth);
    alignas(64) float partial[kTileSize<float>];
    const int64_t blocks = Panel::blocks(depth);
    const int64_t chunks = maximum<int64_t>(1, ceil_divide(blocks, Terms::kChunkBlocks));
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      const int64_t begin = chunk * blocks / chunks, count = (chunk + 1) * blocks / chunks - begin;
      float* tile = tiles;
      for (int64_t c = 0; c < columns.count; ++c, tile += kTileSize<float>) {
        const BFloat16Pair* right = columns.first + c * columns.stride + Panel::pairs(0, depth);
        const Squares squares = squares_of(c, chunk == 0);
        multiply(left + begin * kBlockPairs, right + begin * kBlockPairs, Panel::plane(depth),
                 count, squares, chunk ? partial : tile);
        if (chunk) add(partial, squares, tile);
      }
    }
  }

  static void multiply(const BFloat16Pair* left, const BFloat16Pair* right, int64_t plane,
                       int64_t blocks, const Squares& squares, float* tile) {
    zero_tile<0>();
    zero_tile<1>();
    zero_tile<2>();
    zero_tile<3>();
    if (blocks * parts * kBlockPairs * int64_t(sizeof(BFloat16Pair)) > kResidentBytes) {
      multiply_blocks<true>(left, right, plane, blocks, squares, MakeIndexList<kTermCount>{});
    } else {
      multiply_blocks<false>(left, right, plane, blocks, squares, MakeIndexList<kTermCount>{});
    }
    constexpr int64_t kRowBytes = kW * int64_t(sizeof(float));
    store_tile<0>(tile, kRowBytes);
    if (squares.top_right) store_tile<1>(tile + kL, kRowBytes);
    if (squares.bottom) store_tile<2>(tile + kL * kW, kRowBytes);
    if (squares.bottom && squares.right) store_tile<3>(tile + kL * kW + kL, kRowBytes);
  }

  template <bool stream, int... term>
  static void multiply_blocks(const BFloat16Pair* left, const BFloat16Pair* right, int64_t plane,
                              int64_t blocks, const Squares& squares, IndexList<term...>) {
    for (int64_t b = 0; b < blocks; ++b, left += kBlockPairs, right += kBlockPairs) {
      (multiply_term<stream, term>(left, right, plane, squares), ...);
    }
  }

  // Tiles 4 and 5 hold the left operand, 6 and 7 the right one.
  template <bool stream, int term>
  static KRONEXT_INLINE void multiply_term(const BFloat16Pair* left, const BFloat16Pair* right,
                                           int64_t plane, const Squares& squares) {
    constexpr PartPair kNow = Terms::kTerms[term];
    constexpr PartPair kBefore = term ? Terms::kTerms[term ? term - 1 : 0] : PartPair{-1, -1};
    if (kNow.left != kBefore.left) {
      const BFloat16Pair* rows = left + kNow.left * plane;
      load_tile<4>(rows, kTileRowBytes);
      if (squares.bottom) load_tile<5>(rows + kTileRows * kL, kTileRowBytes);
    }
    if (kNow.right != kBefore.right) {
      const BFloat16Pair* pairs = right + kNow.right * plane;
      load_right<stream, 6>(pairs);
      if (squares.right) load_right<stream, 7>(pairs + kL);
    }
    multiply_tiles<0, 4, 6>();
    if (squares.top_right) multiply_tiles<1, 4, 7>();
    if (squares.bottom) multiply_tiles<2, 5, 6>();
    if (squares.bottom && squares.right) multiply_tiles<3, 5, 7>();
  }

  template <bool stream, int tile>
  static KRONEXT_INLINE void load_right(const BFloat16Pair* pairs) {
    constexpr int64_t kRowBytes = kW * int64_t(sizeof(BFloat16Pair));
    stream ? stream_tile<tile>(pairs, kRowBytes) : load_tile<tile>(pairs, kRowBytes);
  }

  static void add(const float* partial, const Squares& squares, float* tile) {
    for (int r = 0; r < (squares.bottom ? kW : kL); ++r, partial += kW, tile += kW) {
      store(tile, load(tile) + load(partial));
      if (squares.top_right || (squares.right && r >= kL)) {
        store(tile + kL, load(tile + kL) + load(partial + kL));
      }
    }
  }
};

}  // namespace kronext::cpu::KRONEXT_CPU
