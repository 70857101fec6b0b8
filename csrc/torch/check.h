// Checks that read `op: expectation (got name=value)`.
//
// They repeat in C++ what the Python layer says with ValueError and TypeError, and they run before
// any write: an op that throws has changed nothing.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cmath>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "csrc/core/matrix.h"

namespace kronext {

using torch::stable::Tensor;

template <class... Parts>
void check(bool holds, const char* op, const Parts&... parts) {
  if (holds) [[likely]]
    return;
  std::ostringstream text;
  text << op << ": ";
  ((text << parts), ...);
  throw std::runtime_error(text.str());
}

// A shape for a message; written out only where the message is.
struct ShapeText {
  const Tensor& tensor;
};
inline ShapeText shape_text(const Tensor& t) { return {t}; }

inline std::ostream& operator<<(std::ostream& text, const ShapeText& shape) {
  const Tensor& t = shape.tensor;
  text << "(";
  for (int64_t d = 0; d < t.dim(); ++d) text << (d ? ", " : "") << t.size(d);
  return text << (t.dim() == 1 ? ",)" : ")");
}

inline bool same_shape(const Tensor& a, const Tensor& b) {
  return std::ranges::equal(a.sizes(), b.sizes());
}

struct DeviceText {
  const Tensor& tensor;
};
inline DeviceText device_text(const Tensor& t) { return {t}; }

inline std::ostream& operator<<(std::ostream& text, const DeviceText& of) {
  const torch::stable::Device device = of.tensor.device();
  text << (device.is_cpu() ? "cpu" : device.is_cuda() ? "cuda" : "another device");
  return device.has_index() ? text << ":" << int(device.index()) : text;
}

inline void check_same_device(const char* op, std::string_view name, const Tensor& t,
                              std::string_view reference_name, const Tensor& reference) {
  check(t.device() == reference.device(), op, name, " must be on the device of ", reference_name,
        " (got ", name, ".device=", device_text(t), ", ", reference_name,
        ".device=", device_text(reference), ")");
}

// The tensor's dtype as the kernels name it.
inline Dtype check_dtype(const char* op, std::string_view name, const Tensor& t) {
  using torch::headeronly::ScalarType;
  switch (t.scalar_type()) {
    case ScalarType::Double:
      return Dtype::kFloat64;
    case ScalarType::Float:
      return Dtype::kFloat32;
    case ScalarType::BFloat16:
      return Dtype::kBFloat16;
    case ScalarType::Half:
      return Dtype::kFloat16;
    default:
      check(false, op, name, " must be float64, float32, bfloat16 or float16 (got scalar type ",
            int(t.scalar_type()), ")");
  }
  return Dtype::kFloat32;
}

inline Dtype check_factor_dtype(const char* op, std::string_view name, const Tensor& t) {
  const Dtype dtype = check_dtype(op, name, t);
  check(dtype == Dtype::kFloat32 || dtype == Dtype::kFloat64, op, name,
        " must be float32 or float64 (got a 16-bit dtype)");
  return dtype;
}

inline void check_matrices(const char* op, std::string_view name, const Tensor& t) {
  check(t.dim() >= 2, op, name, " must have at least 2 dimensions (got ", name,
        ".shape=", shape_text(t), ")");
}

inline void check_square(const char* op, std::string_view name, const Tensor& t) {
  check_matrices(op, name, t);
  check(t.size(t.dim() - 1) == t.size(t.dim() - 2), op, name, " must be square (got ", name,
        ".shape=", shape_text(t), ")");
}

// Written in place: rows next to each other, and no two batch entries on the same memory.
inline void check_dense(const char* op, std::string_view name, const Tensor& t) {
  const int64_t d = t.dim(), columns = t.size(d - 1);
  const bool dense = t.numel() == 0 || ((columns <= 1 || t.stride(d - 1) == 1) &&
                                        (t.size(d - 2) <= 1 || t.stride(d - 2) == columns));
  check(dense, op, name, " must be dense in its last two dimensions (got strides ", t.stride(d - 2),
        ", ", t.stride(d - 1), ")");
  for (int64_t b = 0; b < d - 2; ++b) {
    check(t.size(b) <= 1 || t.stride(b) != 0, op, name,
          " must not be an expanded view, it is written in place (got stride 0 in dimension ", b,
          ")");
  }
}

inline void check_finite(const char* op, std::string_view name, double value) {
  check(std::isfinite(value), op, name, " must be finite (got ", name, "=", value, ")");
}

// One number for a whole list, or one for each entry.
inline void check_scalars(const char* op, std::string_view name, const std::vector<double>& values,
                          size_t length) {
  check(values.size() == 1 || values.size() == length, op, name,
        " must be one number, or one for each gradient (got len(", name, ")=", values.size(),
        ", len(Gs)=", length, ")");
  for (double value : values) check_finite(op, name, value);
}

// Matrices that are written in place must not share memory, whichever tensors they belong to.
inline void check_disjoint(const char* op, std::vector<Matrix> written) {
  const auto begin = [](const Matrix& m) { return static_cast<const char*>(m.data); };
  const auto bytes = [](const Matrix& m) {
    return m.rows * m.columns * (m.dtype == Dtype::kFloat64 ? 8 : 4);
  };
  std::sort(written.begin(), written.end(),
            [&](const Matrix& a, const Matrix& b) { return begin(a) < begin(b); });
  for (size_t i = 1; i < written.size(); ++i) {
    const Matrix &previous = written[i - 1], &next = written[i];
    check(bytes(next) == 0 || begin(previous) + bytes(previous) <= begin(next), op,
          "factors that are written in place must not share memory (got two matrices of ",
          previous.rows, " and ", next.rows, " rows on the same memory)");
  }
}

inline double scalar_at(const std::vector<double>& values, size_t index) {
  return values.size() == 1 ? values[0] : values[index];
}

}  // namespace kronext
