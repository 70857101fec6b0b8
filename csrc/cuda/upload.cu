#include "csrc/cuda/upload.h"

#include <algorithm>
#include <cstring>

#include "csrc/cuda/upload.cuh"

namespace kronext::cuda {
namespace {

template <int kBytes>
cudaError_t upload_chunk(char* device, const char* host, int64_t bytes, cudaStream_t stream) {
  UploadChunk<kBytes> chunk = {};
  std::memcpy(&chunk, host, size_t(bytes));
  return launch(upload_kernel<kBytes>, {1, kUploadThreads, 0}, stream, chunk,
                reinterpret_cast<uint4*>(device), int((bytes + 15) / 16));
}

}  // namespace

cudaError_t upload(void* device, const void* host, int64_t bytes, cudaStream_t stream) {
  char* const to = static_cast<char*>(device);
  const char* const from = static_cast<const char*>(host);
  for (int64_t at = 0; at < bytes;) {
    const int64_t left = bytes - at, count = std::min<int64_t>(left, kLongUpload);
    const cudaError_t status = left <= kShortUpload
                                   ? upload_chunk<kShortUpload>(to + at, from + at, count, stream)
                                   : upload_chunk<kLongUpload>(to + at, from + at, count, stream);
    if (status != cudaSuccess) return status;
    at += count;
  }
  return cudaSuccess;
}

}  // namespace kronext::cuda
