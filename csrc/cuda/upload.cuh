// The kernel behind upload.h. It moves its argument, in constant memory, to global memory: 16 bytes
// a thread and step.
#pragma once

#include "csrc/cuda/launch.cuh"

namespace kronext::cuda {

constexpr int kUploadThreads = 256;
// Every launch copies its whole argument, so short tables have a kernel of their own. 32764 bytes
// is the most that a kernel takes, from compute capability 7.0.
constexpr int kShortUpload = 4000, kLongUpload = 32000;

template <int bytes>
struct UploadChunk {
  uint4 data[bytes / 16];
};

template <int bytes>
__global__ void __launch_bounds__(kUploadThreads)
    upload_kernel(const __grid_constant__ UploadChunk<bytes> chunk, uint4* to, int count) {
  for (int i = int(threadIdx.x); i < count; i += kUploadThreads) {
    to[i] = chunk.data[i];
  }
}

}  // namespace kronext::cuda
