// _emulator: the emulated kernels, for pytest. Each op has a binding of its own.
#include "tests/emulator/binding.h"
#include "tests/emulator/bugs.h"
#include "tests/emulator/instructions.h"
#include "tests/emulator/runtime/emulator.h"

namespace py = pybind11;

namespace kronext::emulator {
namespace {

// A function, so that it exists before the first Binding of another file asks for it.
std::vector<const Binding*>& bindings() {
  static std::vector<const Binding*> all;
  return all;
}

void define_machine(py::module_& m) {
  py::register_exception<Error>(m, "EmulatorError", PyExc_RuntimeError);
  py::enum_<Order>(m, "Order")
      .value("FORWARD", Order::kForward)
      .value("REVERSE", Order::kReverse)
      .value("RANDOM", Order::kRandom);
  m.def(
      "set_schedule", [](Order order, uint64_t seed) { schedule() = {order, seed}; },
      py::arg("order"), py::arg("seed") = 0);
  m.def("barriers", &barriers);
  m.def("bug_names", &bug_names);
  m.def("run_bug", &run_bug);
  m.def("run_mma", &run_mma);
  m.def("run_ldmatrix", &run_ldmatrix);
  m.def("run_copy_async", &run_copy_async);
  m.def("run_pack_bfloat16", &run_pack_bfloat16);
  m.def("run_half_to_float", &run_half_to_float);
  m.def("run_shuffle", &run_shuffle);
  m.def("run_ballot", &run_ballot);
  m.def("run_reduce_max", &run_reduce_max);
  m.def("run_any_odd", &run_any_odd);
  m.def("run_rsqrt", &run_rsqrt);
  m.def("run_fdividef", &run_fdividef);
}

void define_kernels(py::module_& m) {
  py::enum_<Dtype>(m, "Dtype")
      .value("float64", Dtype::kFloat64)
      .value("float32", Dtype::kFloat32)
      .value("bfloat16", Dtype::kBFloat16)
      .value("float16", Dtype::kFloat16);
  py::class_<KernelShape>(m, "KernelShape")
      .def_readonly("op", &KernelShape::op)
      .def_readonly("name", &KernelShape::name)
      .def_readonly("symbol", &KernelShape::symbol)
      .def_readonly("threads", &KernelShape::threads)
      .def_readonly("shared_bytes", &KernelShape::shared_bytes)
      .def_readonly("blocks", &KernelShape::blocks)
      .def_readonly("sizes", &KernelShape::sizes);
  for (const Binding* binding : bindings()) binding->define(m);
  m.def("kernels", [] {
    std::vector<KernelShape> all;
    for (const Binding* binding : bindings()) {
      for (const KernelShape& shape : binding->kernels()) all.push_back(shape);
    }
    return all;
  });
}

}  // namespace

Binding::Binding(void (*define)(py::module_&), std::vector<KernelShape> (*kernels)())
    : define(define), kernels(kernels) {
  bindings().push_back(this);
}

PYBIND11_MODULE(_emulator, m) {
  m.doc() = "kronext's CUDA kernels, executed on the CPU";
  define_machine(m);
  define_kernels(m);
}

}  // namespace kronext::emulator
