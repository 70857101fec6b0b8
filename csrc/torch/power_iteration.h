// Products with the rearranged matrix of H and power iteration on it, for every device: checks,
// outputs, and the problems that a device's kernels solve.
#pragma once

#include "csrc/core/power_iteration.h"

#include <optional>
#include <tuple>

#include "csrc/torch/samples.h"

namespace kronext {

using Pair = std::tuple<Tensor, Tensor>;
using Triples = std::tuple<Tensor, Tensor, Tensor, Tensor>;

// The iterates of a batch: left (..., r, m, m) and right (..., r, n, n), contiguous.
struct Iterates {
  Tensor left, right;

  int64_t rank() const { return left.size(left.dim() - 3); }
  int64_t m() const { return last_size(left); }
  int64_t n() const { return last_size(right); }
  Shape batch() const { return batch_shape(left, 3); }
  int64_t count() const { return element_count(batch()); }
  Dtype dtype() const {
    return left.scalar_type() == torch::headeronly::ScalarType::Double ? Dtype::kFloat64
                                                                       : Dtype::kFloat32;
  }

  Iterates like() const {
    return {torch::stable::empty_like(left), torch::stable::empty_like(right)};
  }
  Iterates clone() const { return {torch::stable::clone(left), torch::stable::clone(right)}; }
};

// H of each batch entry, as the mean over samples or dense, and where its singular triples start.
struct Iteration {
  const char* op;
  Iterates start;
  std::vector<Samples> samples;
  std::vector<Matrix> dense;
  int64_t steps;
  std::optional<double> tol;
};

// What each device brings of its own; results are on the device of the arguments.
struct PowerIterationDevice {
  // Steps of any shapes, on the device of `where`.
  void (*multiply)(const char* op, const Tensor& where, const std::vector<WeightedStep>& steps,
                   Inspection inspection);
  // Products of the same dtypes; their symmetric flags are found out.
  void (*multiply_dense)(const char* op, const Tensor& where,
                         const std::vector<RearrangedProduct>& products);
  // Both sides made orthonormal in place; per batch entry how far the spans turned from `previous`.
  void (*normalise)(const char* op, const Iterates& iterates, const Iterates& previous,
                    const Tensor& turned);
  // Orthonormal left and right become singular triples, with sigma and info; `image` is Hhat
  // vec(right), and is overwritten.
  void (*find_triples)(const char* op, const Triples& results, const Tensor& image,
                       const Tensor& turned, std::optional<double> tol);
  // L_k = Hhat vec(R_k-1) and R_k = HhatT vec(L_k-1), normalised, `steps` times; then one more
  // product for the Rayleigh quotients of the last pairs.
  Triples (*iterate)(const Iteration& iteration);
};

// ---- products ----------------------------------------------------------------------------------

// A side without data in its result is not wanted.
inline KroneckerStep make_step(const Samples& samples, const Matrix& l, const Matrix& r,
                               const Matrix& left, const Matrix& right, double weight) {
  return {
      samples, {r, left, Structure::kGeneral, 1}, {l, right, Structure::kGeneral, 1}, 0, weight};
}

template <const PowerIterationDevice& device>
Pair multiply(const char* op, SampleTensor& samples, const Tensor& l, const Tensor& r,
              const std::optional<Tensor>& weights, int64_t count) {
  const Tensor& first = samples.first();
  const Dtype factor = check_factors(op, l, samples.m, r, samples.n, samples.name, first);
  const Dtype dtype = samples.result_dtype(factor);
  Shape batch = broadcast(op, samples.batch, broadcast(op, batch_shape(l), batch_shape(r)));
  Dtype weights_dtype = Dtype::kFloat32;
  if (weights) {
    weights_dtype = check_factor_dtype(op, "weights", *weights);
    check_same_device(op, "weights", *weights, samples.name, first);
    check(weights->dim() >= 1 && last_size(*weights) == count, op, "weights must have shape (..., ",
          count, ") (got weights.shape=", shape_text(*weights), ")");
    batch = broadcast(op, batch, batch_shape(*weights, 1));
  }
  samples.expand(batch);
  const Tensor left = empty_on(first, with_matrix(batch, samples.m, samples.m), scalar_type(dtype));
  const Tensor right =
      empty_on(first, with_matrix(batch, samples.n, samples.n), scalar_type(dtype));
  const BatchView ls(l, batch), rs(r, batch), lefts(left, batch), rights(right, batch);
  const BatchView weights_view(weights ? *weights : l, batch, weights ? 1 : 2);
  std::vector<WeightedStep> steps;
  for (int64_t i = 0, problems = element_count(batch); i < problems; ++i) {
    steps.push_back({make_step(
        samples.at(i), matrix_at(l, factor, ls.offset(i)), matrix_at(r, factor, rs.offset(i)),
        matrix_at(left, dtype, lefts.offset(i)), matrix_at(right, dtype, rights.offset(i)),
        weights ? 1 : samples.mean_weight())});
    if (!weights) continue;
    steps.back().weights = address(*weights, weights_view.offset(i));
    steps.back().weights_dtype = weights_dtype;
    steps.back().weights_stride = weights->stride(weights->dim() - 1);
  }
  device.multiply(op, first, steps, Inspection::kStructure);
  return {left, right};
}

template <const PowerIterationDevice& device>
Pair kron_matvec(const Tensor g, const Tensor l, const Tensor r, std::optional<Tensor> weights) {
  SampleTensor samples("kron_matvec", g);
  return multiply<device>("kron_matvec", samples, l, r, weights, g.size(g.dim() - 3));
}

template <const PowerIterationDevice& device>
Pair kron_matvec_factored(const Tensor d, const Tensor a, const Tensor l, const Tensor r,
                          std::optional<Tensor> weights) {
  SampleTensor samples("kron_matvec_factored", d, a);
  return multiply<device>("kron_matvec_factored", samples, l, r, weights, d.size(d.dim() - 3));
}

template <const PowerIterationDevice& device>
Pair rearranged_matvec(const Tensor h, const Tensor l, const Tensor r) {
  const char* op = "rearranged_matvec";
  check_square(op, "L", l);
  check_square(op, "R", r);
  const int64_t m = last_size(l), n = last_size(r);
  const Dtype factor = check_factors(op, l, m, r, n, "H", h), h_dtype = check_dense_h(op, h, m, n);
  const Dtype dtype = widest(factor, h_dtype);
  const Shape batch = broadcast(op, batch_shape(h), broadcast(op, batch_shape(l), batch_shape(r)));
  const Tensor left = empty_on(h, with_matrix(batch, m, m), scalar_type(dtype));
  const Tensor right = empty_on(h, with_matrix(batch, n, n), scalar_type(dtype));
  const BatchView hs(h, batch), ls(l, batch), rs(r, batch), lefts(left, batch),
      rights(right, batch);
  std::vector<RearrangedProduct> products;
  for (int64_t i = 0, count = element_count(batch); i < count; ++i) {
    products.push_back({matrix_at(h, h_dtype, hs.offset(i)), matrix_at(l, factor, ls.offset(i)),
                        matrix_at(r, factor, rs.offset(i)), matrix_at(left, dtype, lefts.offset(i)),
                        matrix_at(right, dtype, rights.offset(i)), false, false});
  }
  device.multiply_dense(op, h, products);
  return {left, right};
}

template <const PowerIterationDevice& device>
void power_iteration_list_(std::vector<Tensor> ls, std::vector<Tensor> rs, std::vector<Tensor> gs,
                           std::vector<double> decays, std::vector<double> weights) {
  const char* op = "power_iteration_list_";
  check_scalars(op, "decay", decays, gs.size());
  check_scalars(op, "weight", weights, gs.size());
  check(ls.size() == gs.size() && rs.size() == gs.size(), op,
        "Ls and Rs must be as long as Gs (got len(Ls)=", ls.size(), ", len(Rs)=", rs.size(),
        ", len(Gs)=", gs.size(), ")");
  std::vector<WeightedStep> steps;
  for (size_t i = 0; i < gs.size(); ++i) {
    const Tensor &l = ls[i], &r = rs[i], &g = gs[i];
    check_matrices(op, "G", g);
    check_same_device(op, "G", g, "the first G", gs[0]);
    const Dtype g_dtype = check_dtype(op, "G", g);
    const Dtype dtype = check_factors(op, l, g.size(g.dim() - 2), r, last_size(g), "G", g);
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
      steps.push_back({make_step(samples, left, right, left, right, scalar_at(weights, i))});
      steps.back().step.decay = scalar_at(decays, i);
    }
  }
  std::vector<Matrix> factors;
  for (const WeightedStep& weighted : steps) {
    factors.push_back(weighted.step.left.out);
    factors.push_back(weighted.step.right.out);
  }
  check_disjoint(op, factors);
  if (!gs.empty()) device.multiply(op, gs[0], steps, Inspection::kDirection);
}

// ---- iteration ---------------------------------------------------------------------------------

inline Iterates check_iterates(const char* op, const Tensor& left, const Tensor& right) {
  for (const auto& [name, t] : {std::pair{"left", left}, {"right", right}}) {
    check_square(op, name, t);
    check_factor_dtype(op, name, t);
    check(t.is_contiguous() && t.dim() >= 3, op, name,
          " must be contiguous (..., r, size, size) (got ", name, ".shape=", shape_text(t), ")");
  }
  check_same_device(op, "right", right, "left", left);
  check(left.scalar_type() == right.scalar_type() && batch_shape(left) == batch_shape(right), op,
        "left and right must have one dtype and batch (got left.shape=", shape_text(left),
        ", right.shape=", shape_text(right), ")");
  check(left.size(left.dim() - 3) >= 1, op, "there must be at least one pair (got rank=0)");
  return {left, right};
}

// The singular triples that iterates become, and what is not known of them yet.
inline Triples with_sigma_and_info(const Iterates& iterates) {
  Shape shape = iterates.batch();
  const Tensor info = empty_on(iterates.left, shape, torch::headeronly::ScalarType::Int);
  shape.push_back(iterates.rank());
  const Tensor sigma = empty_on(iterates.left, shape, scalar_type(iterates.dtype()));
  return {iterates.left, iterates.right, sigma, info};
}

template <const PowerIterationDevice& device>
Triples iterate_samples(SampleTensor& samples, const Tensor& left, const Tensor& right,
                        int64_t steps, std::optional<double> tol) {
  const char* op = "power_iteration";
  const Iterates start = check_iterates(op, left, right);
  const Shape batch = start.batch();
  check_same_device(op, "left", left, samples.name, samples.first());
  check(start.m() == samples.m && start.n() == samples.n &&
            samples.result_dtype(start.dtype()) == start.dtype() &&
            broadcast(op, batch, samples.batch) == batch,
        op,
        "left and right must have the sizes, batch and precision of the samples (got left.shape=",
        shape_text(left), ", right.shape=", shape_text(right), ")");
  samples.expand(batch);
  Iteration iteration{op, start, {}, {}, steps, tol};
  for (int64_t i = 0; i < start.count(); ++i) iteration.samples.push_back(samples.at(i));
  return device.iterate(iteration);
}

template <const PowerIterationDevice& device>
Triples power_iteration(const Tensor g, const Tensor left, const Tensor right, int64_t steps,
                        std::optional<double> tol) {
  SampleTensor samples("power_iteration", g);
  return iterate_samples<device>(samples, left, right, steps, tol);
}

template <const PowerIterationDevice& device>
Triples power_iteration_factored(const Tensor d, const Tensor a, const Tensor left,
                                 const Tensor right, int64_t steps, std::optional<double> tol) {
  SampleTensor samples("power_iteration", d, a);
  return iterate_samples<device>(samples, left, right, steps, tol);
}

template <const PowerIterationDevice& device>
Triples power_iteration_dense(const Tensor h, const Tensor left, const Tensor right, int64_t steps,
                              std::optional<double> tol) {
  const char* op = "power_iteration";
  const Iterates start = check_iterates(op, left, right);
  const Dtype dtype = check_dense_h(op, h, start.m(), start.n());
  const Shape batch = start.batch();
  check_same_device(op, "left", left, "H", h);
  check(widest(dtype, start.dtype()) == start.dtype() &&
            broadcast(op, batch, batch_shape(h)) == batch,
        op,
        "left and right must have the batch and precision of H (got left.shape=", shape_text(left),
        ", right.shape=", shape_text(right), ")");
  const BatchView hs(h, batch);
  Iteration iteration{op, start, {}, {}, steps, tol};
  for (int64_t i = 0; i < start.count(); ++i) {
    iteration.dense.push_back(matrix_at(h, dtype, hs.offset(i)));
  }
  return device.iterate(iteration);
}

// The two ends of a step for samples that come in batches: the loop over them is Python's.
template <const PowerIterationDevice& device>
std::tuple<Tensor, Tensor, Tensor> power_iteration_normalise(const Tensor left, const Tensor right,
                                                             const Tensor previous_left,
                                                             const Tensor previous_right) {
  const char* op = "power_iteration_normalise";
  const Iterates previous = check_iterates(op, previous_left, previous_right);
  check_same_device(op, "left", left, "previous_left", previous_left);
  const Iterates given = check_iterates(op, left, right);
  check(same_shape(left, previous_left) && same_shape(right, previous_right) &&
            given.dtype() == previous.dtype(),
        op, "left and right must be like their predecessors (got left.shape=", shape_text(left),
        ")");
  const Iterates result = given.clone();
  const Tensor turned = empty_on(left, result.batch(), torch::headeronly::ScalarType::Double);
  device.normalise(op, result, previous, turned);
  return {result.left, result.right, turned};
}

template <const PowerIterationDevice& device>
Triples power_iteration_triples(const Tensor left, const Tensor right, const Tensor image,
                                const Tensor turned, std::optional<double> tol) {
  const char* op = "power_iteration_triples";
  const Iterates given = check_iterates(op, left, right);
  check_same_device(op, "image", image, "left", left);
  check_same_device(op, "turned", turned, "left", left);
  check(
      same_shape(image, left) && image.scalar_type() == left.scalar_type() && image.is_contiguous(),
      op, "image must be contiguous and like left (got image.shape=", shape_text(image), ")");
  check(turned.scalar_type() == torch::headeronly::ScalarType::Double && turned.is_contiguous() &&
            turned.numel() == given.count(),
        op, "turned must be float64, one value for each batch entry (got turned.shape=",
        shape_text(turned), ")");
  const Triples results = with_sigma_and_info(given.clone());
  device.find_triples(op, results, torch::stable::clone(image), turned, tol);
  return results;
}

}  // namespace kronext
