// Memory as a launcher gets it: aligned, exactly as long as asked for (ASan guards its ends), and
// full of NaN.
#pragma once

#include <cstdint>
#include <cstring>
#include <new>

namespace kronext::emulator {

class DeviceMemory {
 public:
  explicit DeviceMemory(int64_t bytes) : data_(::operator new(size_t(bytes), kAlignment)) {
    std::memset(data_, 0xff, size_t(bytes));
  }
  ~DeviceMemory() { ::operator delete(data_, kAlignment); }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  void* data() const { return data_; }

 private:
  static constexpr std::align_val_t kAlignment{256};
  void* data_;
};

}  // namespace kronext::emulator
