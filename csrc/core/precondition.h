// out <- left G right, either factor absent.
#pragma once

#include "csrc/core/matrix.h"

namespace kronext {

struct PreconditionProblem {
  Matrix g;      // m x n
  Matrix left;   // m x m; data null: absent
  Matrix right;  // n x n; data null: absent
  Matrix out;    // m x n, float32 or float64, rows contiguous
  // Sums of squares of out, one for each step of the CPU kernel; null: not wanted there.
  double* squares = nullptr;
  int parts = 0;  // bfloat16 parts that may stand for a float32 number; 0: none may. CPU only.
};

}  // namespace kronext
