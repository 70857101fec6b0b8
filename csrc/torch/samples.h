// The forms in which H reaches the ops, checked: samples, factored samples, a dense matrix.
#pragma once

#include <optional>

#include "csrc/core/power_iteration.h"
#include "csrc/torch/batch.h"

namespace kronext {

inline constexpr Matrix kAbsent{nullptr, Dtype::kFloat32, 0, 0, 0, 0};

inline torch::headeronly::ScalarType scalar_type(Dtype dtype) {
  return dtype == Dtype::kFloat64 ? torch::headeronly::ScalarType::Double
                                  : torch::headeronly::ScalarType::Float;
}

inline int64_t last_size(const Tensor& t) { return t.size(t.dim() - 1); }

// The factors L and R of H, which came as `h` under some name.
inline Dtype check_factors(const char* op, const Tensor& l, int64_t m, const Tensor& r, int64_t n,
                           const char* h_name, const Tensor& h) {
  const auto check_factor = [&](const char* name, const Tensor& t, int64_t size) {
    check_square(op, name, t);
    check_same_device(op, name, t, h_name, h);
    check(last_size(t) == size, op, name, " must be ", size, " x ", size, " (got ", name,
          ".shape=", shape_text(t), ")");
    return check_factor_dtype(op, name, t);
  };
  const Dtype dtype = check_factor("L", l, m);
  check(check_factor("R", r, n) == dtype, op, "L and R must have one dtype (got different ones)");
  return dtype;
}

inline Dtype widest(Dtype a, Dtype b) {
  return a == Dtype::kFloat64 || b == Dtype::kFloat64 ? Dtype::kFloat64 : Dtype::kFloat32;
}

// A tensor of samples of H, or of factored ones, with leading batch dimensions.
class SampleTensor {
 public:
  SampleTensor(const char* op, const Tensor& g) : name("G"), g_(g) {
    check_part(op, "G", g);
    dtype_ = check_dtype(op, "G", g);
    m = g.size(g.dim() - 2);
    n = last_size(g);
    count_ = g.size(g.dim() - 3);
    batch = batch_shape(g, 3);
  }

  SampleTensor(const char* op, const Tensor& d, const Tensor& a) : name("D"), g_(d), a_(a) {
    check_part(op, "D", d);
    check_part(op, "A", a);
    check_same_device(op, "A", a, "D", d);
    dtype_ = check_dtype(op, "D", d);
    check(d.scalar_type() == a.scalar_type(), op,
          "D and A must have one dtype (got different ones)");
    check(d.size(d.dim() - 3) == a.size(a.dim() - 3) && d.size(d.dim() - 2) == a.size(a.dim() - 2),
          op, "D and A must have the same samples and positions (got D.shape=", shape_text(d),
          ", A.shape=", shape_text(a), ")");
    m = last_size(d);
    n = last_size(a);
    // Without positions every G_s is zero, as if there were no samples.
    count_ = d.size(d.dim() - 2) ? d.size(d.dim() - 3) : 0;
    batch = broadcast(op, batch_shape(d, 3), batch_shape(a, 3));
  }

  // Fixes the batch that `at` counts through.
  void expand(const Shape& to) {
    views_ = {BatchView(g_, to, 3)};
    if (a_) views_.emplace_back(*a_, to, 3);
  }
  Samples at(int64_t index) const {
    Samples s{matrix_at(g_, dtype_, views_[0].offset(index)),
              kAbsent,
              a_.has_value(),
              g_.stride(g_.dim() - 3),
              0,
              count_,
              nullptr};
    if (a_) {
      s.a = matrix_at(*a_, dtype_, views_[1].offset(index));
      s.a_stride = a_->stride(a_->dim() - 3);
    }
    return s;
  }

  Dtype result_dtype(Dtype factor) const { return widest(dtype_, factor); }
  double mean_weight() const { return count_ ? 1 / double(count_) : 0; }

  // The tensor that the others must share their device with.
  const Tensor& first() const { return g_; }

  const char* name;  // of that
  int64_t m, n;
  Shape batch;

 private:
  static void check_part(const char* op, const char* name, const Tensor& t) {
    check(t.dim() >= 3, op, name, " must have at least 3 dimensions (got ", name,
          ".shape=", shape_text(t), ")");
  }

  Tensor g_;
  std::optional<Tensor> a_;
  Dtype dtype_;
  int64_t count_;
  std::vector<BatchView> views_;
};

inline Dtype check_dense_h(const char* op, const Tensor& h, int64_t m, int64_t n) {
  check_matrices(op, "H", h);
  check(last_size(h) == m * n && h.size(h.dim() - 2) == m * n, op, "H must be ", m * n, " x ",
        m * n, " (got H.shape=", shape_text(h), ")");
  return check_dtype(op, "H", h);
}

}  // namespace kronext
