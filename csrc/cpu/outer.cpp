#include "csrc/cpu/outer.h"

#include "csrc/cpu/symmetric_tile.h"

namespace kronext::cpu::KRONEXT_CPU {
namespace {

template <class Compute, class Factor>
struct Types {
  using T = Compute;
  using C = Factor;
};

// float64 on either side makes the whole computation float64.
template <class F>
auto with_types(const OuterSide& side, const F& f) {
  if (side.factor.dtype == Dtype::kFloat64) return f(Types<double, double>{});
  if (side.x.dtype == Dtype::kFloat64) return f(Types<double, float>{});
  return f(Types<float, float>{});
}

template <class T>
int64_t stride_of(const OuterSide& side) {
  return panel_stride<T>(side.x.columns);
}

template <class T>
void pack(const OuterSide& side, T* panels, int64_t first, int64_t last) {
  for (int64_t p = first; p < last; ++p) {
    pack_panel<T>(side.x, p * kPanel<T>, panels + p * stride_of<T>(side));
  }
}

template <class T, class C>
void strip(const OuterSide& side, const T* panels, const Strip& strip, T* tiles) {
  const int64_t dim = side.x.rows, depth = side.x.columns, stride = stride_of<T>(side);
  multiply_strip(panels + strip.row * stride, panels + strip.first_column * stride, stride, depth,
                 strip.last_column - strip.first_column, panel_extent<T>(dim, strip.row),
                 panel_extent<T>(dim, strip.last_column - 1), false, tiles);
  const SymmetricTile<T, C> writer{T(side.decay), T(side.weight)};
  for (int64_t column = strip.first_column; column < strip.last_column; ++column, tiles += kTileSize<T>) {
    writer.write(tiles, static_cast<C*>(side.factor.data), dim, side.factor.row_stride, strip.row,
                 column);
  }
}

}  // namespace

int64_t outer_panels(const OuterSide& side) {
  return with_types(side, [&](auto types) {
    return panel_count<typename decltype(types)::T>(side.x.rows);
  });
}

int64_t outer_panel_bytes(const OuterSide& side) {
  return with_types(side, [&](auto types) {
    using T = typename decltype(types)::T;
    return panel_count<T>(side.x.rows) * stride_of<T>(side) * int64_t(sizeof(T));
  });
}

int64_t outer_tile_bytes(const OuterSide& side) {
  return with_types(side, [](auto types) {
    using T = typename decltype(types)::T;
    return kMaxStripTiles * kTileSize<T> * int64_t(sizeof(T));
  });
}

int64_t outer_strip_width(const OuterSide& side) {
  return strip_width(outer_panel_bytes(side) / maximum<int64_t>(1, outer_panels(side)));
}

void outer_pack(const OuterSide& side, void* panels, int64_t first, int64_t last) {
  with_types(side, [&](auto types) {
    using T = typename decltype(types)::T;
    pack(side, static_cast<T*>(panels), first, last);
  });
}

void outer_strips(const OuterSide& side, const void* panels, const Strip* strips, int64_t count,
                  void* tiles) {
  with_types(side, [&](auto types) {
    using T = typename decltype(types)::T;
    using C = typename decltype(types)::C;
    for (const Strip* s = strips; s != strips + count; ++s) {
      strip<T, C>(side, static_cast<const T*>(panels), *s, static_cast<T*>(tiles));
    }
  });
}

void outer_whole(const OuterSide& side, void* panels, void* tiles) {
  outer_pack(side, panels, 0, outer_panels(side));
  for_each_lower_strip(outer_panels(side), outer_strip_width(side),
                       [&](const Strip& s) { outer_strips(side, panels, &s, 1, tiles); });
}

}  // namespace kronext::cpu::KRONEXT_CPU
