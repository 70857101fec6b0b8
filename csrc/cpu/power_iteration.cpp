#include "csrc/cpu/power_iteration.h"

#include "csrc/cpu/congruence.h"
#include "csrc/cpu/kronecker_basis.h"
#include "csrc/cpu/rearranged.h"

namespace kronext::cpu::KRONEXT_CPU {
namespace {

template <class F>
auto with_float(bool is_double, const F& f) {
  return is_double ? f(double{}) : f(float{});
}

bool is_double(const Matrix& x) { return x.dtype == Dtype::kFloat64; }

// float64 anywhere in a step makes all of it float64.
template <class F>
auto with_compute(const KroneckerStep& step, const F& f) {
  const CongruenceSide &left = step.left, &right = step.right;
  return with_float(is_double(step.samples.g) || is_double(step.samples.a) || is_double(left.out) ||
                        is_double(right.out) || is_double(left.inner) || is_double(right.inner),
                    f);
}

template <class T>
bool is_identity(const T* x, int64_t dim, int64_t row_stride, int64_t column_stride) {
  for (int64_t i = 0; i < dim; ++i) {
    for (int64_t j = 0; j < dim; ++j) {
      const T wanted = i == j ? x[0] : T(0);
      if (!(x[i * row_stride + j * column_stride] == wanted)) return false;
    }
  }
  return true;
}

// Squares of the matrix are compared with their mirrors, so that both stay in the cache.
template <class T>
bool is_symmetric(const T* x, int64_t dim, int64_t row_stride, int64_t column_stride) {
  constexpr int64_t kSquare = 32;
  for (int64_t i0 = 0; i0 < dim; i0 += kSquare) {
    for (int64_t j0 = 0; j0 <= i0; j0 += kSquare) {
      const int64_t i1 = minimum(i0 + kSquare, dim), j1 = minimum(j0 + kSquare, dim);
      bool same = true;
      for (int64_t i = i0; i < i1; ++i) {
        for (int64_t j = j0; j < j1; ++j) {
          same &= x[i * row_stride + j * column_stride] == x[j * row_stride + i * column_stride];
        }
      }
      if (!same) return false;
    }
  }
  return true;
}

template <class F>
auto with_pass(const RearrangedProduct& p, const F& f) {
  const bool wide = is_double(p.left);
  switch (p.h.dtype) {
    case Dtype::kFloat64:
      return f(double{}, double{});
    case Dtype::kFloat32:
      return wide ? f(double{}, float{}) : f(float{}, float{});
    case Dtype::kBFloat16:
      return wide ? f(double{}, BFloat16{}) : f(float{}, BFloat16{});
    case Dtype::kFloat16:
      break;
  }
  return wide ? f(double{}, Float16{}) : f(float{}, Float16{});
}

void inspect(CongruenceSide& side) {
  const Matrix& b = side.inner;
  const int64_t dim = b.rows;
  with_float(b.dtype == Dtype::kFloat64, [&](auto zero) {
    using T = decltype(zero);
    const T* x = static_cast<const T*>(b.data);
    side.scale = 1;
    side.structure = Structure::kGeneral;
    if (dim == 0) return;
    if (is_identity(x, dim, b.row_stride, b.column_stride)) {
      side.structure = Structure::kIdentity;
      side.scale = double(x[0]);
    } else if (is_symmetric(x, dim, b.row_stride, b.column_stride)) {
      side.structure = Structure::kSymmetric;
    }
  });
}

void inspect_direction(CongruenceSide& side) {
  const Matrix& b = side.inner;
  const int64_t dim = b.rows;
  const double length = with_float(b.dtype == Dtype::kFloat64, [&](auto zero) {
    return norm(static_cast<const decltype(zero)*>(b.data), dim * dim);
  });
  const bool usable = length > 0 && length <= kLargest;
  side.structure = usable ? Structure::kSymmetric : Structure::kIdentity;
  side.scale = usable ? 1 / length : 1 / sqrt(double(maximum<int64_t>(1, dim)));
}

StepSizes step_sizes(const KroneckerStep& step, int64_t formers) {
  return with_compute(step, [&](auto zero) {
    using T = decltype(zero);
    const GroupLayout<T> layout(step, formers);
    return StepSizes{layout.group,
                     (layout.inner_size(0) + layout.inner_size(1)) * int64_t(sizeof(T)),
                     layout.group_size() * int64_t(sizeof(T)),
                     layout.scratch_size() * int64_t(sizeof(T)),
                     layout.sum_size(step),
                     layout.panels(0) + layout.panels(1)};
  });
}

template <class F>
auto with_group(const StepJob& job, const F& f) {
  return with_compute(*job.step,
                      [&](auto zero) { return f(CongruenceGroup<decltype(zero)>(job)); });
}

int64_t step_tasks(const StepJob& job, Stage stage) {
  return with_group(job, [&](const auto& group) { return group.tasks(stage); });
}

void step_run(const StepJob& job, Stage stage, int64_t task, void* scratch) {
  with_group(job, [&](const auto& group) { group.run(stage, task, scratch); });
}

void step_run_from(const StepJob& job, Stage stage, void* scratch) {
  with_group(job, [&](const auto& group) {
    for (; stage != Stage::kEnd; stage = Stage(int32_t(stage) + 1)) {
      for (int64_t task = 0; task < group.tasks(stage); ++task) group.run(stage, task, scratch);
    }
  });
}

void step_finish(const StepJob& job, int64_t task, int64_t slices, void* scratch) {
  with_group(job, [&](const auto& group) { group.finish(task, slices, scratch); });
}

int64_t rearranged_scratch_bytes(const RearrangedProduct& product) {
  return with_pass(product, [&](auto compute, auto source) {
    return RearrangedPass<decltype(compute), decltype(source)>::scratch_bytes(product);
  });
}

void rearranged_rows(const RearrangedProduct& product, int64_t first, int64_t last, double* right,
                     void* scratch) {
  with_pass(product, [&](auto compute, auto source) {
    RearrangedPass<decltype(compute), decltype(source)> pass(product, scratch);
    for (int64_t i = first; i < last; ++i) pass.run(i, right);
  });
}

void rearranged_finish(const RearrangedProduct& product, const double* rights, int64_t slices) {
  with_float(is_double(product.left),
             [&](auto zero) { finish_rearranged<decltype(zero)>(product, rights, slices); });
}

double orthonormalise(const Basis& basis, const Basis& previous, double* scratch) {
  return with_float(basis.dtype == Dtype::kFloat64, [&](auto zero) {
    return orthonormalise_columns<decltype(zero)>(basis, previous, scratch);
  });
}

int32_t singular_triples(const Basis& left, const Basis& right, const Basis& image, int64_t m,
                         int64_t n, double* scratch, void* sigma) {
  return with_float(image.dtype == Dtype::kFloat64, [&](auto zero) {
    using T = decltype(zero);
    return singular_triples_of<T>(left, right, image, m, n, scratch, static_cast<T*>(sigma));
  });
}

}  // namespace

extern const PowerIterationKernel kPowerIteration{
    .inspect = inspect,
    .inspect_direction = inspect_direction,
    .sizes = step_sizes,
    .tasks = step_tasks,
    .run = step_run,
    .run_from = step_run_from,
    .finish = step_finish,
    .rearranged_scratch_bytes = rearranged_scratch_bytes,
    .rearranged_rows = rearranged_rows,
    .rearranged_finish = rearranged_finish,
    .orthonormalise = orthonormalise,
    .singular_triples = singular_triples,
};

}  // namespace kronext::cpu::KRONEXT_CPU
