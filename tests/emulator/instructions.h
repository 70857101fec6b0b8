// One kernel around each instruction of csrc/cuda/ptx.cuh, so that tests can hold the twins against
// the tables of the PTX ISA. Registers go in and come out as the lanes hold them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace kronext::emulator {

using Registers = std::vector<uint32_t>;  // lane by lane

// a: 4 a lane, b: 2 a lane, d: 4 floats a lane. The sum is made `repeats` times.
std::vector<float> run_mma(const Registers& a, const Registers& b, std::vector<float> d,
                           bool bfloat16, int repeats);

// rows: 32 rows of 8 16-bit numbers; 4 registers a lane come back.
Registers run_ldmatrix(const std::vector<uint16_t>& rows, bool transposed);

// What 16 and 4 byte copies of `valid_bytes` leave in 16 bytes of 0xff.
std::vector<uint8_t> run_copy_async(const std::vector<uint8_t>& bytes, int valid_bytes, int size);

uint32_t run_pack_bfloat16(float low, float high);
float run_half_to_float(uint16_t bits, bool bfloat16);

// One value from each lane's neighbour: kind is "xor", "up", "down" or "index".
std::vector<float> run_shuffle(const std::string& kind, std::vector<float> values, int argument,
                               int width);
uint32_t run_ballot(uint32_t votes);

// What each lane learns from its own group of `width` lanes: the largest value, whether any is odd.
Registers run_reduce_max(Registers values, int width);
Registers run_any_odd(Registers values, int width);

float run_rsqrt(float x);
float run_fdividef(float x, float y);

}  // namespace kronext::emulator
