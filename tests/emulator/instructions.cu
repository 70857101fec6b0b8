#include "tests/emulator/instructions.h"

#include <string>

#include "csrc/cuda/launch.cuh"
#include "csrc/cuda/ptx.cuh"

namespace kronext::emulator {
namespace {

constexpr int kLanes = 32;

template <cuda::Half kind>
__global__ void mma(const uint32_t* a, const uint32_t* b, float* d, int repeats) {
  const int lane = int(threadIdx.x);
  uint32_t my_a[4], my_b[2];
  float my_d[4];
  for (int i = 0; i < 4; ++i) my_a[i] = a[lane * 4 + i];
  for (int i = 0; i < 2; ++i) my_b[i] = b[lane * 2 + i];
  for (int i = 0; i < 4; ++i) my_d[i] = d[lane * 4 + i];
  for (int i = 0; i < repeats; ++i) cuda::mma_m16n8k16<kind>(my_d, my_a, my_b);
  for (int i = 0; i < 4; ++i) d[lane * 4 + i] = my_d[i];
}

template <bool transposed>
__global__ void ldmatrix(const uint16_t* rows, uint32_t* registers) {
  KRONEXT_DYNAMIC_SHARED(memory);
  uint16_t* shared = reinterpret_cast<uint16_t*>(memory);
  const int lane = int(threadIdx.x);
  for (int i = lane; i < kLanes * 8; i += kLanes) shared[i] = rows[i];
  __syncwarp();
  uint32_t mine[4];
  cuda::ldmatrix_x4<transposed>(mine, shared + lane * 8);
  for (int i = 0; i < 4; ++i) registers[lane * 4 + i] = mine[i];
}

__global__ void copy_async(const uint8_t* from, uint8_t* to, int valid_bytes, int size) {
  KRONEXT_DYNAMIC_SHARED(memory);
  if (size == 4) {
    cuda::copy_async_4(memory, from, valid_bytes);
  } else if (valid_bytes == 16) {
    cuda::copy_async_16(memory, from);
  } else {
    cuda::copy_async_16(memory, from, valid_bytes);
  }
  cuda::copy_async_commit();
  cuda::copy_async_wait<0>();
  for (int i = 0; i < 16; ++i) to[i] = memory[i];
}

__global__ void pack_bfloat16(float low, float high, uint32_t* out) {
  *out = cuda::pack_bfloat16(low, high);
}

__global__ void half_to_float(uint16_t bits, int bfloat16, float* out) {
  *out = bfloat16 ? cuda::bfloat16_to_float(bits) : cuda::float16_to_float(bits);
}

__global__ void shuffle(int kind, float* values, int argument, int width) {
  const float mine = values[threadIdx.x];
  float other = 0;
  if (kind == 0) other = __shfl_xor_sync(~0u, mine, argument, width);
  if (kind == 1) other = __shfl_up_sync(~0u, mine, unsigned(argument), width);
  if (kind == 2) other = __shfl_down_sync(~0u, mine, unsigned(argument), width);
  if (kind == 3) other = __shfl_sync(~0u, mine, argument, width);
  values[threadIdx.x] = other;
}

__global__ void ballot(uint32_t votes, uint32_t* out) {
  const uint32_t result = __ballot_sync(~0u, int(votes >> threadIdx.x & 1));
  if (threadIdx.x == 0) *out = result;
}

__global__ void reduce(bool any, uint32_t* values, int width) {
  const int lane = int(threadIdx.x);
  const unsigned mask = (width == 32 ? ~0u : (1u << width) - 1) << lane / width * width;
  const uint32_t mine = values[lane];
  values[lane] = any ? uint32_t(__any_sync(mask, mine & 1)) : __reduce_max_sync(mask, mine);
}

__global__ void approximate(float x, float y, float* out) {
  *out = y == 0 ? rsqrtf(x) : __fdividef(x, y);
}

}  // namespace

std::vector<float> run_mma(const Registers& a, const Registers& b, std::vector<float> d,
                           bool bfloat16, int repeats) {
  cuda::launch(bfloat16 ? mma<cuda::Half::kBFloat16> : mma<cuda::Half::kFloat16>, {1, kLanes, 0},
               nullptr, a.data(), b.data(), d.data(), repeats);
  return d;
}

Registers run_ldmatrix(const std::vector<uint16_t>& rows, bool transposed) {
  Registers registers(kLanes * 4);
  cuda::launch(transposed ? ldmatrix<true> : ldmatrix<false>, {1, kLanes, kLanes * 16}, nullptr,
               rows.data(), registers.data());
  return registers;
}

std::vector<uint8_t> run_copy_async(const std::vector<uint8_t>& bytes, int valid_bytes, int size) {
  alignas(16) uint8_t from[16];
  std::vector<uint8_t> to(16);
  for (int i = 0; i < 16; ++i) from[i] = bytes.at(size_t(i));
  cuda::launch(copy_async, {1, 1, 16}, nullptr, from, to.data(), valid_bytes, size);
  return to;
}

uint32_t run_pack_bfloat16(float low, float high) {
  uint32_t packed;
  cuda::launch(pack_bfloat16, {1, 1, 0}, nullptr, low, high, &packed);
  return packed;
}

float run_half_to_float(uint16_t bits, bool bfloat16) {
  float value;
  cuda::launch(half_to_float, {1, 1, 0}, nullptr, bits, bfloat16, &value);
  return value;
}

std::vector<float> run_shuffle(const std::string& kind, std::vector<float> values, int argument,
                               int width) {
  const int number = kind == "xor" ? 0 : kind == "up" ? 1 : kind == "down" ? 2 : 3;
  cuda::launch(shuffle, {1, kLanes, 0}, nullptr, number, values.data(), argument, width);
  return values;
}

uint32_t run_ballot(uint32_t votes) {
  uint32_t result;
  cuda::launch(ballot, {1, kLanes, 0}, nullptr, votes, &result);
  return result;
}

Registers run_reduce_max(Registers values, int width) {
  cuda::launch(reduce, {1, kLanes, 0}, nullptr, false, values.data(), width);
  return values;
}

Registers run_any_odd(Registers values, int width) {
  cuda::launch(reduce, {1, kLanes, 0}, nullptr, true, values.data(), width);
  return values;
}

float run_rsqrt(float x) { return run_fdividef(x, 0); }

float run_fdividef(float x, float y) {
  float result;
  cuda::launch(approximate, {1, 1, 0}, nullptr, x, y, &result);
  return result;
}

}  // namespace kronext::emulator
