// How every kernel starts and takes its shared memory.
//
// The emulator puts a twin of this header first on the include path (tests/emulator/twins), so
// kernels need nothing else to run on the CPU.
#pragma once

#include <cuda_runtime.h>
#include <stdint.h>

namespace kronext::cuda {

struct LaunchShape {
  int64_t blocks;
  int threads;
  int shared_bytes;  // dynamic
};

// What every device grants a block without being asked.
constexpr int kDefaultSharedBytes = 48 * 1024;

template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), const LaunchShape& shape, cudaStream_t stream,
                   Arguments... arguments) {
  if (shape.shared_bytes > kDefaultSharedBytes) {
    const cudaError_t status = cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shape.shared_bytes);
    if (status != cudaSuccess) return status;
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(unsigned(shape.blocks));
  config.blockDim = dim3(unsigned(shape.threads));
  config.dynamicSmemBytes = size_t(shape.shared_bytes);
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...);
}

}  // namespace kronext::cuda

// Declares `name`, the block's dynamic shared memory. Kernels have no other shared memory.
#define KRONEXT_DYNAMIC_SHARED(name) extern __shared__ __align__(128) unsigned char name[]
