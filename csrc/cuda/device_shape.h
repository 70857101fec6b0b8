// What plans must know of a device.
#pragma once

namespace kronext::cuda {

struct DeviceShape {
  int multiprocessors;
  int shared_bytes;          // of one multiprocessor
  bool slow_double = false;  // a few float64 units only
};

// By compute capability (CUDA programming guide, throughput of arithmetic instructions).
inline bool has_slow_double(int major, int minor) {
  return (major == 8 && minor != 0) || (major == 10 && minor != 0) || major > 10;
}

// Each block leaves so much of its multiprocessor's shared memory to the system.
constexpr int kReservedSharedBytes = 1024;

}  // namespace kronext::cuda
