// Marks a function that both the host and CUDA kernels call.
#pragma once

#if defined(__CUDACC__)
#define KRONEXT_HOST_DEVICE __host__ __device__ inline
#else
// Always inlined: csrc/cpu compiles such a function once per instruction set, and of several shared
// copies the linker could keep the one that this machine cannot run.
#define KRONEXT_HOST_DEVICE inline __attribute__((always_inline))
#endif
