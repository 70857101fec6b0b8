// What plans must know of a device.
#pragma once

namespace kronext::cuda {

struct DeviceShape {
  int multiprocessors;
  int shared_bytes;          // of one multiprocessor
  bool slow_double = false;  // a few float64 units only: compute capability x.6, 8.9, 12.x
};

// Each block leaves so much of its multiprocessor's shared memory to the system.
constexpr int kReservedSharedBytes = 1024;

}  // namespace kronext::cuda
