#include "csrc/cpu/outer.h"

#include "csrc/cpu/product_types.h"
#include "csrc/cpu/symmetric_tile.h"

namespace kronext::cpu::KRONEXT_CPU {
namespace {

template <class ProductOfSide, class Factor>
struct Types {
  using Product = ProductOfSide;
  using T = typename ProductOfSide::Sum;
  using C = Factor;
};

// float64 on either side makes the whole computation float64.
template <class F>
auto with_types(const OuterSide& side, const F& f) {
  if (side.factor.dtype == Dtype::kFloat64) return f(Types<PlainProduct<double>, double>{});
  if (side.x.dtype == Dtype::kFloat64) return f(Types<PlainProduct<double>, float>{});
#if defined(__AVX512BF16__)
  const int parts = bfloat16_parts(side);
  if (parts == 1) return f(Types<BFloat16Product<1>, float>{});
  if constexpr (kMaxParts == 3) {
    if (parts == 2) return f(Types<BFloat16Product<2>, float>{});
    if (parts == 3) return f(Types<BFloat16Product<3>, float>{});
  }
#endif
  return f(Types<PlainProduct<float>, float>{});
}

double work(const OuterSide& side) {
  return double(side.x.rows) * double(side.x.rows) * double(side.x.columns) / 2;
}

int64_t shared_bytes(const OuterSide& side) {
  return with_types(side, [&](auto types) {
    using Types = decltype(types);
    return panel_count<typename Types::T>(side.x.rows) * Types::Product::stride(side.x.columns) *
           int64_t(sizeof(typename Types::Product::Value));
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
    using Types = decltype(types);
    return lower_strip_count(panel_count<typename Types::T>(side.x.rows),
                             strip_width(Types::Product::streamed_bytes(side.x.columns)));
  });
}

void pack(const OuterSide& side, int64_t step, void* shared) {
  with_types(side, [&](auto types) {
    using Product = typename decltype(types)::Product;
    Product::pack(
        side.x, step * kPanel<typename Product::Sum>,
        static_cast<typename Product::Value*>(shared) + step * Product::stride(side.x.columns));
  });
}

template <class Types>
void run_strip(const OuterSide& side, const Strip& strip,
               const typename Types::Product::Value* panels, typename Types::T* tiles) {
  using T = typename Types::T;
  using C = typename Types::C;
  using Product = typename Types::Product;
  const int64_t dim = side.x.rows, depth = side.x.columns, stride = side.factor.row_stride;
  C* factor = static_cast<C*>(side.factor.data);
  const int64_t panel_stride = Product::stride(depth);
  [[maybe_unused]] const typename Product::Ready ready;
  Product::multiply_lower(
      panels, depth, strip, panel_extent<T>(dim, strip.row),
      [&](int64_t column) { SymmetricTile<T, C>::prefetch(side.factor, strip.row, column); },
      tiles);
  const double weight = side.weight * Product::scale(panels + strip.row * panel_stride, depth);
  for (int64_t column = strip.first_column; column < strip.last_column; ++column) {
    const SymmetricTile<T, C> writer{
        T(side.decay), T(weight * Product::scale(panels + column * panel_stride, depth))};
    writer.write(tiles + (column - strip.first_column) * kTileSize<T>, factor, dim, stride,
                 strip.row, column);
  }
}

void run(const OuterSide& side, int64_t step, const void* shared, void* scratch) {
  with_types(side, [&](auto types) {
    using Types = decltype(types);
    using T = typename Types::T;
    const Strip strip =
        lower_strip(panel_count<T>(side.x.rows),
                    strip_width(Types::Product::streamed_bytes(side.x.columns)), step);
    run_strip<Types>(side, strip, static_cast<const typename Types::Product::Value*>(shared),
                     static_cast<T*>(scratch));
  });
}

int operands(const OuterSide& side, Operand* operands) {
  operands[0] = {side.x, false};
  operands[1] = {side.factor, true};
  return 2;
}

bool depends_on_precision(const OuterSide& side) {
#if defined(__AVX512BF16__)
  return is_large_float32(side);
#else
  (void)side;
  return false;
#endif
}

}  // namespace

extern const ProductKernel<OuterSide> kOuter{
    .job =
        {
            .work = work,
            .shared_bytes = shared_bytes,
            .scratch_bytes = scratch_bytes,
            .pack_steps = pack_steps,
            .steps = steps,
            .pack = pack,
            .run = run,
            .operands = operands,
        },
    .depends_on_precision = depends_on_precision,
};

}  // namespace kronext::cpu::KRONEXT_CPU
