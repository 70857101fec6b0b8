#include "csrc/core/power_iteration.h"

#include <torch/csrc/stable/library.h>

#include <cmath>
#include <optional>
#include <tuple>

#include "csrc/torch/kronecker_step.h"
#include "csrc/torch/samples.h"

namespace kronext {
namespace {

using torch::headeronly::ScalarType;
using Pair = std::tuple<Tensor, Tensor>;
using Triples = std::tuple<Tensor, Tensor, Tensor, Tensor>;

// The weights of all samples, batch entry after batch entry.
std::vector<double> weights_of(const Tensor& weights, const Shape& batch) {
  const BatchView view(weights, batch, 1);
  const int64_t stride = weights.stride(weights.dim() - 1);
  std::vector<double> numbers;
  for (int64_t i = 0, problems = element_count(batch); i < problems; ++i) {
    for (int64_t s = 0; s < last_size(weights); ++s) {
      const void* number = address(weights, view.offset(i) + s * stride);
      numbers.push_back(weights.scalar_type() == ScalarType::Double
                            ? *static_cast<const double*>(number)
                            : *static_cast<const float*>(number));
    }
  }
  return numbers;
}

Pair multiply(const char* op, SampleTensor& samples, const Tensor& l, const Tensor& r,
              const std::optional<Tensor>& weights, int64_t count) {
  const Dtype factor = check_factors(op, l, samples.m, r, samples.n);
  const Dtype dtype = samples.result_dtype(factor);
  Shape batch = broadcast(op, samples.batch, broadcast(op, batch_shape(l), batch_shape(r)));
  if (weights) {
    check_factor_dtype(op, "weights", *weights);
    check(weights->is_cpu() && weights->dim() >= 1 && last_size(*weights) == count, op,
          "weights must have shape (..., ", count, ") (got weights.shape=", shape_text(*weights),
          ")");
    batch = broadcast(op, batch, batch_shape(*weights, 1));
  }
  samples.expand(batch);
  const Tensor left = make(with_matrix(batch, samples.m, samples.m), dtype);
  const Tensor right = make(with_matrix(batch, samples.n, samples.n), dtype);
  const BatchView ls(l, batch), rs(r, batch), lefts(left, batch), rights(right, batch);
  const std::vector<double> numbers = weights ? weights_of(*weights, batch) : std::vector<double>{};
  std::vector<KroneckerStep> steps;
  for (int64_t i = 0, problems = element_count(batch); i < problems; ++i) {
    steps.push_back(
        make_step(samples.at(i), matrix_at(l, factor, ls.offset(i)),
                  matrix_at(r, factor, rs.offset(i)), matrix_at(left, dtype, lefts.offset(i)),
                  matrix_at(right, dtype, rights.offset(i)), weights ? 1 : samples.mean_weight()));
    if (weights) steps.back().samples.weights = numbers.data() + i * count;
  }
  inspect_and_run(steps, cpu::kernels().power_iteration.inspect);
  return {left, right};
}

Pair kron_matvec(const Tensor g, const Tensor l, const Tensor r, std::optional<Tensor> weights) {
  SampleTensor samples("kron_matvec", g);
  return multiply("kron_matvec", samples, l, r, weights, g.size(g.dim() - 3));
}

Pair kron_matvec_factored(const Tensor d, const Tensor a, const Tensor l, const Tensor r,
                          std::optional<Tensor> weights) {
  SampleTensor samples("kron_matvec_factored", d, a);
  return multiply("kron_matvec_factored", samples, l, r, weights, d.size(d.dim() - 3));
}

Pair rearranged_matvec(const Tensor h, const Tensor l, const Tensor r) {
  const char* op = "rearranged_matvec";
  check_square(op, "L", l);
  check_square(op, "R", r);
  const int64_t m = last_size(l), n = last_size(r);
  const Dtype factor = check_factors(op, l, m, r, n), h_dtype = check_dense_h(op, h, m, n);
  const Dtype dtype = widest(factor, h_dtype);
  const Shape batch = broadcast(op, batch_shape(h), broadcast(op, batch_shape(l), batch_shape(r)));
  const Tensor left = make(with_matrix(batch, m, m), dtype);
  const Tensor right = make(with_matrix(batch, n, n), dtype);
  const BatchView hs(h, batch), ls(l, batch), rs(r, batch), lefts(left, batch),
      rights(right, batch);
  for (int64_t i = 0, count = element_count(batch); i < count; ++i) {
    run_rearranged({matrix_at(h, h_dtype, hs.offset(i)), matrix_at(l, factor, ls.offset(i)),
                    matrix_at(r, factor, rs.offset(i)), matrix_at(left, dtype, lefts.offset(i)),
                    matrix_at(right, dtype, rights.offset(i)), false, false});
  }
  return {left, right};
}

// The iterates of a batch: left (..., r, m, m) and right (..., r, n, n), contiguous.
struct Iterates {
  Tensor left, right;

  int64_t rank() const { return left.size(left.dim() - 3); }
  int64_t m() const { return last_size(left); }
  int64_t n() const { return last_size(right); }
  Shape batch() const { return batch_shape(left, 3); }
  Dtype dtype() const {
    return left.scalar_type() == ScalarType::Double ? Dtype::kFloat64 : Dtype::kFloat32;
  }

  Iterates like() const {
    return {torch::stable::empty_like(left), torch::stable::empty_like(right)};
  }
  Iterates clone() const { return {torch::stable::clone(left), torch::stable::clone(right)}; }
  Basis basis(bool of_left, int64_t index) const {
    const int64_t size = of_left ? m() * m() : n() * n();
    return {address(of_left ? left : right, index * rank() * size), dtype(), rank(), size};
  }
  Matrix matrix(bool of_left, int64_t index) const {
    const int64_t dim = of_left ? m() : n();
    return {address(of_left ? left : right, index * dim * dim), dtype(), dim, dim, dim, 1};
  }
};

Iterates check_iterates(const char* op, const Tensor& left, const Tensor& right) {
  for (const auto& [name, t] : {std::pair{"left", left}, {"right", right}}) {
    check_square(op, name, t);
    check_factor_dtype(op, name, t);
    check(t.is_cpu() && t.is_contiguous() && t.dim() >= 3, op, name,
          " must be contiguous (..., r, size, size) on the CPU (got ", name,
          ".shape=", shape_text(t), ")");
  }
  check(left.scalar_type() == right.scalar_type() && batch_shape(left) == batch_shape(right), op,
        "left and right must have one dtype and batch (got left.shape=", shape_text(left),
        ", right.shape=", shape_text(right), ")");
  check(left.size(left.dim() - 3) >= 1, op, "there must be at least one pair (got rank=0)");
  return {left, right};
}

// Both sides of `iterates` made orthonormal; per batch entry how far the spans turned from
// `previous`.
void normalise(const Iterates& iterates, const Iterates& previous, double* turned) {
  const int64_t count = element_count(iterates.batch()), rank = iterates.rank();
  const double entries = double(count * rank * rank) *
                         double(iterates.m() * iterates.m() + iterates.n() * iterates.n());
  std::vector<double> angles(size_t(2 * count)), scratch(size_t(2 * count * rank));
  run_tasks(2 * count, worker_count(2 * count, entries), [&](int64_t index, int64_t) {
    const bool left = index % 2 == 0;
    angles[index] = cpu::kernels().power_iteration.orthonormalise(iterates.basis(left, index / 2),
                                                                  previous.basis(left, index / 2),
                                                                  scratch.data() + index * rank);
  });
  for (int64_t i = 0; i < count; ++i) turned[i] = std::max(angles[2 * i], angles[2 * i + 1]);
}

// Singular triples from orthonormal iterates, which become them, and the image Hhat vec(right).
Triples finish(const Iterates& iterates, const Tensor& image, const double* turned,
               std::optional<double> tol) {
  Shape shape = iterates.batch();
  const int64_t count = element_count(shape), rank = iterates.rank(), m = iterates.m();
  const Tensor info = torch::stable::empty(shape, ScalarType::Int);
  shape.push_back(rank);
  const Tensor sigma = make(shape, iterates.dtype());
  std::vector<double> scratch(size_t(2 * rank * (rank + 1)));
  for (int64_t i = 0; i < count; ++i) {
    const Basis images{address(image, i * rank * m * m), iterates.dtype(), rank, m * m};
    const int32_t failed = cpu::kernels().power_iteration.singular_triples(
        iterates.basis(true, i), iterates.basis(false, i), images, m, iterates.n(), scratch.data(),
        address(sigma, i * rank));
    const bool reached = !tol || turned[i] <= *tol;
    static_cast<int32_t*>(info.data_ptr())[i] = failed ? 1 : reached ? 0 : 2;
  }
  return {iterates.left, iterates.right, sigma, info};
}

// L_k = Hhat vec(R_k-1) and R_k = HhatT vec(L_k-1), normalised, `steps` times; then one more
// product for the Rayleigh quotients of the last pairs. multiply(from, to, both) makes those
// products.
template <class Multiply>
Triples iterate(const Iterates& start, int64_t steps, std::optional<double> tol,
                const Multiply& multiply) {
  Iterates now = start.clone(), next = start.like();
  const int64_t count = element_count(start.batch());
  std::vector<double> turned(size_t(count), INFINITY), ignored(static_cast<size_t>(count));
  normalise(now, start, ignored.data());
  for (int64_t step = 0; step < steps; ++step) {
    multiply(now, next, true);
    normalise(next, now, turned.data());
    std::swap(now, next);
    if (tol && std::all_of(turned.begin(), turned.end(), [&](double t) { return t <= *tol; }))
      break;
  }
  multiply(now, next, false);
  return finish(now, next.left, turned.data(), tol);
}

Triples iterate_samples(const char* op, SampleTensor& samples, const Tensor& left,
                        const Tensor& right, int64_t steps, std::optional<double> tol) {
  const Iterates start = check_iterates(op, left, right);
  const Shape batch = start.batch();
  check(start.m() == samples.m && start.n() == samples.n &&
            samples.result_dtype(start.dtype()) == start.dtype() &&
            broadcast(op, batch, samples.batch) == batch,
        op,
        "left and right must have the sizes, batch and precision of the samples (got left.shape=",
        shape_text(left), ", right.shape=", shape_text(right), ")");
  samples.expand(batch);
  const int64_t problems = element_count(batch) * start.rank();
  return iterate(start, steps, tol, [&](const Iterates& from, const Iterates& to, bool both) {
    std::vector<KroneckerStep> products;
    for (int64_t i = 0; i < problems; ++i) {
      products.push_back(make_step(samples.at(i / start.rank()), from.matrix(true, i),
                                   from.matrix(false, i), to.matrix(true, i),
                                   both ? to.matrix(false, i) : kAbsent, samples.mean_weight()));
    }
    inspect_and_run(products, cpu::kernels().power_iteration.inspect);
  });
}

Triples power_iteration(const Tensor g, const Tensor left, const Tensor right, int64_t steps,
                        std::optional<double> tol) {
  SampleTensor samples("power_iteration", g);
  return iterate_samples("power_iteration", samples, left, right, steps, tol);
}

Triples power_iteration_factored(const Tensor d, const Tensor a, const Tensor left,
                                 const Tensor right, int64_t steps, std::optional<double> tol) {
  SampleTensor samples("power_iteration", d, a);
  return iterate_samples("power_iteration", samples, left, right, steps, tol);
}

Triples power_iteration_dense(const Tensor h, const Tensor left, const Tensor right, int64_t steps,
                              std::optional<double> tol) {
  const char* op = "power_iteration";
  const Iterates start = check_iterates(op, left, right);
  const Dtype dtype = check_dense_h(op, h, start.m(), start.n());
  const Shape batch = start.batch();
  check(widest(dtype, start.dtype()) == start.dtype() &&
            broadcast(op, batch, batch_shape(h)) == batch,
        op,
        "left and right must have the batch and precision of H (got left.shape=", shape_text(left),
        ", right.shape=", shape_text(right), ")");
  const BatchView hs(h, batch);
  const int64_t problems = element_count(batch) * start.rank();
  return iterate(start, steps, tol, [&](const Iterates& from, const Iterates& to, bool) {
    for (int64_t i = 0; i < problems; ++i) {
      run_rearranged({matrix_at(h, dtype, hs.offset(i / start.rank())), from.matrix(true, i),
                      from.matrix(false, i), to.matrix(true, i), to.matrix(false, i), false,
                      false});
    }
  });
}

// The two ends of a step for samples that come in batches: the loop over them is Python's.
std::tuple<Tensor, Tensor, Tensor> power_iteration_normalise(const Tensor left, const Tensor right,
                                                             const Tensor previous_left,
                                                             const Tensor previous_right) {
  const char* op = "power_iteration_normalise";
  const Iterates previous = check_iterates(op, previous_left, previous_right);
  const Iterates result = check_iterates(op, left, right).clone();
  check(batch_shape(left) == batch_shape(previous_left) && result.m() == previous.m() &&
            result.n() == previous.n() && result.dtype() == previous.dtype(),
        op, "left and right must be like their predecessors (got left.shape=", shape_text(left),
        ")");
  const Tensor turned = make(result.batch(), Dtype::kFloat64);
  normalise(result, previous, static_cast<double*>(turned.data_ptr()));
  return {result.left, result.right, turned};
}

Triples power_iteration_triples(const Tensor left, const Tensor right, const Tensor image,
                                const Tensor turned, std::optional<double> tol) {
  const char* op = "power_iteration_triples";
  const Iterates result = check_iterates(op, left, right).clone();
  check_iterates(op, image, right);
  check(turned.scalar_type() == ScalarType::Double && turned.is_contiguous() &&
            turned.numel() == element_count(result.batch()),
        op, "turned must be float64, one value for each batch entry (got turned.shape=",
        shape_text(turned), ")");
  return finish(result, torch::stable::clone(image), static_cast<const double*>(turned.data_ptr()),
                tol);
}

void power_iteration_list_(std::vector<Tensor> ls, std::vector<Tensor> rs, std::vector<Tensor> gs,
                           std::vector<double> decays, std::vector<double> weights) {
  const char* op = "power_iteration_list_";
  check_scalars(op, "decay", decays, gs.size());
  check_scalars(op, "weight", weights, gs.size());
  check(ls.size() == gs.size() && rs.size() == gs.size(), op,
        "Ls and Rs must be as long as Gs (got len(Ls)=", ls.size(), ", len(Rs)=", rs.size(),
        ", len(Gs)=", gs.size(), ")");
  std::vector<KroneckerStep> steps;
  for (size_t i = 0; i < gs.size(); ++i) {
    const Tensor &l = ls[i], &r = rs[i], &g = gs[i];
    check_matrices(op, "G", g);
    check(g.is_cpu(), op, "G must be on the CPU");
    const Dtype g_dtype = check_dtype(op, "G", g);
    const Dtype dtype = check_factors(op, l, g.size(g.dim() - 2), r, last_size(g));
    check_dense(op, "L", l);
    check_dense(op, "R", r);
    const Shape batch = batch_shape(l);
    check(batch == batch_shape(r) && broadcast(op, batch, batch_shape(g)) == batch, op,
          "L and R must have one batch, to which that of G broadcasts (got L.shape=", shape_text(l),
          ", R.shape=", shape_text(r), ", G.shape=", shape_text(g), ")");
    const BatchView lefts(l, batch), rights(r, batch), gradients(g, batch);
    for (int64_t b = 0, count = element_count(batch); b < count; ++b) {
      const Samples samples{
          matrix_at(g, g_dtype, gradients.offset(b)), kAbsent, false, 0, 0, 1, nullptr};
      const Matrix left = matrix_at(l, dtype, lefts.offset(b)),
                   right = matrix_at(r, dtype, rights.offset(b));
      steps.push_back(make_step(samples, left, right, left, right, scalar_at(weights, i)));
      steps.back().decay = scalar_at(decays, i);
    }
  }
  std::vector<Matrix> factors;
  for (const KroneckerStep& step : steps) {
    factors.push_back(step.left.out);
    factors.push_back(step.right.out);
  }
  check_disjoint(op, std::move(factors));
  inspect_and_run(steps, cpu::kernels().power_iteration.inspect_direction);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(kronext, m) {
  m.def("kron_matvec(Tensor G, Tensor L, Tensor R, *, Tensor? weights) -> (Tensor, Tensor)");
  m.def(
      "kron_matvec_factored(Tensor D, Tensor A, Tensor L, Tensor R, *, Tensor? weights) -> "
      "(Tensor, Tensor)");
  m.def("rearranged_matvec(Tensor H, Tensor L, Tensor R) -> (Tensor, Tensor)");
  m.def(
      "power_iteration(Tensor G, Tensor left, Tensor right, *, int steps, float? tol) -> "
      "(Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "power_iteration_factored(Tensor D, Tensor A, Tensor left, Tensor right, *, int steps, "
      "float? tol) -> (Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "power_iteration_dense(Tensor H, Tensor left, Tensor right, *, int steps, float? tol) -> "
      "(Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "power_iteration_normalise(Tensor left, Tensor right, Tensor previous_left, "
      "Tensor previous_right) -> (Tensor, Tensor, Tensor)");
  m.def(
      "power_iteration_triples(Tensor left, Tensor right, Tensor image, Tensor turned, *, "
      "float? tol) -> (Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "power_iteration_list_(Tensor(a!)[] Ls, Tensor(b!)[] Rs, Tensor[] Gs, *, float[] decay, "
      "float[] weight) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(kronext, CPU, m) {
  m.impl("kron_matvec", TORCH_BOX(&kron_matvec));
  m.impl("kron_matvec_factored", TORCH_BOX(&kron_matvec_factored));
  m.impl("rearranged_matvec", TORCH_BOX(&rearranged_matvec));
  m.impl("power_iteration", TORCH_BOX(&power_iteration));
  m.impl("power_iteration_factored", TORCH_BOX(&power_iteration_factored));
  m.impl("power_iteration_dense", TORCH_BOX(&power_iteration_dense));
  m.impl("power_iteration_normalise", TORCH_BOX(&power_iteration_normalise));
  m.impl("power_iteration_triples", TORCH_BOX(&power_iteration_triples));
  m.impl("power_iteration_list_", TORCH_BOX(&power_iteration_list_));
}

}  // namespace kronext
