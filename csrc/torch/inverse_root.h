// eigh and inverse roots for every device: checks, outputs, and the list of matrices that a device
// solves.
#pragma once

#include "csrc/core/inverse_root.h"

#include <cmath>
#include <optional>
#include <tuple>

#include "csrc/torch/batch.h"

namespace kronext {

// What a call asks for; the matrices of a batch or of a ragged list.
struct Request {
  const char* op;
  std::optional<Damping> damping;  // none: eigenvalues and eigenvectors only
  bool keep_failed;  // roots of matrices that fail keep their old value; else they are the identity
};

// Where the results of one (batched) tensor go; none where they are not wanted.
struct Results {
  std::optional<Tensor> values, vectors, roots;
};

// The matrices of one tensor, which has a copy if it was not contiguous.
struct SpectralBatch {
  Tensor a;
  std::optional<Tensor> basis;
  Results results;
  int64_t info;  // index of the first matrix in the info array

  int64_t n() const { return a.size(a.dim() - 1); }
  int64_t count() const { return element_count(batch_shape(a)); }
  bool wide() const { return a.element_size() == sizeof(double); }
};

// Solves all matrices, and says in `info` (on their device) what became of each: what each device
// brings of its own.
using Solve = void (*)(const Request& request, const std::vector<SpectralBatch>& batches,
                       const Tensor& info);

inline Damping checked_damping(const char* op, double root, double eps, double relative_eps) {
  const auto finite_at_least_zero = [](double x) { return x >= 0 && x < HUGE_VAL; };
  check(root > 0 && root < HUGE_VAL, op, "root must be a number above 0 (got root=", root, ")");
  check(finite_at_least_zero(eps), op, "eps must be at least 0 (got eps=", eps, ")");
  check(finite_at_least_zero(relative_eps), op,
        "relative_eps must be at least 0 (got relative_eps=", relative_eps, ")");
  return {root, eps, relative_eps, 0};
}

// One matrix; pointers to dense row-major memory, null for what is not wanted.
struct SpectralProblem {
  int64_t n;
  const void* matrix;
  const void* basis;
  void* values;
  void* vectors;
  void* root;
  int64_t info;
};

// Calls f with each matrix of a batch.
template <class F>
void for_each_problem(const SpectralBatch& batch, const F& f) {
  const Shape shape = batch_shape(batch.a);
  const auto entries = [&](const std::optional<Tensor>& t, int64_t inner) {
    return [t, view = t ? std::optional(BatchView(*t, shape, inner)) : std::nullopt](int64_t i) {
      return t ? address(*t, view->offset(i)) : nullptr;
    };
  };
  const auto matrices = entries(batch.a, 2), bases = entries(batch.basis, 2),
             values = entries(batch.results.values, 1), vectors = entries(batch.results.vectors, 2),
             roots = entries(batch.results.roots, 2);
  for (int64_t i = 0; i < batch.count(); ++i) {
    f(SpectralProblem{batch.n(), matrices(i), bases(i), values(i), vectors(i), roots(i),
                      batch.info + i});
  }
}

class Collector {
 public:
  explicit Collector(const Request& request) : request_(request) {}

  void check_input(const Tensor& a, const std::optional<Tensor>& basis) {
    check_square(request_.op, "A", a);
    if (where_) check_same_device(request_.op, "A", a, "the first A", *where_);
    where_ = a;
    check_factor_dtype(request_.op, "A", a);
    if (!basis) return;
    check_square(request_.op, "basis", *basis);
    check_same_device(request_.op, "basis", *basis, "A", a);
    check(same_shape(*basis, a) && basis->scalar_type() == a.scalar_type(), request_.op,
          "basis must have the shape and dtype of A (got basis.shape=", shape_text(*basis),
          ", A.shape=", shape_text(a), ")");
  }

  void add(const Tensor& a, const std::optional<Tensor>& basis, const Results& results) {
    const auto dense = [](const Tensor& t) { return torch::stable::contiguous(t); };
    batches_.push_back(
        {dense(a), basis ? std::optional(dense(*basis)) : std::nullopt, results, total_});
    total_ += batches_.back().count();
  }

  // One entry for each matrix, in the order in which they were added.
  template <Solve solve_matrices>
  Tensor solve(const Shape& info_shape) {
    using torch::headeronly::ScalarType;
    const Tensor info = where_ ? empty_on(*where_, info_shape, ScalarType::Int)
                               : torch::stable::empty(info_shape, ScalarType::Int);
    if (total_ > 0) solve_matrices(request_, batches_, info);
    return info;
  }

  int64_t total() const { return total_; }

 private:
  Request request_;
  std::vector<SpectralBatch> batches_;
  std::optional<Tensor> where_;
  int64_t total_ = 0;
};

inline Tensor like(const Tensor& a, int64_t inner) {
  return empty_on(a, Shape(a.sizes().begin(), a.sizes().end() - (2 - inner)), a.scalar_type());
}

using Triple = std::tuple<Tensor, Tensor, Tensor>;
using Quadruple = std::tuple<Tensor, Tensor, Tensor, Tensor>;

template <Solve solve_matrices>
Triple eigh(const Tensor a, std::optional<Tensor> basis) {
  Collector collector({"eigh", std::nullopt, false});
  collector.check_input(a, basis);
  const Tensor values = like(a, 1), vectors = like(a, 2);
  collector.add(a, basis, {values, vectors, std::nullopt});
  return {values, vectors, collector.template solve<solve_matrices>(batch_shape(a))};
}

template <Solve solve_matrices>
Quadruple inverse_root(const Tensor a, double root, double eps, double relative_eps,
                       std::optional<Tensor> basis) {
  const char* op = "inverse_root";
  Collector collector({op, checked_damping(op, root, eps, relative_eps), false});
  collector.check_input(a, basis);
  const Tensor values = like(a, 1), vectors = like(a, 2), roots = like(a, 2);
  collector.add(a, basis, {values, vectors, roots});
  const Tensor info = collector.template solve<solve_matrices>(batch_shape(a));
  return {roots, vectors, values, info};
}

inline std::optional<Tensor> entry(const std::vector<Tensor>& list, size_t i) {
  return list.empty() ? std::nullopt : std::optional(list[i]);
}

inline void check_length(const char* op, const char* name, const std::vector<Tensor>& list,
                         size_t length) {
  check(list.empty() || list.size() == length, op, name, " must be as long as As (got len(", name,
        ")=", list.size(), ", len(As)=", length, ")");
}

template <Solve solve_matrices>
std::tuple<std::vector<Tensor>, std::vector<Tensor>, std::vector<Tensor>, Tensor> inverse_root_list(
    std::vector<Tensor> as, double root, double eps, double relative_eps,
    std::vector<Tensor> bases) {
  const char* op = "inverse_root_list";
  Collector collector({op, checked_damping(op, root, eps, relative_eps), false});
  check_length(op, "bases", bases, as.size());
  for (size_t i = 0; i < as.size(); ++i) collector.check_input(as[i], entry(bases, i));
  std::vector<Tensor> roots, vectors, values;
  for (size_t i = 0; i < as.size(); ++i) {
    roots.push_back(like(as[i], 2));
    vectors.push_back(like(as[i], 2));
    values.push_back(like(as[i], 1));
    collector.add(as[i], entry(bases, i), {values[i], vectors[i], roots[i]});
  }
  const Tensor info = collector.template solve<solve_matrices>({collector.total()});
  return {roots, vectors, values, info};
}

inline void check_out(const char* op, const Tensor& out, const Tensor& a) {
  check_square(op, "out", out);
  check_dense(op, "out", out);
  check_same_device(op, "out", out, "A", a);
  check(same_shape(out, a) && out.scalar_type() == a.scalar_type(), op,
        "out must have the shape and dtype of A (got out.shape=", shape_text(out),
        ", A.shape=", shape_text(a), ")");
}

template <Solve solve_matrices>
Tensor inverse_root_(const Tensor out, const Tensor a, double root, double eps, double relative_eps,
                     std::optional<Tensor> basis) {
  const char* op = "inverse_root_";
  Collector collector({op, checked_damping(op, root, eps, relative_eps), true});
  collector.check_input(a, basis);
  check_out(op, out, a);
  collector.add(a, basis, {std::nullopt, std::nullopt, out});
  return collector.template solve<solve_matrices>(batch_shape(a));
}

template <Solve solve_matrices>
Tensor inverse_root_list_(std::vector<Tensor> outs, std::vector<Tensor> as, double root, double eps,
                          double relative_eps, std::vector<Tensor> bases) {
  const char* op = "inverse_root_list_";
  Collector collector({op, checked_damping(op, root, eps, relative_eps), true});
  check(outs.size() == as.size(), op, "outs must be as long as As (got len(outs)=", outs.size(),
        ", len(As)=", as.size(), ")");
  check_length(op, "bases", bases, as.size());
  for (size_t i = 0; i < as.size(); ++i) {
    collector.check_input(as[i], entry(bases, i));
    check_out(op, outs[i], as[i]);
  }
  for (size_t i = 0; i < as.size(); ++i) {
    collector.add(as[i], entry(bases, i), {std::nullopt, std::nullopt, outs[i]});
  }
  return collector.template solve<solve_matrices>({collector.total()});
}

}  // namespace kronext
