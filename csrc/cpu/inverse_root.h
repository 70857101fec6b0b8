// Eigendecomposition and inverse roots of a group of symmetric matrices of one size.
//
// Included once per instruction set (KRONEXT_CPU names it and its namespace).
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "csrc/core/inverse_root.h"

namespace kronext::cpu::KRONEXT_CPU {

// Matrices that one call takes at most, which is what it is fastest with; next best is a quarter or
// half of them, one or two vectors of matrices. n >= 1.
int64_t eigh_group_size(int64_t n);

// Bytes that a call needs whatever its count, about 200 n^2 for float where n is large.
template <class T>
size_t eigh_workspace_bytes(int64_t n);

// `workspace` is aligned to 64 bytes and belongs to this call alone. float: tridiagonalisation, QL
// and eigenvalues in float64, eigenvectors and root in float32. double: everything in float64.
template <class T>
void eigh_group(const EighGroup<T>& group, void* workspace);

}  // namespace kronext::cpu::KRONEXT_CPU
