#include "csrc/cpu/precondition.h"

#include "csrc/cpu/product.h"

namespace kronext::cpu::KRONEXT_CPU {
namespace {

template <class Compute>
struct Type {
  using T = Compute;
};

// The output has the widest dtype of the operands, and float64 anywhere makes it float64.
template <class F>
auto with_type(const PreconditionProblem& p, const F& f) {
  if (p.out.dtype == Dtype::kFloat64) return f(Type<double>{});
  return f(Type<float>{});
}

// Each step reads all of right. Where that is more than the second-level cache holds, up to four
// row panels share what comes from memory, as long as there remain steps for four threads.
constexpr int64_t kCachedRight = 1 << 20;
constexpr int64_t kMaxRowsOfStep = 4, kMinSteps = 4;

// Where the packed operands lie, in values of the compute type.
template <class T>
struct Layout {
  int64_t rows, columns;  // of G
  int64_t g_panels;       // columns of G, with their depth m: only where left multiplies them
  int64_t g_stride;
  int64_t right_panels;  // columns of right, depth n
  int64_t right_stride;
  int64_t row_panel;  // one packed row panel of G or of left G, depth n
  int64_t rows_of_step;

  explicit Layout(const PreconditionProblem& p)
      : rows(p.g.rows),
        columns(p.g.columns),
        g_panels(p.left.data ? panel_count<T>(columns) : 0),
        g_stride(panel_stride<T>(rows)),
        right_panels(p.right.data ? panel_count<T>(columns) : 0),
        right_stride(panel_stride<T>(columns)),
        row_panel(panel_count<T>(columns) * kTileSize<T>),
        rows_of_step(1) {
    if (right_panels * right_stride * int64_t(sizeof(T)) > kCachedRight) {
      const int64_t shared = panel_count<T>(rows) / kMinSteps;
      rows_of_step = maximum<int64_t>(1, minimum(shared, kMaxRowsOfStep));
    }
  }

  int64_t steps() const { return ceil_divide(panel_count<T>(rows), rows_of_step); }
  int64_t right_offset() const { return g_panels * g_stride; }
  int64_t shared() const { return right_offset() + right_panels * right_stride; }
  int64_t scratch() const {
    return panel_stride<T>(rows) + rows_of_step * (row_panel + kMaxStripTiles * kTileSize<T>);
  }
};

double work(const PreconditionProblem& p) {
  const double sides =
      (p.left.data ? double(p.g.rows) : 0) + (p.right.data ? double(p.g.columns) : 0);
  return double(p.g.rows) * double(p.g.columns) * (sides + 1);
}

int64_t shared_bytes(const PreconditionProblem& p) {
  return with_type(p, [&](auto type) {
    using T = typename decltype(type)::T;
    return Layout<T>(p).shared() * int64_t(sizeof(T));
  });
}

int64_t scratch_bytes(const PreconditionProblem& p) {
  return with_type(p, [&](auto type) {
    using T = typename decltype(type)::T;
    return Layout<T>(p).scratch() * int64_t(sizeof(T));
  });
}

int64_t pack_steps(const PreconditionProblem& p) {
  return with_type(p, [&](auto type) {
    const Layout<typename decltype(type)::T> layout(p);
    return layout.g_panels + layout.right_panels;
  });
}

int64_t steps(const PreconditionProblem& p) {
  return with_type(p, [&](auto type) { return Layout<typename decltype(type)::T>(p).steps(); });
}

void pack(const PreconditionProblem& p, int64_t step, void* shared) {
  with_type(p, [&](auto type) {
    using T = typename decltype(type)::T;
    const Layout<T> layout(p);
    T* panels = static_cast<T*>(shared);
    if (step < layout.g_panels) {
      pack_panel<T>(p.g.transposed(), step * kPanel<T>, panels + step * layout.g_stride);
    } else {
      const int64_t panel = step - layout.g_panels;
      pack_panel<T>(p.right.transposed(), panel * kPanel<T>,
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
template <class T>
double multiply_out(const PanelRun<T>& rows, int64_t row, const T* columns, int64_t stride,
                    int64_t depth, const PreconditionProblem& p, T* tiles) {
  const Matrix& out = p.out;
  const int64_t count = panel_count<T>(out.columns);
  double squares = 0;
  const int64_t width = strip_width(stride * int64_t(sizeof(T)));
  for (int64_t first = 0; first < count; first += width) {
    const int64_t last = minimum(count, first + width);
    multiply_block<T>(
        rows,
        {columns + first * stride, stride, last - first, panel_extent<T>(out.columns, last - 1)},
        depth, false, tiles);
    const T* tile = tiles;
    for (int64_t r = 0; r < rows.count; ++r) {
      for (int64_t column = first; column < last; ++column, tile += kTileSize<T>) {
        write_tile(tile, out, row + r, column);
        if (!p.squares) continue;
        squares += square_tile(tile, panel_extent<T>(out.rows, row + r),
                               panel_extent<T>(out.columns, column));
      }
    }
  }
  return squares;
}

// Row panel `row` of left G, packed.
template <class T>
void multiply_left(const PreconditionProblem& p, const Layout<T>& layout, int64_t row,
                   const T* g_panels, T* left_panel, T* row_panel) {
  pack_panel<T>(p.left, row * kPanel<T>, left_panel);
  for (int64_t column = 0; column < layout.g_panels; ++column) {
    multiply_strip(g_panels + column * layout.g_stride, left_panel, 0, layout.rows, 1,
                   panel_extent<T>(layout.columns, column), panel_extent<T>(layout.rows, row),
                   false, row_panel + column * kTileSize<T>);
  }
}

// Returns the sum of squares that the step made, where they are wanted.
template <class T>
double run_step(const PreconditionProblem& p, int64_t step, const T* shared, T* scratch) {
  const Layout<T> layout(p);
  const int64_t first = step * layout.rows_of_step,
                last = minimum(panel_count<T>(layout.rows), first + layout.rows_of_step);
  T* left_panel = scratch;
  T* row_panels = left_panel + panel_stride<T>(layout.rows);
  T* tiles = row_panels + layout.rows_of_step * layout.row_panel;
  const int last_extent = panel_extent<T>(layout.rows, last - 1);
  if (!p.right.data) {
    pack_panel<T>(p.left, first * kPanel<T>, left_panel);
    return multiply_out<T>({left_panel, 0, 1, last_extent}, first, shared, layout.g_stride,
                           layout.rows, p, tiles);
  }
  for (int64_t row = first; row < last; ++row) {
    T* row_panel = row_panels + (row - first) * layout.row_panel;
    if (p.left.data) {
      multiply_left(p, layout, row, shared, left_panel, row_panel);
    } else {
      pack_panel<T>(p.g, row * kPanel<T>, row_panel);
    }
  }
  return multiply_out<T>({row_panels, layout.row_panel, last - first, last_extent}, first,
                         shared + layout.right_offset(), layout.right_stride, layout.columns, p,
                         tiles);
}

void run(const PreconditionProblem& p, int64_t step, const void* shared, void* scratch) {
  with_type(p, [&](auto type) {
    using T = typename decltype(type)::T;
    const double squares =
        run_step<T>(p, step, static_cast<const T*>(shared), static_cast<T*>(scratch));
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

}  // namespace

extern const JobKernel<PreconditionProblem> kPrecondition{
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
