// upload: every byte, for tables around the sizes of its kernels.
#include "csrc/cuda/upload.h"

#include <cstdio>
#include <cstring>
#include <random>

#include "tests/emulator/check.h"
#include "tests/emulator/device_memory.h"

namespace kronext::emulator {
namespace {

int check_upload() {
  int wrong = 0;
  for (int64_t size : {16, 4000, 4016, 32000, 32016, 70000}) {
    // 16 bytes that are not asked for follow in both.
    DeviceMemory host(size + 16), device(size + 16);
    std::mt19937 random(1);
    for (int64_t i = 0; i < size; ++i) static_cast<char*>(host.data())[i] = char(random());
    cuda::upload(device.data(), host.data(), size, nullptr);
    if (std::memcmp(host.data(), device.data(), size_t(size) + 16) == 0) continue;
    ++wrong;
    std::fprintf(stderr, "upload of %ld bytes: wrong\n", long(size));
  }
  return wrong;
}

const Check upload("upload", &check_upload);

}  // namespace
}  // namespace kronext::emulator
