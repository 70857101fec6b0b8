// Leading batch dimensions: broadcasting, and the matrices that a batch index selects.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <vector>

#include "csrc/torch/check.h"

namespace kronext {

using Shape = std::vector<int64_t>;

inline Shape batch_shape(const TensorView& t, int64_t inner = 2) {
  return Shape(t.sizes().begin(), t.sizes().end() - inner);
}

inline int64_t element_count(const Shape& shape) {
  int64_t count = 1;
  for (int64_t size : shape) count *= size;
  return count;
}

// The common shape of two batches under broadcasting.
inline Shape broadcast(const char* op, const Shape& a, const Shape& b) {
  Shape out(std::max(a.size(), b.size()), 1);
  for (size_t i = 1; i <= out.size(); ++i) {
    const int64_t x = i <= a.size() ? a[a.size() - i] : 1, y = i <= b.size() ? b[b.size() - i] : 1;
    check(x == y || x == 1 || y == 1, op, "batch dimensions must broadcast (got ", x, " and ", y,
          ")");
    out[out.size() - i] = x == 1 ? y : x;
  }
  return out;
}

inline Shape with_matrix(Shape batch, int64_t rows, int64_t columns) {
  batch.push_back(rows);
  batch.push_back(columns);
  return batch;
}

// A tensor seen as the matrices of a (broadcast) batch; `inner` trailing dimensions are not batch.
class BatchView {
 public:
  BatchView(const TensorView& t, Shape batch, int64_t inner = 2)
      : batch_(std::move(batch)), strides_(batch_.size(), 0) {
    const int64_t own = t.dim() - inner;
    for (int64_t d = 0; d < own; ++d) {
      const size_t target = batch_.size() - own + d;
      strides_[target] = t.size(d) == 1 ? 0 : t.stride(d);
    }
    even_ = true;
    for (size_t d = 1; d < batch_.size(); ++d) even_ &= strides_[d - 1] == strides_[d] * batch_[d];
  }

  // Elements between the tensor's start and batch entry `index`.
  int64_t offset(int64_t index) const {
    if (even_) return batch_.empty() ? 0 : index * strides_.back();
    int64_t result = 0;
    for (size_t d = batch_.size(); d-- > 0;) {
      result += index % batch_[d] * strides_[d];
      index /= batch_[d];
    }
    return result;
  }

 private:
  Shape batch_;
  std::vector<int64_t> strides_;
  bool even_;  // entries are equally far apart
};

// Uninitialised and dense. Without the dispatcher, through which a tensor costs a microsecond more.
inline Tensor empty_dense(const Shape& shape, torch::headeronly::ScalarType dtype,
                          int32_t device_type, int32_t device_index) {
  using torch::stable::detail::from, torch::stable::detail::to;
  Shape strides(shape.size());
  int64_t stride = 1;
  for (size_t d = shape.size(); d-- > 0; stride *= std::max<int64_t>(1, shape[d])) {
    strides[d] = stride;
  }
  AtenTensorHandle result = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(int64_t(shape.size()), shape.data(),
                                                  strides.data(), to<int32_t>(from(dtype)),
                                                  device_type, device_index, &result));
  return Tensor(result);
}

inline Tensor empty_on(const TensorView& where, const Shape& shape,
                       torch::headeronly::ScalarType dtype) {
  return empty_dense(shape, dtype, where.device_type(), where.device_index());
}

inline Tensor empty_on_cpu(const Shape& shape, torch::headeronly::ScalarType dtype) {
  return empty_dense(shape, dtype, aoti_torch_device_type_cpu(), 0);
}

inline void* address(const Tensor& t, int64_t offset) {
  return static_cast<char*>(t.data_ptr()) + offset * int64_t(t.element_size());
}

// The matrix in the last two dimensions, `offset` elements in.
inline Matrix matrix_at(const TensorView& t, Dtype dtype, int64_t offset) {
  return {static_cast<char*>(t.data()) + offset * bytes_of(dtype),
          dtype,
          t.rows(),
          t.columns(),
          t.row_stride(),
          t.column_stride()};
}

// Adds every matrix of a batch to a list.
inline void add_matrices(const TensorView& t, Dtype dtype, std::vector<Matrix>& matrices) {
  const Shape batch = batch_shape(t);
  const BatchView entries(t, batch);
  for (int64_t i = 0, count = element_count(batch); i < count; ++i) {
    matrices.push_back(matrix_at(t, dtype, entries.offset(i)));
  }
}

}  // namespace kronext
