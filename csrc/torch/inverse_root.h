// eigh and inverse roots for every device: checks, outputs, and the list of matrices that a device
// solves.
#pragma once

#include "csrc/core/inverse_root.h"

#include <cmath>
#include <optional>
#include <string>
#include <tuple>

#include "csrc/torch/batch.h"

namespace kronext {

// What float32 matrices are computed in; a device may do better than it is asked for.
enum class Precision { kMixed, kFloat32 };

// What a call asks for; the matrices of a batch or of a ragged list.
struct Request {
  const char* op;
  Precision precision;
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

inline Precision checked_precision(const char* op, const std::string& name) {
  check(name == "mixed" || name == "float32", op,
        "precision must be 'mixed' or 'float32' (got precision=", name, ")");
  return name == "mixed" ? Precision::kMixed : Precision::kFloat32;
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

// Addresses of the entries of a tensor over a batch; null without a tensor. `inner` trailing
// dimensions are not batch.
class Entries {
 public:
  Entries(const std::optional<Tensor>& t, const Shape& batch, int64_t inner) {
    if (!t) return;
    const TensorView view(*t);
    data_ = static_cast<char*>(view.data());
    element_bytes_ = view.is_float64() ? sizeof(double) : sizeof(float);
    batch_.emplace(view, batch, inner);
  }
  void* operator[](int64_t index) const {
    return data_ ? data_ + batch_->offset(index) * element_bytes_ : nullptr;
  }

 private:
  char* data_ = nullptr;
  int64_t element_bytes_ = 0;
  std::optional<BatchView> batch_;
};

// Calls f with each matrix of a batch.
template <class F>
void for_each_problem(const SpectralBatch& batch, const F& f) {
  const Shape shape = batch_shape(batch.a);
  const Entries matrices(batch.a, shape, 2), bases(batch.basis, shape, 2),
      values(batch.results.values, shape, 1), vectors(batch.results.vectors, shape, 2),
      roots(batch.results.roots, shape, 2);
  const int64_t n = batch.n();
  for (int64_t i = 0, count = element_count(shape); i < count; ++i) {
    f(SpectralProblem{n, matrices[i], bases[i], values[i], vectors[i], roots[i], batch.info + i});
  }
}

inline Tensor dense(const Tensor& t) {
  return t.is_contiguous() ? t : torch::stable::contiguous(t);
}

class Collector {
 public:
  explicit Collector(const Request& request) : request_(request) {}

  void check_input(const TensorView& a, const std::optional<Tensor>& basis) {
    check_square(request_.op, "A", a);
    if (first_) check_same_device(request_.op, "A", a, "the first A", *first_);
    if (!first_) first_ = a;
    check_factor_dtype(request_.op, "A", a);
    if (!basis) return;
    const TensorView start(*basis);
    check_square(request_.op, "basis", start);
    check_same_device(request_.op, "basis", start, "A", a);
    check(same_shape(start, a) && start.same_dtype(a), request_.op,
          "basis must have the shape and dtype of A (got basis.shape=", shape_text(start),
          ", A.shape=", shape_text(a), ")");
  }

  void add(const Tensor& a, const std::optional<Tensor>& basis, const Results& results) {
    batches_.push_back(
        {dense(a), basis ? std::optional(dense(*basis)) : std::nullopt, results, total_});
    total_ += element_count(batch_shape(a));
  }

  // One entry for each matrix, in the order in which they were added.
  template <Solve solve_matrices>
  Tensor solve(const Shape& info_shape) {
    using torch::headeronly::ScalarType;
    const Tensor info = first_ ? empty_on(*first_, info_shape, ScalarType::Int)
                               : torch::stable::empty(info_shape, ScalarType::Int);
    if (total_ > 0) solve_matrices(request_, batches_, info);
    return info;
  }

  int64_t total() const { return total_; }

 private:
  Request request_;
  std::vector<SpectralBatch> batches_;
  std::optional<TensorView> first_;
  int64_t total_ = 0;
};

// Dense, with the leading dimensions of `a` and `inner` of its last two.
inline Tensor like(const TensorView& a, int64_t inner) {
  using torch::headeronly::ScalarType;
  return empty_on(a, Shape(a.sizes().begin(), a.sizes().end() - (2 - inner)),
                  a.is_float64() ? ScalarType::Double : ScalarType::Float);
}

using Triple = std::tuple<Tensor, Tensor, Tensor>;
using Quadruple = std::tuple<Tensor, Tensor, Tensor, Tensor>;

template <Solve solve_matrices>
Triple eigh(const Tensor& a, const std::string& precision, const std::optional<Tensor>& basis) {
  const char* op = "eigh";
  Collector collector({op, checked_precision(op, precision), std::nullopt, false});
  collector.check_input(a, basis);
  const Tensor values = like(a, 1), vectors = like(a, 2);
  collector.add(a, basis, {values, vectors, std::nullopt});
  return {values, vectors, collector.template solve<solve_matrices>(batch_shape(a))};
}

template <Solve solve_matrices>
Quadruple inverse_root(const Tensor& a, double root, double eps, double relative_eps,
                       const std::string& precision, const std::optional<Tensor>& basis) {
  const char* op = "inverse_root";
  Collector collector(
      {op, checked_precision(op, precision), checked_damping(op, root, eps, relative_eps), false});
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
    const std::vector<Tensor>& as, double root, double eps, double relative_eps,
    const std::string& precision, const std::vector<Tensor>& bases) {
  const char* op = "inverse_root_list";
  Collector collector(
      {op, checked_precision(op, precision), checked_damping(op, root, eps, relative_eps), false});
  check_length(op, "bases", bases, as.size());
  for (size_t i = 0; i < as.size(); ++i) collector.check_input(as[i], entry(bases, i));
  std::vector<Tensor> roots, vectors, values;
  for (size_t i = 0; i < as.size(); ++i) {
    const TensorView a(as[i]);
    roots.push_back(like(a, 2));
    vectors.push_back(like(a, 2));
    values.push_back(like(a, 1));
    collector.add(as[i], entry(bases, i), {values[i], vectors[i], roots[i]});
  }
  const Tensor info = collector.template solve<solve_matrices>({collector.total()});
  return {roots, vectors, values, info};
}

// Adds the matrices of `out` to those that are written in place.
inline void add_out(const char* op, const TensorView& out, const TensorView& a,
                    std::vector<Matrix>& written) {
  check_square(op, "out", out);
  check_dense(op, "out", out);
  check_same_device(op, "out", out, "A", a);
  check(same_shape(out, a) && out.same_dtype(a), op,
        "out must have the shape and dtype of A (got out.shape=", shape_text(out),
        ", A.shape=", shape_text(a), ")");
  add_matrices(out, out.is_float64() ? Dtype::kFloat64 : Dtype::kFloat32, written);
}

template <Solve solve_matrices>
Tensor inverse_root_(const Tensor& out, const Tensor& a, double root, double eps,
                     double relative_eps, const std::string& precision,
                     const std::optional<Tensor>& basis) {
  const char* op = "inverse_root_";
  Collector collector(
      {op, checked_precision(op, precision), checked_damping(op, root, eps, relative_eps), true});
  collector.check_input(a, basis);
  std::vector<Matrix> written;
  add_out(op, out, a, written);
  check_disjoint(op, written);
  collector.add(a, basis, {std::nullopt, std::nullopt, out});
  return collector.template solve<solve_matrices>(batch_shape(a));
}

template <Solve solve_matrices>
Tensor inverse_root_list_(const std::vector<Tensor>& outs, const std::vector<Tensor>& as,
                          double root, double eps, double relative_eps,
                          const std::string& precision, const std::vector<Tensor>& bases) {
  const char* op = "inverse_root_list_";
  Collector collector(
      {op, checked_precision(op, precision), checked_damping(op, root, eps, relative_eps), true});
  check(outs.size() == as.size(), op, "outs must be as long as As (got len(outs)=", outs.size(),
        ", len(As)=", as.size(), ")");
  check_length(op, "bases", bases, as.size());
  std::vector<Matrix> written;
  written.reserve(outs.size());
  for (size_t i = 0; i < as.size(); ++i) {
    const TensorView a(as[i]);
    collector.check_input(a, entry(bases, i));
    add_out(op, outs[i], a, written);
  }
  check_disjoint(op, written);
  for (size_t i = 0; i < as.size(); ++i) {
    collector.add(as[i], entry(bases, i), {std::nullopt, std::nullopt, outs[i]});
  }
  return collector.template solve<solve_matrices>({collector.total()});
}

}  // namespace kronext
