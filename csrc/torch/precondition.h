// precondition for every device: checks, outputs, and the list of products that a device makes.
#pragma once

#include "csrc/core/precondition.h"

#include <optional>
#include <tuple>

#include "csrc/torch/batch.h"

namespace kronext {

// Checks one (batched) product, makes its output and adds its problems.
inline Tensor add_problems(const char* op, const TensorView& g, const Tensor* left,
                           const Tensor* right, std::vector<PreconditionProblem>& problems) {
  using torch::headeronly::ScalarType;
  check_matrices(op, "G", g);
  check(left || right, op, "left or right must be given (got left=None, right=None)");
  const Dtype g_dtype = check_dtype(op, "G", g);
  const int64_t m = g.rows(), n = g.columns();
  Shape batch = batch_shape(g);
  Dtype dtype = g_dtype == Dtype::kFloat64 ? Dtype::kFloat64 : Dtype::kFloat32;
  struct Side {
    TensorView view;
    Dtype dtype;
  };
  const auto checked_side = [&](const char* name, const Tensor* factor,
                                int64_t size) -> std::optional<Side> {
    if (!factor) return std::nullopt;
    const TensorView t(*factor);
    check_same_device(op, name, t, "G", g);
    check_square(op, name, t);
    check(t.rows() == size, op, name, " must be ", size, " x ", size, " for G of shape ",
          shape_text(g), " (got ", name, ".shape=", shape_text(t), ")");
    const Side side{t, check_factor_dtype(op, name, t)};
    if (side.dtype == Dtype::kFloat64) dtype = Dtype::kFloat64;
    batch = broadcast(op, batch, batch_shape(t));
    return side;
  };
  const auto left_side = checked_side("left", left, m),
             right_side = checked_side("right", right, n);

  const Tensor result = empty_on(g, with_matrix(batch, m, n),
                                 dtype == Dtype::kFloat64 ? ScalarType::Double : ScalarType::Float);
  const TensorView out(result);
  const BatchView gs(g, batch), outs(out, batch);
  const BatchView lefts(left_side ? left_side->view : g, batch),
      rights(right_side ? right_side->view : g, batch);
  const auto side_at = [](const std::optional<Side>& side, const BatchView& entries, int64_t i) {
    return side ? matrix_at(side->view, side->dtype, entries.offset(i)) : Matrix{};
  };
  for (int64_t i = 0, count = element_count(batch); i < count; ++i) {
    problems.push_back({matrix_at(g, g_dtype, gs.offset(i)), side_at(left_side, lefts, i),
                        side_at(right_side, rights, i), matrix_at(out, dtype, outs.offset(i))});
  }
  return result;
}

// Makes products on the device of a tensor, and the sum of squares of each (of their dtype) where
// `squares` is not null: what each device brings of its own.
using MakeProducts = void (*)(const char* op, const Tensor& where,
                              std::vector<PreconditionProblem>& problems, void* squares);

template <MakeProducts make_products>
Tensor precondition(const Tensor& g, const std::optional<Tensor>& left,
                    const std::optional<Tensor>& right) {
  std::vector<PreconditionProblem> problems;
  const Tensor out =
      add_problems("precondition", g, left ? &*left : nullptr, right ? &*right : nullptr, problems);
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
  if (gs.empty()) return outs;
  const TensorView first(gs[0]);
  for (size_t i = 0; i < gs.size(); ++i) {
    const auto side = [&](const std::vector<Tensor>& list) {
      return list.empty() ? nullptr : &list[i];
    };
    const TensorView g(gs[i]);
    check_same_device(op, "G", g, "the first G", first);
    outs.push_back(add_problems(op, g, side(lefts), side(rights), problems));
  }
  return outs;
}

template <MakeProducts make_products>
std::vector<Tensor> precondition_list(const std::vector<Tensor>& gs,
                                      const std::vector<Tensor>& lefts,
                                      const std::vector<Tensor>& rights) {
  const char* op = "precondition_list";
  std::vector<PreconditionProblem> problems;
  const std::vector<Tensor> outs = add_problem_list(op, gs, lefts, rights, problems);
  if (!gs.empty()) make_products(op, gs[0], problems, nullptr);
  return outs;
}

template <MakeProducts make_products>
std::tuple<std::vector<Tensor>, Tensor> precondition_list_with_squares(
    const std::vector<Tensor>& gs, const std::vector<Tensor>& lefts,
    const std::vector<Tensor>& rights) {
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
