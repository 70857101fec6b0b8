#include "tests/emulator/bugs.h"

#include <map>

#include "csrc/cuda/launch.cuh"
#include "csrc/cuda/ptx.cuh"

namespace kronext::emulator {
namespace {

constexpr int kThreads = 128, kBlocks = 2, kOutputs = 256;
constexpr int kSharedBytes = kThreads * int(sizeof(float));

__global__ void no_bug(float* out) {
  KRONEXT_DYNAMIC_SHARED(memory);
  float* shared = reinterpret_cast<float*>(memory);
  shared[threadIdx.x] = float(threadIdx.x);
  __syncthreads();
  out[blockIdx.x * kThreads + threadIdx.x] = shared[kThreads - 1 - threadIdx.x];
}

__global__ void no_bug_inside_a_warp(float* out) {
  KRONEXT_DYNAMIC_SHARED(memory);
  float* shared = reinterpret_cast<float*>(memory);
  shared[threadIdx.x] = float(threadIdx.x);
  __syncwarp();
  out[blockIdx.x * kThreads + threadIdx.x] = shared[threadIdx.x ^ 1];
}

__global__ void read_before_write(float* out) {
  KRONEXT_DYNAMIC_SHARED(memory);
  float* shared = reinterpret_cast<float*>(memory);
  shared[threadIdx.x] = float(threadIdx.x);
  out[blockIdx.x * kThreads + threadIdx.x] = shared[kThreads - 1 - threadIdx.x];
}

__global__ void write_before_read_is_done(float* out) {
  KRONEXT_DYNAMIC_SHARED(memory);
  float* shared = reinterpret_cast<float*>(memory);
  float sum = 0;
  for (int round = 0; round < 4; ++round) {
    shared[threadIdx.x] = float(threadIdx.x) + float(round);
    __syncthreads();
    sum += shared[kThreads - 1 - threadIdx.x];
  }
  out[blockIdx.x * kThreads + threadIdx.x] = sum;
}

__global__ void warp_barrier_between_warps(float* out) {
  KRONEXT_DYNAMIC_SHARED(memory);
  float* shared = reinterpret_cast<float*>(memory);
  shared[threadIdx.x] = float(threadIdx.x);
  __syncwarp();
  out[blockIdx.x * kThreads + threadIdx.x] = shared[(threadIdx.x + 32) % kThreads];
}

__global__ void plain_sum_in_global_memory(float* out) { out[blockIdx.x] += 1.0f; }

__global__ void divergent_barrier(float* out) {
  if (threadIdx.x < 64) __syncthreads();
  out[threadIdx.x] = 1;
  __syncthreads();
}

__global__ void divergent_shuffle(float* out) {
  float value = float(threadIdx.x);
  if (threadIdx.x % 32 < 16) value = __shfl_xor_sync(~0u, value, 1);
  out[threadIdx.x] = value + __shfl_down_sync(~0u, value, 1);
}

__global__ void lane_outside_its_mask(float* out) {
  out[threadIdx.x] = float(__ballot_sync(0xffffu, 1));
}

__global__ void mask_of_exited_lanes(float* out) {
  if (threadIdx.x % 32 == 31) return;
  __syncthreads();
  out[threadIdx.x] = __shfl_xor_sync(~0u, float(threadIdx.x), 1);
}

__global__ void shuffle_from_outside_the_mask(float* out) {
  if (threadIdx.x % 32 < 16) out[threadIdx.x] = __shfl_xor_sync(0xffffu, 1.0f, 16);
}

__global__ void deadlock(float* out) {
  if (threadIdx.x % 32 < 16) {
    __syncwarp();
  } else {
    __syncthreads();
  }
  out[threadIdx.x] = 1;
}

__global__ void shared_overflow(float* out) {
  KRONEXT_DYNAMIC_SHARED(memory);
  float* shared = reinterpret_cast<float*>(memory);
  shared[threadIdx.x + 1] = 1;
  __syncthreads();
  out[threadIdx.x] = shared[threadIdx.x + 1];
}

__global__ void global_overflow(float* out) {
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  out[i + 1] = 1;
}

__global__ void uninitialised_shared(float* out) {
  KRONEXT_DYNAMIC_SHARED(memory);
  out[threadIdx.x] = reinterpret_cast<float*>(memory)[threadIdx.x];
}

__global__ void missing_copy_wait(float* out) {
  KRONEXT_DYNAMIC_SHARED(memory);
  float* shared = reinterpret_cast<float*>(memory);
  out[threadIdx.x] = 1;
  cuda::copy_async_4(&shared[threadIdx.x], &out[threadIdx.x], 4);
  cuda::copy_async_commit();
  out[threadIdx.x] = shared[threadIdx.x];
}

__global__ void misaligned_copy(float* out) {
  KRONEXT_DYNAMIC_SHARED(memory);
  cuda::copy_async_16(memory, out + 1 + threadIdx.x);
  cuda::copy_async_wait<0>();
}

__global__ void blocks_write_one_place(float* out) {
  if (threadIdx.x == 0) out[0] = float(blockIdx.x);
}

const std::map<std::string, void (*)(float*)>& bugs() {
  static const std::map<std::string, void (*)(float*)> table = {
#define KRONEXT_BUG(name) {#name, name}
      KRONEXT_BUG(no_bug),
      KRONEXT_BUG(no_bug_inside_a_warp),
      KRONEXT_BUG(read_before_write),
      KRONEXT_BUG(write_before_read_is_done),
      KRONEXT_BUG(warp_barrier_between_warps),
      KRONEXT_BUG(plain_sum_in_global_memory),
      KRONEXT_BUG(divergent_barrier),
      KRONEXT_BUG(divergent_shuffle),
      KRONEXT_BUG(lane_outside_its_mask),
      KRONEXT_BUG(mask_of_exited_lanes),
      KRONEXT_BUG(shuffle_from_outside_the_mask),
      KRONEXT_BUG(deadlock),
      KRONEXT_BUG(shared_overflow),
      KRONEXT_BUG(global_overflow),
      KRONEXT_BUG(uninitialised_shared),
      KRONEXT_BUG(missing_copy_wait),
      KRONEXT_BUG(misaligned_copy),
      KRONEXT_BUG(blocks_write_one_place),
#undef KRONEXT_BUG
  };
  return table;
}

}  // namespace

std::vector<std::string> bug_names() {
  std::vector<std::string> names;
  for (const auto& [name, kernel] : bugs()) names.push_back(name);
  return names;
}

std::vector<float> run_bug(const std::string& name) {
  std::vector<float> out(kOutputs, 0.0f);
  cuda::launch(bugs().at(name), {kBlocks, kThreads, kSharedBytes}, nullptr, out.data());
  return out;
}

}  // namespace kronext::emulator
