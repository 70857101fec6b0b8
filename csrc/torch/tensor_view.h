// A tensor as checks and kernels see it, read once.
//
// Every accessor of the stable ABI is a call into torch. An op over a list asks each of thousands
// of tensors for the same few numbers again and again; for small matrices that costs more than the
// products do.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <span>

namespace kronext {

using torch::stable::Tensor;

// Lives no longer than its tensor. Implicit, so that what takes a view takes a tensor as well.
class TensorView {
 public:
  TensorView(const Tensor& tensor) : tensor_(&tensor) {  // NOLINT(google-explicit-constructor)
    const AtenTensorHandle handle = tensor.get();
    int64_t *sizes = nullptr, *strides = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_dim(handle, &dim_));
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_sizes(handle, &sizes));
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_strides(handle, &strides));
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(handle, &dtype_));
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(handle, &device_type_));
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(handle, &device_index_));
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_data_ptr(handle, &data_));
    sizes_ = sizes;
    strides_ = strides;
  }

  const Tensor& tensor() const { return *tensor_; }
  void* data() const { return data_; }
  int64_t dim() const { return dim_; }
  int64_t size(int64_t d) const { return sizes_[d]; }
  int64_t stride(int64_t d) const { return strides_[d]; }
  std::span<const int64_t> sizes() const { return {sizes_, size_t(dim_)}; }

  // Of the matrices in the last two dimensions.
  int64_t rows() const { return sizes_[dim_ - 2]; }
  int64_t columns() const { return sizes_[dim_ - 1]; }
  int64_t row_stride() const { return strides_[dim_ - 2]; }
  int64_t column_stride() const { return strides_[dim_ - 1]; }

  int64_t element_count() const {
    int64_t count = 1;
    for (int64_t size : sizes()) count *= size;
    return count;
  }
  bool same_dtype(const TensorView& other) const { return dtype_ == other.dtype_; }
  int32_t device_type() const { return device_type_; }  // as the C interface of torch has them
  int32_t device_index() const { return device_index_; }
  bool same_device(const TensorView& other) const {
    return device_type_ == other.device_type_ && device_index_ == other.device_index_;
  }
  bool is_float64() const { return dtype_ == aoti_torch_dtype_float64(); }
  bool is_float32() const { return dtype_ == aoti_torch_dtype_float32(); }
  bool is_bfloat16() const { return dtype_ == aoti_torch_dtype_bfloat16(); }
  bool is_float16() const { return dtype_ == aoti_torch_dtype_float16(); }

 private:
  const Tensor* tensor_;
  void* data_;
  const int64_t *sizes_, *strides_;
  int64_t dim_;
  int32_t dtype_, device_type_, device_index_;
};

}  // namespace kronext
