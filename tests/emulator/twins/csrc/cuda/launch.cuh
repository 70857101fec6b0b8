// The twin of csrc/cuda/launch.cuh.
#pragma once

#include <cuda_runtime.h>

namespace kronext::cuda {

struct LaunchShape {
  int64_t blocks;
  int threads;
  int shared_bytes;
};

template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), const LaunchShape& shape, cudaStream_t,
                   Arguments... arguments) {
  const auto thread = [&] { kernel(Parameters(arguments)...); };
  emulator::run_grid(thread, {unsigned(shape.blocks)}, {unsigned(shape.threads)},
                     size_t(shape.shared_bytes));
  return cudaSuccess;
}

}  // namespace kronext::cuda

#define KRONEXT_DYNAMIC_SHARED(name) \
  unsigned char* const name = static_cast<unsigned char*>(::kronext::emulator::dynamic_shared())
