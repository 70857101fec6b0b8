// The CUDA device that an op runs on: its guard, torch's current stream, memory from torch's
// allocator, and how a plan's table gets there.
//
// Nothing here waits for the device, so an op may be captured into a CUDA graph: its workspace then
// comes from the graph's pool, and its table is part of the graph (csrc/cuda/upload.h). Workspaces
// are given back when the op returns; whatever torch hands them to next on this stream comes after.
#pragma once

#include <cuda_runtime.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/ops.h>

#include <vector>

#include "csrc/cuda/device_shape.h"
#include "csrc/cuda/upload.h"
#include "csrc/torch/check.h"

// Of torch's C interface, but declared only where torch itself is built for CUDA.
extern "C" AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device_index, void** stream);

namespace kronext {

inline void check_cuda(const char* op, cudaError_t status) {
  check(status == cudaSuccess, op, "the CUDA device must take the work (got ",
        cudaGetErrorString(status), ")");
}

class CudaDevice {
 public:
  CudaDevice(const char* op, const Tensor& where)
      : op_(op), device_(checked(op, where)), guard_(device_.index()) {
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device_.index(), &stream));
    stream_ = static_cast<cudaStream_t>(stream);
  }

  cudaStream_t stream() const { return stream_; }

  cuda::DeviceShape shape() const {
    const auto attribute = [&](cudaDeviceAttr which) {
      int value = 0;
      check_cuda(op_, cudaDeviceGetAttribute(&value, which, device_.index()));
      return value;
    };
    const int major = attribute(cudaDevAttrComputeCapabilityMajor),
              minor = attribute(cudaDevAttrComputeCapabilityMinor);
    return {attribute(cudaDevAttrMultiProcessorCount),
            attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor),
            cuda::has_slow_double(major, minor)};
  }

  Tensor memory(int64_t bytes) const {
    return torch::stable::empty({bytes}, torch::headeronly::ScalarType::Byte, std::nullopt,
                                device_);
  }

  // Fills a plan's table on the host, brings it to the device, and launches the plan. A table may
  // point into the workspace, so it is filled when that has its place.
  template <class Plan, class Fill, class Launch>
  void run(const Plan& plan, const Fill& fill, const Launch& launch) const {
    constexpr int64_t kAlignment = 16;
    std::vector<uint4> host(size_t((plan.table_bytes + kAlignment - 1) / kAlignment));
    const Tensor table = memory(int64_t(host.size()) * kAlignment);
    const Tensor workspace = memory(plan.workspace_bytes);
    fill(host.data(), workspace.data_ptr());
    check_cuda(op_, cuda::upload(table.data_ptr(), host.data(), plan.table_bytes, stream_));
    check_cuda(op_, launch(table.data_ptr(), workspace.data_ptr()));
  }

 private:
  static torch::stable::Device checked(const char* op, const Tensor& where) {
    check(where.is_cuda(), op, "tensors must be on a CUDA device (got device=", device_text(where),
          ")");
    return where.device();
  }

  const char* op_;
  torch::stable::Device device_;
  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_;
};

}  // namespace kronext
