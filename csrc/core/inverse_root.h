// The inverse root of an eigenvalue, and what became of a matrix. Shared by every device.
#pragma once

#include <math.h>
#include <stddef.h>
#include <stdint.h>

#include "csrc/core/host_device.h"

namespace kronext {

// Status of one matrix of a batch, as callers read it from the `info` tensor.
enum Info : int32_t { kDone = 0, kNonFinite = 1, kNotConverged = 2 };

// f(lambda) = (max(lambda, 0) + eps + relative_eps * lambda_max)^(-1 / root), for any root > 0.
struct Damping {
  double root;
  double eps;
  double relative_eps;
  double cutoff;  // undamped eigenvalues at or below cutoff * lambda_max count as 0

  KRONEXT_HOST_DEVICE bool undamped() const { return eps == 0 && relative_eps == 0; }
};

// Damping::cutoff of matrices of type T. float32 eigenvalues are found in wider arithmetic, so only
// the rounding of the matrix itself blurs them, at any size; those of float64 are blurred by the
// solver, whose error grows with the size.
template <class T>
KRONEXT_HOST_DEVICE double undamped_cutoff(int64_t n) {
  return sizeof(T) == 8 ? double(n > 4 ? n : 4) * 0x1p-53 : 4 * 0x1p-24;
}

// What f raises to -1/root; 0 stands for an eigenvalue that the (pseudo-)inverse leaves out. Value
// is double or a vector of doubles.
template <class Value>
KRONEXT_HOST_DEVICE Value damped_eigenvalue(Value value, Value largest, const Damping& damping) {
  const Value zero{};
  const Value bound = largest > zero ? largest : zero;
  if (damping.undamped()) return value > damping.cutoff * bound ? value : zero;
  return (value > zero ? value : zero) + damping.eps + damping.relative_eps * bound;
}

// f(value); 0 where nothing is left to invert: the root of a pseudo-inverse.
KRONEXT_HOST_DEVICE double damped_inverse_root(double value, double largest,
                                               const Damping& damping) {
  const double damped = damped_eigenvalue(value, largest, damping);
  return damped > 0 ? pow(damped, -1 / damping.root) : 0;
}

// Only the lower triangles are read. Any of `values`, `vectors` and `roots` may be null. Neighbours
// of a matrix that fails (info != 0) are computed as if it were not there.
template <class T>
struct EighGroup {
  int64_t n;
  int64_t count;             // 1 .. EighKernel::group_size
  const T* const* matrices;  // count matrices of n rows
  int64_t row_stride;        // of a matrix, in elements
  T* const* values;          // count x n, ascending
  T* const* vectors;         // count x (n, n) dense; column k belongs to value k
  T* const* roots;           // count x (n, n) dense, symmetric bit for bit
  const Damping* damping;    // of the roots; null if there are none
  int32_t* info;             // count; kNotConverged too where a result may not fit T
  bool keep_failed;          // leave results of matrices that fail as they were; else the identity
};

template <class T>
struct EighKernel {
  // Matrices that one call takes at most, which is what it is fastest with; next best is a quarter
  // or half of them, one or two vectors of matrices.
  int64_t group_size;
  // Bytes that a call needs whatever its count. Where n is large and vectors have 64 bytes: about
  // 200 n^2 for float in mixed precision, 400 n^2 in plain float32, which has twice the lanes, and
  // for double.
  size_t (*workspace_bytes)(int64_t n);
  // n >= 1; `workspace` is aligned to 64 bytes and belongs to this call alone.
  void (*run)(const EighGroup<T>&, void* workspace);
};

}  // namespace kronext
