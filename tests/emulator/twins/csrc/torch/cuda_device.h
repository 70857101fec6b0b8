// The twin of csrc/torch/cuda_device.h: memory as launchers get it, no stream, and tensors that are
// on the CPU.
#pragma once

#include <cuda_runtime.h>

#include "csrc/cuda/device_shape.h"
#include "csrc/cuda/upload.h"
#include "csrc/torch/check.h"
#include "tests/emulator/device_memory.h"

namespace kronext {

class CudaDevice {
 public:
  CudaDevice(const char* op, const Tensor&) : op_(op) {}

  cudaStream_t stream() const { return nullptr; }

  cuda::DeviceShape shape() const { return {3, int(emulator::kMaxSharedBytes)}; }

  template <class Plan, class Fill, class Launch>
  void run(const Plan& plan, const Fill& fill, const Launch& launch) const {
    std::vector<uint4> host(size_t((plan.table_bytes + 15) / 16));
    const emulator::DeviceMemory table(int64_t(host.size() * sizeof(uint4)));
    const emulator::DeviceMemory workspace(plan.workspace_bytes);
    fill(host.data(), workspace.data());
    const bool done =
        cuda::upload(table.data(), host.data(), plan.table_bytes, stream()) == cudaSuccess &&
        launch(table.data(), workspace.data()) == cudaSuccess;
    check(done, op_, "the emulated device must take the work (got an error)");
  }

 private:
  const char* op_;
};

}  // namespace kronext
