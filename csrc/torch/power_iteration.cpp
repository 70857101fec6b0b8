#include "csrc/torch/power_iteration.h"

#include <torch/csrc/stable/library.h>

#include <cmath>

#include "csrc/torch/kronecker_step.h"

namespace kronext {
namespace {

// The weights of all samples of all steps, in float64.
std::vector<double> wide_weights(const std::vector<WeightedStep>& steps) {
  std::vector<double> numbers;
  for (const WeightedStep& step : steps) {
    for (int64_t s = 0; step.weights && s < step.step.samples.count; ++s) {
      const int64_t at = s * step.weights_stride;
      numbers.push_back(step.weights_dtype == Dtype::kFloat64
                            ? static_cast<const double*>(step.weights)[at]
                            : double(static_cast<const float*>(step.weights)[at]));
    }
  }
  return numbers;
}

void multiply(const char*, const Tensor&, const std::vector<WeightedStep>& given,
              Inspection inspection) {
  const std::vector<double> numbers = wide_weights(given);
  const double* weights = numbers.data();
  std::vector<KroneckerStep> steps;
  for (const WeightedStep& step : given) {
    steps.push_back(step.step);
    if (!step.weights) continue;
    steps.back().samples.weights = weights;
    weights += step.step.samples.count;
  }
  inspect_and_run(steps, inspection);
}

void multiply_dense(const char*, const Tensor&, const std::vector<RearrangedProduct>& products) {
  for (const RearrangedProduct& product : products) run_rearranged(product);
}

Basis basis_of(const Tensor& iterates, Dtype dtype, int64_t index) {
  const int64_t rank = iterates.size(iterates.dim() - 3), dim = last_size(iterates);
  return {address(iterates, index * rank * dim * dim), dtype, rank, dim * dim};
}

void normalise(const char*, const Iterates& iterates, const Iterates& previous,
               const Tensor& turned) {
  const int64_t count = iterates.count(), rank = iterates.rank();
  const double entries = double(count * rank * rank) *
                         double(iterates.m() * iterates.m() + iterates.n() * iterates.n());
  std::vector<double> angles(size_t(2 * count)), scratch(size_t(2 * count * rank));
  run_tasks(2 * count, worker_count(2 * count, entries), [&](int64_t index, int64_t) {
    const bool left = index % 2 == 0;
    const auto basis = [&](const Iterates& of) {
      return basis_of(left ? of.left : of.right, of.dtype(), index / 2);
    };
    angles[index] = cpu::kernels().power_iteration.orthonormalise(basis(iterates), basis(previous),
                                                                  scratch.data() + index * rank);
  });
  for (int64_t i = 0; i < count; ++i) {
    static_cast<double*>(turned.data_ptr())[i] = std::max(angles[2 * i], angles[2 * i + 1]);
  }
}

bool all_within(const Tensor& turned, double tol) {
  const double* values = static_cast<const double*>(turned.data_ptr());
  return std::all_of(values, values + turned.numel(), [&](double t) { return t <= tol; });
}

void find_triples(const char*, const Triples& results, const Tensor& image, const Tensor& turned,
                  std::optional<double> tol) {
  const auto& [left, right, sigma, info] = results;
  const Iterates iterates{left, right};
  const int64_t rank = iterates.rank();
  const Dtype dtype = iterates.dtype();
  std::vector<double> scratch(size_t(2 * rank * (rank + 1)));
  for (int64_t i = 0, count = iterates.count(); i < count; ++i) {
    const int32_t failed = cpu::kernels().power_iteration.singular_triples(
        basis_of(left, dtype, i), basis_of(right, dtype, i), basis_of(image, dtype, i),
        iterates.m(), iterates.n(), scratch.data(), address(sigma, i * rank));
    const bool reached = !tol || static_cast<const double*>(turned.data_ptr())[i] <= *tol;
    static_cast<int32_t*>(info.data_ptr())[i] = failed ? 1 : reached ? 0 : 2;
  }
}

Matrix iterate_at(const Tensor& iterates, Dtype dtype, int64_t index) {
  const int64_t dim = last_size(iterates);
  return {address(iterates, index * dim * dim), dtype, dim, dim, dim, 1};
}

// Hhat times each right and HhatT times each left iterate; of samples without `both` only the
// former.
void multiply_iterates(const Iteration& iteration, const Iterates& from, const Iterates& to,
                       bool both) {
  const Dtype dtype = from.dtype();
  const int64_t rank = from.rank(), problems = from.count() * rank;
  std::vector<KroneckerStep> steps;
  for (int64_t i = 0; i < problems; ++i) {
    const Matrix l = iterate_at(from.left, dtype, i), r = iterate_at(from.right, dtype, i);
    const Matrix left = iterate_at(to.left, dtype, i), right = iterate_at(to.right, dtype, i);
    if (iteration.samples.empty()) {
      run_rearranged({iteration.dense[size_t(i / rank)], l, r, left, right, false, false});
      continue;
    }
    const Samples& samples = iteration.samples[size_t(i / rank)];
    const double weight = samples.count ? 1 / double(samples.count) : 0;
    steps.push_back(make_step(samples, l, r, left, both ? right : kAbsent, weight));
  }
  inspect_and_run(steps, Inspection::kStructure);
}

Triples iterate(const Iteration& iteration) {
  const Iterates& start = iteration.start;
  Iterates now = start.clone(), next = start.like();
  const Tensor turned = empty_on(start.left, start.batch(), scalar_type(Dtype::kFloat64));
  normalise(iteration.op, now, start, turned);
  std::fill_n(static_cast<double*>(turned.data_ptr()), turned.numel(), HUGE_VAL);
  for (int64_t step = 0; step < iteration.steps; ++step) {
    multiply_iterates(iteration, now, next, true);
    normalise(iteration.op, next, now, turned);
    std::swap(now, next);
    if (iteration.tol && all_within(turned, *iteration.tol)) break;
  }
  multiply_iterates(iteration, now, next, false);
  const Triples results = with_sigma_and_info(now);
  find_triples(iteration.op, results, next.left, turned, iteration.tol);
  return results;
}

constexpr PowerIterationDevice kCpu{multiply, multiply_dense, normalise, find_triples, iterate};

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
  m.impl("kron_matvec", TORCH_BOX(&kron_matvec<kCpu>));
  m.impl("kron_matvec_factored", TORCH_BOX(&kron_matvec_factored<kCpu>));
  m.impl("rearranged_matvec", TORCH_BOX(&rearranged_matvec<kCpu>));
  m.impl("power_iteration", TORCH_BOX(&power_iteration<kCpu>));
  m.impl("power_iteration_factored", TORCH_BOX(&power_iteration_factored<kCpu>));
  m.impl("power_iteration_dense", TORCH_BOX(&power_iteration_dense<kCpu>));
  m.impl("power_iteration_normalise", TORCH_BOX(&power_iteration_normalise<kCpu>));
  m.impl("power_iteration_triples", TORCH_BOX(&power_iteration_triples<kCpu>));
  m.impl("power_iteration_list_", TORCH_BOX(&power_iteration_list_<kCpu>));
}

}  // namespace kronext
