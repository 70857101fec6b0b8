// precondition for every device: checks, outputs, and the list of products that a device makes.
#pragma once

#include "csrc/core/precondition.h"

#include <optional>
#include <tuple>

#include "csrc/torch/batch.h"

namespace kronext {

// Checks one (batched) product, makes its output and adds its problems.
inline Tensor add_problems(const char* op, const Tensor& g, const std::optional<Tensor>& left,
                           const std::optional<Tensor>& right,
                           std::vector<PreconditionProblem>& problems) {
  using torch::headeronly::ScalarType;
  check_matrices(op, "G", g);
  check(left || right, op, "left or right must be given (got left=None, right=None)");
  const Dtype g_dtype = check_dtype(op, "G", g);
  const int64_t m = g.size(g.dim() - 2), n = g.size(g.dim() - 1);
  Shape batch = batch_shape(g);
  bool wide = g_dtype == Dtype::kFloat64;
  const auto check_side = [&](const char* name, const Tensor& t, int64_t size) {
    check_same_device(op, name, t, "G", g);
    check_square(op, name, t);
    check(t.size(t.dim() - 1) == size, op, name, " must be ", size, " x ", size, " for G of shape ",
          shape_text(g), " (got ", name, ".shape=", shape_text(t), ")");
    wide |= check_factor_dtype(op, name, t) == Dtype::kFloat64;
    batch = broadcast(op, batch, batch_shape(t));
  };
  if (left) check_side("left", *left, m);
  if (right) check_side("right", *right, n);

  const Tensor out =
      empty_on(g, with_matrix(batch, m, n), wide ? ScalarType::Double : ScalarType::Float);
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

// Makes products on the device of a tensor, and the sum of squares of each (of their dtype) where
// `squares` is not null: what each device brings of its own.
using MakeProducts = void (*)(const char* op, const Tensor& where,
                              std::vector<PreconditionProblem>& problems, void* squares);

template <MakeProducts make_products>
Tensor precondition(const Tensor g, std::optional<Tensor> left, std::optional<Tensor> right) {
  std::vector<PreconditionProblem> problems;
  const Tensor out = add_problems("precondition", g, left, right, problems);
  make_products("precondition", g, problems, nullptr);
  return out;
}

// The outputs of a list whose products are still to be made.
inline std::vector<Tensor> add_problem_list(const char* op, const std::vector<Tensor>& gs,
                                            const std::vector<Tensor>& lefts,
                                            const std::vector<Tensor>& rights,
                                            std::vector<PreconditionProblem>& problems) {
  const auto fits = [&](const std::vector<Tensor>& list) {
    return list.empty() || list.size() == gs.size();
  };
  check(fits(lefts) && fits(rights), op,
        "lefts and rights must be empty or as long as Gs (got len(lefts)=", lefts.size(),
        ", len(rights)=", rights.size(), ", len(Gs)=", gs.size(), ")");
  std::vector<Tensor> outs;
  for (size_t i = 0; i < gs.size(); ++i) {
    const auto side = [&](const std::vector<Tensor>& list) {
      return list.empty() ? std::nullopt : std::optional<Tensor>(list[i]);
    };
    check_same_device(op, "G", gs[i], "the first G", gs[0]);
    outs.push_back(add_problems(op, gs[i], side(lefts), side(rights), problems));
  }
  return outs;
}

template <MakeProducts make_products>
std::vector<Tensor> precondition_list(std::vector<Tensor> gs, std::vector<Tensor> lefts,
                                      std::vector<Tensor> rights) {
  const char* op = "precondition_list";
  std::vector<PreconditionProblem> problems;
  const std::vector<Tensor> outs = add_problem_list(op, gs, lefts, rights, problems);
  if (!gs.empty()) make_products(op, gs[0], problems, nullptr);
  return outs;
}

template <MakeProducts make_products>
std::tuple<std::vector<Tensor>, Tensor> precondition_list_with_squares(std::vector<Tensor> gs,
                                                                       std::vector<Tensor> lefts,
                                                                       std::vector<Tensor> rights) {
  const char* op = "precondition_list_with_squares";
  check(!gs.empty(), op, "there must be a gradient (got len(Gs)=0)");
  std::vector<PreconditionProblem> problems;
  const std::vector<Tensor> outs = add_problem_list(op, gs, lefts, rights, problems);
  for (const Tensor& out : outs) {
    check(out.scalar_type() == outs[0].scalar_type(), op,
          "outputs must have one dtype (got float32 and float64)");
  }
  const Tensor squares = empty_on(gs[0], {int64_t(problems.size())}, outs[0].scalar_type());
  make_products(op, gs[0], problems, squares.data_ptr());
  return {outs, squares};
}

}  // namespace kronext
