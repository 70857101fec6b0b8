#include "csrc/core/outer.h"

#include <torch/csrc/stable/library.h>

#include <optional>

#include "csrc/cpu/kernels.h"
#include "csrc/torch/batch.h"
#include "csrc/torch/parallel.h"

namespace kronext {
namespace {

// Adds the sides of one (batched) gradient with one of its factors.
void add_sides(const char* op, const char* name, const Tensor& factor, const Tensor& g, bool left,
               double decay, double weight, std::vector<OuterSide>& sides) {
  check(g.is_cpu() && factor.is_cpu(), op, name, " and G must be on the CPU");
  check_matrices(op, "G", g);
  check_square(op, name, factor);
  check_dense(op, name, factor);
  const Dtype g_dtype = check_dtype(op, "G", g), dtype = check_factor_dtype(op, name, factor);
  const int64_t dim = g.size(g.dim() - (left ? 2 : 1));
  check(factor.size(factor.dim() - 1) == dim, op, name, " must be ", dim, " x ", dim,
        " for G of shape ", shape_text(g), " (got ", name, ".shape=", shape_text(factor), ")");
  const Shape batch = batch_shape(factor);
  check(broadcast(op, batch, batch_shape(g)) == batch, op,
        "the batch dimensions of G must broadcast to those of ", name,
        " (got G.shape=", shape_text(g), ", ", name, ".shape=", shape_text(factor), ")");
  const BatchView gradients(g, batch), factors(factor, batch);
  for (int64_t i = 0, count = element_count(batch); i < count; ++i) {
    const Matrix x = matrix_at(g, g_dtype, gradients.offset(i));
    sides.push_back(
        {left ? x : x.transposed(), matrix_at(factor, dtype, factors.offset(i)), decay, weight});
  }
}

void update(const char* op, std::vector<OuterSide>& sides) {
  std::vector<Matrix> factors;
  for (const OuterSide& side : sides) factors.push_back(side.factor);
  check_disjoint(op, std::move(factors));
  run_jobs(cpu::kernels().outer, sides);
}

void outer_update_(std::optional<Tensor> l, std::optional<Tensor> r, const Tensor g, double decay,
                   double weight) {
  std::vector<OuterSide> sides;
  check(l || r, "outer_update_", "L or R must be given (got L=None, R=None)");
  check_finite("outer_update_", "decay", decay);
  check_finite("outer_update_", "weight", weight);
  if (l) add_sides("outer_update_", "L", *l, g, true, decay, weight, sides);
  if (r) add_sides("outer_update_", "R", *r, g, false, decay, weight, sides);
  update("outer_update_", sides);
}

void outer_update_list_(std::vector<Tensor> ls, std::vector<Tensor> rs, std::vector<Tensor> gs,
                        std::vector<double> decays, std::vector<double> weights) {
  const char* op = "outer_update_list_";
  const auto fits = [&](const std::vector<Tensor>& list) {
    return list.empty() || list.size() == gs.size();
  };
  check(fits(ls) && fits(rs), op,
        "Ls and Rs must be empty or as long as Gs (got len(Ls)=", ls.size(),
        ", len(Rs)=", rs.size(), ", len(Gs)=", gs.size(), ")");
  check_scalars(op, "decay", decays, gs.size());
  check_scalars(op, "weight", weights, gs.size());
  std::vector<OuterSide> sides;
  sides.reserve(ls.size() + rs.size());
  for (size_t i = 0; i < gs.size(); ++i) {
    const double decay = scalar_at(decays, i), weight = scalar_at(weights, i);
    if (!ls.empty()) add_sides(op, "L", ls[i], gs[i], true, decay, weight, sides);
    if (!rs.empty()) add_sides(op, "R", rs[i], gs[i], false, decay, weight, sides);
  }
  update(op, sides);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(kronext, m) {
  m.def(
      "outer_update_(Tensor(a!)? L, Tensor(b!)? R, Tensor G, *, float decay, float weight) -> ()");
  m.def(
      "outer_update_list_(Tensor(a!)[] Ls, Tensor(b!)[] Rs, Tensor[] Gs, *, float[] decay, "
      "float[] weight) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(kronext, CPU, m) {
  m.impl("outer_update_", TORCH_BOX(&outer_update_));
  m.impl("outer_update_list_", TORCH_BOX(&outer_update_list_));
}

}  // namespace kronext
