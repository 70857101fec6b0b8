// Products of packed panels on AMX matrix tiles, with float32 sums.
//
// A tile of the output (kPanel x kPanel) is four matrix tiles; 32 steps of the depth cost two loads
// of either operand and four products of 16 x 16 x 32, 16 cycles each, for every pair of parts that
// is multiplied. The chunk of the left panel stays in the first-level cache while those of the
// right panels stream past. Chunks are summed separately, as in product.h.
//
// Numbers of two parts need all four products: then X XT is the Gram matrix of X rounded to 16 bits
// and stays positive semi-definite. Of three parts the products below 2^-24 are left out.
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
struct TileTerms;
template <>
struct TileTerms<1> {
  static constexpr PartPair kTerms[] = {{0, 0}};
  static constexpr int64_t kChunkBlocks = 16;
};
template <>
struct TileTerms<2> {
  static constexpr PartPair kTerms[] = {{1, 1}, {1, 0}, {0, 0}, {0, 1}};
  static constexpr int64_t kChunkBlocks = 8;
};
template <>
struct TileTerms<3> {
  static constexpr PartPair kTerms[] = {{0, 2}, {0, 1}, {1, 1}, {1, 0}, {2, 0}, {0, 0}};
  static constexpr int64_t kChunkBlocks = 5;
};

template <int parts>
class TileProduct {
 public:
  using Panel = PairPanel<parts, true>;

  // What multiply_lower_strip in product.h does, from panels that lie panel_stride pairs apart.
  template <class Fetch>
  static void multiply_strip(const BFloat16Pair* panels, int64_t panel_stride, int64_t depth,
                             const Strip& strip, int rows, const Fetch& fetch, float* tiles) {
    const ConfiguredTiles configured;
    alignas(64) float partial[kTileSize<float>];
    const int64_t blocks = Panel::blocks(depth);
    const int64_t chunks = maximum<int64_t>(1, ceil_divide(blocks, Terms::kChunkBlocks));
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      const int64_t begin = chunk * blocks / chunks, count = (chunk + 1) * blocks / chunks - begin;
      const BFloat16Pair* left = panels + strip.row * panel_stride + Panel::rows(0, depth);
      float* tile = tiles;
      for (int64_t c = strip.first_column; c < strip.last_column; ++c, tile += kTileSize<float>) {
        if (chunk == 0) fetch(c);
        const BFloat16Pair* right = panels + c * panel_stride + Panel::pairs(0, depth);
        const int columns = c == strip.row ? rows : kW;
        const Squares squares{rows > kL, columns > kL, c != strip.row};
        multiply(left + begin * kBlockPairs, right + begin * kBlockPairs, Panel::plane(depth),
                 count, squares, chunk ? partial : tile);
        if (chunk) add(partial, squares, tile);
      }
    }
  }

 private:
  using Terms = TileTerms<parts>;
  static constexpr int kW = kPanel<float>, kL = kLanes<float>;
  static constexpr int kTermCount = sizeof(Terms::kTerms) / sizeof(PartPair);
  static constexpr int kBlockPairs = Panel::kBlock * kW;  // of 32 steps of the depth
  // The part of a chunk's left panel above which right panels should not push it out.
  static constexpr int64_t kResidentBytes = 20 * 1024;

  // Which squares of 16 x 16 there are besides the first.
  struct Squares {
    bool bottom, right, top_right;
  };

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
