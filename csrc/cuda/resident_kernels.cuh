// The resident eigensolvers that are built, and their names.
#pragma once

#include "csrc/cuda/inverse_root.h"
#include "csrc/cuda/resident_eigh.cuh"

namespace kronext::cuda {

// Calls f with the shape and the arithmetic of a kernel.
template <class F>
auto with_resident_shape(ResidentSize size, const F& f) {
  switch (size) {
    case ResidentSize::k16:
      return f(Resident16{});
    case ResidentSize::k32:
      return f(Resident32{});
    case ResidentSize::k64:
      return f(Resident64{});
    case ResidentSize::k128:
      return f(Resident128{});
    case ResidentSize::k160:
      break;
  }
  return f(Resident160{});
}

// Calls f(shape, kernel).
template <class F>
auto with_resident_kernel(const ResidentKernel& kernel, const F& f) {
  return with_resident_shape(kernel.size, [&](auto shape) {
    using Shape = decltype(shape);
    if (kernel.two_floats) {
      return kernel.warm ? f(shape, &resident_eigh_kernel<Shape, TwoFloat, true>)
                         : f(shape, &resident_eigh_kernel<Shape, TwoFloat, false>);
    }
    return kernel.warm ? f(shape, &resident_eigh_kernel<Shape, double, true>)
                       : f(shape, &resident_eigh_kernel<Shape, double, false>);
  });
}

}  // namespace kronext::cuda
