// upload: every byte, for tables around the sizes of its kernels.
#include "csrc/cuda/upload.h"

#include <cstdio>
#include <cstring>
#include <numeric>
#include <vector>

#include "tests/emulator/check.h"
#include "tests/emulator/device_memory.h"

namespace kronext::emulator {
namespace {

int check_upload() {
  int wrong = 0;
  for (int64_t size : {16, 4000, 4016, 32000, 32016, 70000}) {
    DeviceMemory host(size), device(size);
    auto* const bytes = static_cast<unsigned char*>(host.data());
    std::iota(bytes, bytes + size, static_cast<unsigned char>(1));
    cuda::upload(device.data(), host.data(), size, nullptr);
    if (std::memcmp(host.data(), device.data(), size_t(size)) == 0) continue;
    ++wrong;
    std::fprintf(stderr, "upload of %ld bytes: wrong\n", long(size));
  }
  return wrong;
}

const Check upload("upload", &check_upload);

}  // namespace
}  // namespace kronext::emulator
