// Host memory to device memory through the arguments of kernels.
//
// What a launch takes as an argument is copied when it is called, and into a CUDA graph when one is
// captured: no pinned memory that must live on, no staging copy, no synchronisation. That is what
// the tables of the ops need, a few kilobytes for each call.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace kronext::cuda {

// Both pointers are aligned to 16 bytes; the device memory is as long as `bytes` rounded up to 16.
cudaError_t upload(void* device, const void* host, int64_t bytes, cudaStream_t stream);

}  // namespace kronext::cuda
