#include "csrc/core/precondition.h"

#include <torch/csrc/stable/library.h>

#include <optional>

#include "csrc/cpu/kernels.h"
#include "csrc/torch/batch.h"
#include "csrc/torch/parallel.h"

namespace kronext {
namespace {

using torch::headeronly::ScalarType;

// Checks one (batched) product, makes its output and adds its problems.
Tensor add_problems(const char* op, const Tensor& g, const std::optional<Tensor>& left,
                    const std::optional<Tensor>& right,
                    std::vector<PreconditionProblem>& problems) {
  check_matrices(op, "G", g);
  check(g.is_cpu(), op, "G must be on the CPU");
  check(left || right, op, "left or right must be given (got left=None, right=None)");
  const Dtype g_dtype = check_dtype(op, "G", g);
  const int64_t m = g.size(g.dim() - 2), n = g.size(g.dim() - 1);
  Shape batch = batch_shape(g);
  bool wide = g_dtype == Dtype::kFloat64;
  const auto check_side = [&](const char* name, const Tensor& t, int64_t size) {
    check_square(op, name, t);
    check(t.is_cpu(), op, name, " must be on the CPU");
    check(t.size(t.dim() - 1) == size, op, name, " must be ", size, " x ", size, " for G of shape ",
          shape_text(g), " (got ", name, ".shape=", shape_text(t), ")");
    wide |= check_factor_dtype(op, name, t) == Dtype::kFloat64;
    batch = broadcast(op, batch, batch_shape(t));
  };
  if (left) check_side("left", *left, m);
  if (right) check_side("right", *right, n);

  const Tensor out =
      torch::stable::empty(with_matrix(batch, m, n), wide ? ScalarType::Double : ScalarType::Float);
  const BatchView gs(g, batch), outs(out, batch);
  const BatchView lefts(left ? *left : g, batch), rights(right ? *right : g, batch);
  const auto side_at = [&](const std::optional<Tensor>& t, const BatchView& view, int64_t i) {
    return t ? matrix_at(*t, check_dtype(op, "factor", *t), view.offset(i)) : Matrix{};
  };
  for (int64_t i = 0, count = element_count(batch); i < count; ++i) {
    problems.push_back({matrix_at(g, g_dtype, gs.offset(i)), side_at(left, lefts, i),
                        side_at(right, rights, i),
                        matrix_at(out, wide ? Dtype::kFloat64 : Dtype::kFloat32, outs.offset(i))});
  }
  return out;
}

Tensor precondition(const Tensor g, std::optional<Tensor> left, std::optional<Tensor> right) {
  std::vector<PreconditionProblem> problems;
  const Tensor out = add_problems("precondition", g, left, right, problems);
  run_jobs(cpu::kernels().precondition, problems);
  return out;
}

std::vector<Tensor> precondition_list(std::vector<Tensor> gs, std::vector<Tensor> lefts,
                                      std::vector<Tensor> rights) {
  const char* op = "precondition_list";
  const auto fits = [&](const std::vector<Tensor>& list) {
    return list.empty() || list.size() == gs.size();
  };
  check(fits(lefts) && fits(rights), op,
        "lefts and rights must be empty or as long as Gs (got len(lefts)=", lefts.size(),
        ", len(rights)=", rights.size(), ", len(Gs)=", gs.size(), ")");
  std::vector<PreconditionProblem> problems;
  std::vector<Tensor> outs;
  for (size_t i = 0; i < gs.size(); ++i) {
    const auto side = [&](const std::vector<Tensor>& list) {
      return list.empty() ? std::nullopt : std::optional<Tensor>(list[i]);
    };
    outs.push_back(add_problems(op, gs[i], side(lefts), side(rights), problems));
  }
  run_jobs(cpu::kernels().precondition, problems);
  return outs;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(kronext, m) {
  m.def("precondition(Tensor G, Tensor? left, Tensor? right) -> Tensor");
  m.def("precondition_list(Tensor[] Gs, Tensor[] lefts, Tensor[] rights) -> Tensor[]");
}

STABLE_TORCH_LIBRARY_IMPL(kronext, CPU, m) {
  m.impl("precondition", TORCH_BOX(&precondition));
  m.impl("precondition_list", TORCH_BOX(&precondition_list));
}

}  // namespace kronext
