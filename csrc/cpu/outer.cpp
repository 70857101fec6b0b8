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
int64_t strip_width_of(const OuterSide& side) {
  return strip_width(stride_of<T>(side) * int64_t(sizeof(T)));
}

double work(const OuterSide& side) {
  return double(side.x.rows) * double(side.x.rows) * double(side.x.columns) / 2;
}

int64_t shared_bytes(const OuterSide& side) {
  return with_types(side, [&](auto types) {
    using T = typename decltype(types)::T;
    return panel_count<T>(side.x.rows) * stride_of<T>(side) * int64_t(sizeof(T));
  });
}

int64_t scratch_bytes(const OuterSide& side) {
  return with_types(side, [](auto types) {
    using T = typename decltype(types)::T;
    return kMaxStripTiles * kTileSize<T> * int64_t(sizeof(T));
  });
}

int64_t pack_steps(const OuterSide& side) {
  return with_types(
      side, [&](auto types) { return panel_count<typename decltype(types)::T>(side.x.rows); });
}

int64_t steps(const OuterSide& side) {
  return with_types(side, [&](auto types) {
    using T = typename decltype(types)::T;
    return lower_strip_count(panel_count<T>(side.x.rows), strip_width_of<T>(side));
  });
}

void pack(const OuterSide& side, int64_t step, void* shared) {
  with_types(side, [&](auto types) {
    using T = typename decltype(types)::T;
    pack_panel<T>(side.x, step * kPanel<T>, static_cast<T*>(shared) + step * stride_of<T>(side));
  });
}

template <class T, class C>
void run_strip(const OuterSide& side, const Strip& strip, const T* panels, T* tiles) {
  const int64_t dim = side.x.rows, depth = side.x.columns, stride = stride_of<T>(side);
  const T* row = panels + strip.row * stride;
  const bool to_diagonal = strip.last_column == strip.row + 1;
  const int64_t squares = strip.last_column - strip.first_column - to_diagonal;
  const int rows = panel_extent<T>(dim, strip.row);
  // Columns before the diagonal are whole panels.
  multiply_strip(row, panels + strip.first_column * stride, stride, depth, squares, rows, kPanel<T>,
                 false, tiles);
  if (to_diagonal) multiply_diagonal_tile(row, depth, rows, tiles + squares * kTileSize<T>);
  const SymmetricTile<T, C> writer{T(side.decay), T(side.weight)};
  for (int64_t column = strip.first_column; column < strip.last_column; ++column) {
    writer.write(tiles + (column - strip.first_column) * kTileSize<T>,
                 static_cast<C*>(side.factor.data), dim, side.factor.row_stride, strip.row, column);
  }
}

void run(const OuterSide& side, int64_t step, const void* shared, void* scratch) {
  with_types(side, [&](auto types) {
    using T = typename decltype(types)::T;
    using C = typename decltype(types)::C;
    const Strip strip = lower_strip(panel_count<T>(side.x.rows), strip_width_of<T>(side), step);
    run_strip<T, C>(side, strip, static_cast<const T*>(shared), static_cast<T*>(scratch));
  });
}

int operands(const OuterSide& side, Operand* operands) {
  operands[0] = {side.x, false};
  operands[1] = {side.factor, true};
  return 2;
}

}  // namespace

extern const JobKernel<OuterSide> kOuter{
    .work = work,
    .shared_bytes = shared_bytes,
    .scratch_bytes = scratch_bytes,
    .pack_steps = pack_steps,
    .steps = steps,
    .pack = pack,
    .run = run,
    .operands = operands,
};

}  // namespace kronext::cpu::KRONEXT_CPU
