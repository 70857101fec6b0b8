#include "csrc/cuda/upload.h"

#include "csrc/cuda/upload.cuh"
#include "tests/emulator/binding.h"
#include "tests/emulator/device_memory.h"
#include "tests/emulator/runtime/emulator.h"

namespace kronext::emulator {
namespace {

namespace py = pybind11;

std::vector<KernelShape> kernels() {
  const auto shape = [](const char* name, int bytes) {
    const std::string symbol = "upload_kernel<" + std::to_string(bytes) + ">";
    return KernelShape{"upload", name, symbol, cuda::kUploadThreads, 0, 6, {{"bytes", bytes}}};
  };
  return {shape("short", cuda::kShortUpload), shape("long", cuda::kLongUpload)};
}

// What lies in device memory afterwards, and after the last byte that was asked for.
py::bytes upload(const std::string& bytes) {
  const int64_t rounded = (int64_t(bytes.size()) + 15) / 16 * 16;
  DeviceMemory host(rounded), device(rounded + 16);
  std::memcpy(host.data(), bytes.data(), bytes.size());
  if (cuda::upload(device.data(), host.data(), int64_t(bytes.size()), nullptr) != cudaSuccess) {
    throw Error("upload: the launch failed");
  }
  return {static_cast<const char*>(device.data()), size_t(rounded + 16)};
}

void define(py::module_& m) { m.def("upload", &upload); }

const Binding binding(&define, &kernels);

}  // namespace
}  // namespace kronext::emulator
