// What is not an op: what was built, and what this machine runs.
#include <pybind11/pybind11.h>

#include "csrc/cpu/capability.h"

namespace py = pybind11;
using namespace kronext;

PYBIND11_MODULE(_bindings, m) {
  m.doc() = "Build information and CPU capability of kronext's native modules.";
  m.def("build", [] {
    py::dict info;
    info["version"] = KRONEXT_VERSION;
    info["torch"] = KRONEXT_TORCH_VERSION;
    info["compiler"] = KRONEXT_COMPILER;
    info["build_type"] = KRONEXT_BUILD_TYPE;
    info["cuda_compiler"] = KRONEXT_CUDA_COMPILER;
    info["cuda_architectures"] = py::str(KRONEXT_CUDA_ARCHITECTURES).attr("split")();
    info["cpu_capabilities"] = py::str(KRONEXT_CPU_SETS).attr("split")();
    return info;
  });
  m.def("cpu_capability", [] { return cpu::name_of(cpu::capability()); });
  m.def("detected_cpu_capability", [] { return cpu::name_of(cpu::detected_capability()); });
}
