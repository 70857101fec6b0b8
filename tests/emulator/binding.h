// How an op's kernels come into the module _emulator: <op>_binding.cpp holds one Binding.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "csrc/core/matrix.h"

namespace kronext::emulator {

// A kernel as it is launched, for the rules of tests/kernels. The name that nvcc gives it contains
// `symbol`; `sizes` are what the op's costs are counted from.
struct KernelShape {
  std::string op, name, symbol;
  int threads, shared_bytes, blocks;
  std::map<std::string, int> sizes = {};
};

struct Binding {
  void (*define)(pybind11::module_&);
  std::vector<KernelShape> (*kernels)();

  Binding(void (*define)(pybind11::module_&), std::vector<KernelShape> (*kernels)());
};

// Address, dtype, rows, columns and strides of a tensor.
using MatrixTuple = std::tuple<uintptr_t, Dtype, int64_t, int64_t, int64_t, int64_t>;

inline Matrix matrix(const MatrixTuple& t) {
  const auto& [data, dtype, rows, columns, row_stride, column_stride] = t;
  return {reinterpret_cast<void*>(data), dtype, rows, columns, row_stride, column_stride};
}

}  // namespace kronext::emulator
