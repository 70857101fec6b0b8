// How float32 products are made from bfloat16 parts of each number: three ("highest": as accurate
// as float32), two ("high"), or one ("medium"). 16-bit numbers are exact at every precision.
#pragma once

namespace kronext {

enum class MatmulPrecision { kHighest, kHigh, kMedium };

// Parts of a float32 number.
constexpr int parts_of(MatmulPrecision precision) {
  return precision == MatmulPrecision::kHighest ? 3 : precision == MatmulPrecision::kHigh ? 2 : 1;
}

}  // namespace kronext
