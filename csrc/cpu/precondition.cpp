#include "csrc/cpu/precondition.h"

#include "csrc/cpu/product_types.h"

namespace kronext::cpu::KRONEXT_CPU {
namespace {

template <class ProductOfProblem>
struct Type {
  using Product = ProductOfProblem;
};

// The output has the widest dtype of the operands, and float64 anywhere makes it float64.
template <class F>
auto with_product(const PreconditionProblem& p, const F& f) {
  if (p.out.dtype == Dtype::kFloat64) return f(Type<PlainProduct<double>>{});
#if defined(__AVX512BF16__)
  const int parts = bfloat16_parts(p);
  if (parts == 1) return f(Type<BFloat16Product<1>>{});
  if constexpr (kMaxParts == 3) {
    if (parts == 2) return f(Type<BFloat16Product<2>>{});
    if (parts == 3) return f(Type<BFloat16Product<3>>{});
  }
#endif
  return f(Type<PlainProduct<float>>{});
}

// Each step reads all of right. Where that is more than the second-level cache holds, up to four
// row panels share what comes from memory, as long as there remain steps for four threads.
constexpr int64_t kCachedRight = 1 << 20;
constexpr int64_t kMaxRowsOfStep = 4, kMinSteps = 4;

// Where the packed operands lie, in values of the product, which are as wide as its sums.
template <class Product>
struct Layout {
  using T = typename Product::Sum;
  static_assert(sizeof(typename Product::Value) == sizeof(T));

  int64_t rows, columns;  // of G
  int64_t g_panels;       // columns of G, with their depth m: only where left multiplies them
  int64_t g_stride;
  int64_t right_panels;  // columns of right, depth n
  int64_t right_stride;
  int64_t rows_of_step;

  explicit Layout(const PreconditionProblem& p)
      : rows(p.g.rows),
        columns(p.g.columns),
        g_panels(p.left.data ? panel_count<T>(columns) : 0),
        g_stride(Product::stride(rows)),
        right_panels(p.right.data ? panel_count<T>(columns) : 0),
        right_stride(Product::stride(columns)),
        rows_of_step(1) {
    if (right_panels * Product::streamed_bytes(columns) > kCachedRight) {
      const int64_t shared = panel_count<T>(rows) / kMinSteps;
      rows_of_step = maximum<int64_t>(1, minimum(shared, kMaxRowsOfStep));
    }
  }

  int64_t steps() const { return ceil_divide(panel_count<T>(rows), rows_of_step); }
  int64_t right_offset() const { return g_panels * g_stride; }
  int64_t shared() const { return right_offset() + right_panels * right_stride; }
  // One packed row panel of G or of left G, depth n.
  int64_t row_panel() const { return round_up<int64_t>(right_stride, kTileSize<T>); }
  int64_t scratch() const {
    return g_stride + rows_of_step * (row_panel() + kMaxStripTiles * kTileSize<T>);
  }
};

double work(const PreconditionProblem& p) {
  const double sides =
      (p.left.data ? double(p.g.rows) : 0) + (p.right.data ? double(p.g.columns) : 0);
  return double(p.g.rows) * double(p.g.columns) * (sides + 1);
}

int64_t shared_bytes(const PreconditionProblem& p) {
  return with_product(p, [&](auto type) {
    using Product = typename decltype(type)::Product;
    return Layout<Product>(p).shared() * int64_t(sizeof(typename Product::Value));
  });
}

int64_t scratch_bytes(const PreconditionProblem& p) {
  return with_product(p, [&](auto type) {
    using Product = typename decltype(type)::Product;
    return Layout<Product>(p).scratch() * int64_t(sizeof(typename Product::Value));
  });
}

int64_t pack_steps(const PreconditionProblem& p) {
  return with_product(p, [&](auto type) {
    const Layout<typename decltype(type)::Product> layout(p);
    return layout.g_panels + layout.right_panels;
  });
}

int64_t steps(const PreconditionProblem& p) {
  return with_product(
      p, [&](auto type) { return Layout<typename decltype(type)::Product>(p).steps(); });
}

void pack(const PreconditionProblem& p, int64_t step, void* shared) {
  with_product(p, [&](auto type) {
    using Product = typename decltype(type)::Product;
    constexpr int kWidth = kPanel<typename Product::Sum>;
    const Layout<Product> layout(p);
    auto* panels = static_cast<typename Product::Value*>(shared);
    if (step < layout.g_panels) {
      Product::pack(p.g.transposed(), step * kWidth, panels + step * layout.g_stride);
    } else {
      const int64_t panel = step - layout.g_panels;
      Product::pack(p.right.transposed(), panel * kWidth,
                    panels + layout.right_offset() + panel * layout.right_stride);
    }
  });
}

template <class T>
void write_tile(const T* tile, const Matrix& out, int64_t row, int64_t column) {
  const int rows = panel_extent<T>(out.rows, row), columns = panel_extent<T>(out.columns, column);
  T* target = static_cast<T*>(out.data) + row * kPanel<T> * out.row_stride + column * kPanel<T>;
  for (int r = 0; r < rows; ++r, tile += kPanel<T>, target += out.row_stride) {
    store_first<T>(target, load(tile), columns);
    if (columns > kLanes<T>)
      store_first<T>(target + kLanes<T>, load(tile + kLanes<T>), columns - kLanes<T>);
  }
}

// The sum of squares of what write_tile writes.
template <class T>
double square_tile(const T* tile, int rows, int columns) {
  double sum = 0;
  Vector<T> first{}, second{};
  for (int r = 0; r < rows; ++r, tile += kPanel<T>) {
    if (columns == kPanel<T>) {
      const Vector<T> x = load(tile), y = load(tile + kLanes<T>);
      first += x * x;
      second += y * y;
    } else {
      for (int c = 0; c < columns; ++c) sum += double(tile[c]) * double(tile[c]);
    }
  }
  for (int lane = 0; lane < kLanes<T>; ++lane) sum += double(first[lane]) + double(second[lane]);
  return sum;
}

// Row panels `row` and on of a product with packed columns, written out strip by strip. Returns the
// sum of their squares, where those are wanted.
template <class Product>
double multiply_out(const PanelRun<typename Product::Value>& rows, int64_t row,
                    const typename Product::Value* columns, int64_t stride, int64_t depth,
                    const PreconditionProblem& p, typename Product::Sum* tiles) {
  using T = typename Product::Sum;
  const Matrix& out = p.out;
  const int64_t count = panel_count<T>(out.columns);
  double squares = 0;
  const int64_t width = strip_width(Product::streamed_bytes(depth));
  for (int64_t first = 0; first < count; first += width) {
    const int64_t last = minimum(count, first + width);
    Product::multiply(
        rows,
        {columns + first * stride, stride, last - first, panel_extent<T>(out.columns, last - 1)},
        depth, tiles);
    T* tile = tiles;
    for (int64_t r = 0; r < rows.count; ++r) {
      for (int64_t column = first; column < last; ++column, tile += kTileSize<T>) {
        const int tile_rows = panel_extent<T>(out.rows, row + r);
        const double scale = Product::scale(rows.first + r * rows.stride, depth) *
                             Product::scale(columns + column * stride, depth);
        if (scale != 1) scale_tile(tile, tile_rows, T(scale));
        write_tile(tile, out, row + r, column);
        if (!p.squares) continue;
        squares += square_tile(tile, tile_rows, panel_extent<T>(out.columns, column));
      }
    }
  }
  return squares;
}

// Row panel `row` of left G, packed.
template <class Product>
void multiply_left(const PreconditionProblem& p, const Layout<Product>& layout, int64_t row,
                   const typename Product::Value* g_panels, typename Product::Value* left_panel,
                   typename Product::Value* row_panel, typename Product::Sum* tile) {
  using T = typename Product::Sum;
  const int rows = panel_extent<T>(layout.rows, row);
  Product::pack(p.left, row * kPanel<T>, left_panel);
  const double left_scale = Product::scale(left_panel, layout.rows);
  typename Product::Intermediate made(row_panel, tile, rows, layout.columns);
  for (int64_t column = 0; column < layout.g_panels; ++column) {
    const auto* g_panel = g_panels + column * layout.g_stride;
    Product::multiply({g_panel, 0, 1, panel_extent<T>(layout.columns, column)},
                      {left_panel, 0, 1, rows}, layout.rows, made.tile(column));
    made.pack(column, left_scale * Product::scale(g_panel, layout.rows));
  }
  made.finish();
}

// Returns the sum of squares that the step made, where they are wanted.
template <class Product>
double run_step(const PreconditionProblem& p, int64_t step, const typename Product::Value* shared,
                typename Product::Value* scratch) {
  using T = typename Product::Sum;
  [[maybe_unused]] const typename Product::Ready ready;
  const Layout<Product> layout(p);
  const int64_t first = step * layout.rows_of_step,
                last = minimum(panel_count<T>(layout.rows), first + layout.rows_of_step);
  auto* left_panel = scratch;
  auto* row_panels = left_panel + layout.g_stride;
  T* tiles = reinterpret_cast<T*>(row_panels + layout.rows_of_step * layout.row_panel());
  const int last_extent = panel_extent<T>(layout.rows, last - 1);
  if (!p.right.data) {
    Product::pack(p.left, first * kPanel<T>, left_panel);
    return multiply_out<Product>({left_panel, 0, 1, last_extent}, first, shared, layout.g_stride,
                                 layout.rows, p, tiles);
  }
  for (int64_t row = first; row < last; ++row) {
    auto* row_panel = row_panels + (row - first) * layout.row_panel();
    if (p.left.data) {
      multiply_left<Product>(p, layout, row, shared, left_panel, row_panel, tiles);
    } else {
      Product::pack(p.g, row * kPanel<T>, row_panel);
    }
  }
  return multiply_out<Product>({row_panels, layout.row_panel(), last - first, last_extent}, first,
                               shared + layout.right_offset(), layout.right_stride, layout.columns,
                               p, tiles);
}

void run(const PreconditionProblem& p, int64_t step, const void* shared, void* scratch) {
  with_product(p, [&](auto type) {
    using Product = typename decltype(type)::Product;
    using Value = typename Product::Value;
    const double squares =
        run_step<Product>(p, step, static_cast<const Value*>(shared), static_cast<Value*>(scratch));
    if (p.squares) p.squares[step] = squares;
  });
}

int operands(const PreconditionProblem& p, Operand* operands) {
  operands[0] = {p.g, false};
  operands[1] = {p.left, false};
  operands[2] = {p.right, false};
  operands[3] = {p.out, true};
  return 4;
}

bool depends_on_precision(const PreconditionProblem& p) {
#if defined(__AVX512BF16__)
  return rounds_factors(p);
#else
  (void)p;
  return false;
#endif
}

}  // namespace

extern const ProductKernel<PreconditionProblem> kPrecondition{
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
