// Checks that read `op: expectation (got name=value)`.
//
// They repeat in C++ what the Python layer says with ValueError and TypeError, and they run before
// any write: an op that throws has changed nothing.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "csrc/core/matrix.h"
#include "csrc/torch/tensor_view.h"

namespace kronext {

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
  const TensorView& tensor;
};
inline ShapeText shape_text(const TensorView& t) { return {t}; }

inline std::ostream& operator<<(std::ostream& text, const ShapeText& shape) {
  const TensorView& t = shape.tensor;
  text << "(";
  for (int64_t d = 0; d < t.dim(); ++d) text << (d ? ", " : "") << t.size(d);
  return text << (t.dim() == 1 ? ",)" : ")");
}

inline bool same_shape(const TensorView& a, const TensorView& b) {
  return std::ranges::equal(a.sizes(), b.sizes());
}

struct DeviceText {
  const TensorView& tensor;
};
inline DeviceText device_text(const TensorView& t) { return {t}; }

inline std::ostream& operator<<(std::ostream& text, const DeviceText& of) {
  const torch::stable::Device device = of.tensor.tensor().device();
  text << (device.is_cpu() ? "cpu" : device.is_cuda() ? "cuda" : "another device");
  return device.has_index() ? text << ":" << int(device.index()) : text;
}

inline void check_same_device(const char* op, const char* name, const TensorView& t,
                              const char* reference_name, const TensorView& reference) {
  check(t.same_device(reference), op, name, " must be on the device of ", reference_name, " (got ",
        name, ".device=", device_text(t), ", ", reference_name, ".device=", device_text(reference),
        ")");
}

// The tensor's dtype as the kernels name it.
inline Dtype check_dtype(const char* op, const char* name, const TensorView& t) {
  if (t.is_float32()) return Dtype::kFloat32;
  if (t.is_float64()) return Dtype::kFloat64;
  if (t.is_bfloat16()) return Dtype::kBFloat16;
  if (t.is_float16()) return Dtype::kFloat16;
  check(false, op, name, " must be float64, float32, bfloat16 or float16 (got scalar type ",
        int(t.tensor().scalar_type()), ")");
  return Dtype::kFloat32;
}

inline Dtype check_factor_dtype(const char* op, const char* name, const TensorView& t) {
  const Dtype dtype = check_dtype(op, name, t);
  check(dtype == Dtype::kFloat32 || dtype == Dtype::kFloat64, op, name,
        " must be float32 or float64 (got a 16-bit dtype)");
  return dtype;
}

inline void check_matrices(const char* op, const char* name, const TensorView& t) {
  check(t.dim() >= 2, op, name, " must have at least 2 dimensions (got ", name,
        ".shape=", shape_text(t), ")");
}

inline void check_square(const char* op, const char* name, const TensorView& t) {
  check_matrices(op, name, t);
  check(t.rows() == t.columns(), op, name, " must be square (got ", name, ".shape=", shape_text(t),
        ")");
}

// Written in place: rows next to each other, and no two batch entries on the same memory.
inline void check_dense(const char* op, const char* name, const TensorView& t) {
  const bool dense = (t.columns() <= 1 || t.column_stride() == 1) &&
                     (t.rows() <= 1 || t.row_stride() == t.columns());
  check(dense || t.element_count() == 0, op, name,
        " must be dense in its last two dimensions (got strides ", t.row_stride(), ", ",
        t.column_stride(), ")");
  for (int64_t b = 0; b < t.dim() - 2; ++b) {
    check(t.size(b) <= 1 || t.stride(b) != 0, op, name,
          " must not be an expanded view, it is written in place (got stride 0 in dimension ", b,
          ")");
  }
}

inline void check_finite(const char* op, const char* name, double value) {
  check(std::isfinite(value), op, name, " must be finite (got ", name, "=", value, ")");
}

// One number for a whole list, or one for each entry.
inline void check_scalars(const char* op, const char* name, const std::vector<double>& values,
                          size_t length) {
  check(values.size() == 1 || values.size() == length, op, name,
        " must be one number, or one for each gradient (got len(", name, ")=", values.size(),
        ", len(Gs)=", length, ")");
  for (double value : values) check_finite(op, name, value);
}

// Matrices that are written in place must not share memory, whichever tensors they belong to.
// `matrix_of` is what an item writes.
template <class Item, class MatrixOf = std::identity>
void check_disjoint(const char* op, const std::vector<Item>& written,
                    const MatrixOf& matrix_of = {}) {
  struct Extent {
    const char *begin, *end;
    int64_t rows;
  };
  std::vector<Extent> extents;
  extents.reserve(written.size());
  for (const Item& item : written) {
    const Matrix& m = matrix_of(item);
    const char* begin = static_cast<const char*>(m.data);
    const int64_t bytes = m.rows * m.columns * bytes_of(m.dtype);
    if (bytes) extents.push_back({begin, begin + bytes, m.rows});
  }
  // A batch and most lists are in order already.
  if (!std::ranges::is_sorted(extents, {}, &Extent::begin)) {
    std::ranges::sort(extents, {}, &Extent::begin);
  }
  for (size_t i = 1; i < extents.size(); ++i) {
    const Extent &previous = extents[i - 1], &next = extents[i];
    check(previous.end <= next.begin, op,
          "matrices that are written in place must not share memory (got two matrices of ",
          previous.rows, " and ", next.rows, " rows on the same memory)");
  }
}

inline double scalar_at(const std::vector<double>& values, size_t index) {
  return values.size() == 1 ? values[0] : values[index];
}

}  // namespace kronext
