#include "csrc/cuda/power_iteration.h"

#include <algorithm>

#include "csrc/cuda/congruence.cuh"
#include "csrc/cuda/congruence_tiles.cuh"
#include "csrc/cuda/kronecker_basis.cuh"
#include "csrc/cuda/rearranged.cuh"
#include "tests/emulator/binding.h"
#include "tests/emulator/device_memory.h"
#include "tests/emulator/runtime/emulator.h"

namespace kronext::emulator {
namespace {

namespace py = pybind11;

cuda::DeviceShape device(int multiprocessors) { return {multiprocessors, int(kMaxSharedBytes)}; }

void succeed(cudaError_t status) {
  if (status != cudaSuccess) throw Error("power_iteration: a launch failed");
}

// H, L, R, left, right for each product.
void rearranged_matvec(const std::vector<std::array<MatrixTuple, 5>>& list, int multiprocessors) {
  std::vector<RearrangedProduct> products;
  for (const auto& [h, l, r, left, right] : list) {
    products.push_back(
        {matrix(h), matrix(l), matrix(r), matrix(left), matrix(right), false, false});
  }
  const cuda::RearrangedPlan plan =
      cuda::plan_rearranged(products.data(), int64_t(products.size()), device(multiprocessors));
  DeviceMemory table(plan.table_bytes), workspace(plan.workspace_bytes);
  cuda::fill_rearranged_table(plan, products.data(), workspace.data(), table.data());
  succeed(cuda::rearranged_matvec(plan, table.data(), workspace.data(), nullptr, nullptr));
}

// G or D, A or nothing, with the step between samples, their number, and weights w_s.
struct SamplesTuple {
  MatrixTuple g, a;
  bool factored;
  int64_t g_stride, a_stride, count;
};

Samples samples(const SamplesTuple& t) {
  return {matrix(t.g), matrix(t.a), t.factored, t.g_stride, t.a_stride, t.count, nullptr};
}

// A matrix of 0 rows and columns whose data is null: this side is not wanted.
WeightedStep weighted_step(const SamplesTuple& given, const MatrixTuple& l, const MatrixTuple& r,
                           const MatrixTuple& left, const MatrixTuple& right, double decay,
                           double weight, const std::tuple<uintptr_t, Dtype, int64_t>& weights) {
  WeightedStep step;
  step.step = {samples(given),
               {matrix(r), matrix(left), Structure::kGeneral, 1},
               {matrix(l), matrix(right), Structure::kGeneral, 1},
               decay,
               weight};
  step.weights = reinterpret_cast<const void*>(std::get<0>(weights));
  step.weights_dtype = std::get<1>(weights);
  step.weights_stride = std::get<2>(weights);
  return step;
}

// Returns how many launches of products and of sums there were.
std::pair<int64_t, int64_t> kronecker_steps(const std::vector<WeightedStep>& steps,
                                            Inspection inspection, MatmulPrecision precision,
                                            int multiprocessors, int64_t round_bytes) {
  const cuda::KroneckerPlan plan =
      cuda::plan_kronecker_steps(steps.data(), int64_t(steps.size()), inspection, precision,
                                 device(multiprocessors), round_bytes);
  DeviceMemory table(plan.table_bytes), workspace(plan.workspace_bytes);
  cuda::fill_kronecker_table(plan, steps.data(), workspace.data(), table.data());
  succeed(cuda::kronecker_steps(plan, table.data(), workspace.data(), nullptr, nullptr));
  const int64_t sums = std::count_if(plan.launches.begin(), plan.launches.end(),
                                     [](const auto& launch) { return launch.sums; });
  return {int64_t(plan.launches.size()) - sums, sums};
}

// Addresses of left and right, dtype, count, rank, m, n.
using IteratesTuple = std::tuple<uintptr_t, uintptr_t, Dtype, int64_t, int64_t, int64_t, int64_t>;

cuda::Iterates iterates(const IteratesTuple& t) {
  const auto& [left, right, dtype, count, rank, m, n] = t;
  return {reinterpret_cast<void*>(left), reinterpret_cast<void*>(right), dtype, count, rank, m, n};
}

void power_iteration(const IteratesTuple& start, const IteratesTuple& result, uintptr_t sigma,
                     uintptr_t info, const std::vector<SamplesTuple>& given,
                     const std::vector<MatrixTuple>& dense, int64_t steps,
                     std::optional<double> tolerance, MatmulPrecision precision,
                     int multiprocessors) {
  cuda::Iteration iteration{iterates(start),
                            iterates(result),
                            reinterpret_cast<void*>(sigma),
                            reinterpret_cast<int32_t*>(info),
                            {},
                            {}};
  for (const SamplesTuple& s : given) iteration.samples.push_back(samples(s));
  for (const MatrixTuple& h : dense) iteration.dense.push_back(matrix(h));
  const cuda::IterationPlan plan =
      cuda::plan_power_iteration(iteration, steps, tolerance, precision, device(multiprocessors));
  DeviceMemory table(plan.table_bytes), workspace(plan.workspace_bytes);
  cuda::fill_power_iteration_table(plan, iteration, workspace.data(), table.data());
  succeed(cuda::power_iteration(plan, iteration, table.data(), workspace.data(), nullptr));
}

void orthonormalise(const IteratesTuple& columns, const IteratesTuple& previous, uintptr_t turned) {
  const cuda::BasesPlan plan = cuda::plan_bases(iterates(columns));
  DeviceMemory table(plan.table_bytes), workspace(plan.workspace_bytes);
  cuda::fill_orthonormalise_table(plan, iterates(columns), iterates(previous), workspace.data(),
                                  table.data());
  succeed(cuda::orthonormalise(plan, table.data(), workspace.data(),
                               reinterpret_cast<double*>(turned), nullptr));
}

void singular_triples(const IteratesTuple& columns, uintptr_t image, uintptr_t turned,
                      uintptr_t sigma, uintptr_t info, std::optional<double> tolerance) {
  const cuda::BasesPlan plan = cuda::plan_bases(iterates(columns));
  DeviceMemory table(plan.table_bytes), workspace(plan.workspace_bytes);
  const cuda::Triples triples{reinterpret_cast<void*>(image), reinterpret_cast<double*>(turned),
                              reinterpret_cast<void*>(sigma), reinterpret_cast<int32_t*>(info)};
  cuda::fill_triples_table(plan, iterates(columns), triples, workspace.data(), table.data());
  succeed(cuda::singular_triples(plan, table.data(), tolerance, nullptr));
}

const std::map<cuda::CongruenceKernel, std::string>& congruence_names() {
  using enum cuda::CongruenceKernel;
  static const std::map<cuda::CongruenceKernel, std::string> names = {
      {kBFloat16Pairs, "bfloat16 pairs"},      {kBFloat16OnePart, "bfloat16 medium"},
      {kBFloat16TwoParts, "bfloat16 high"},    {kBFloat16ThreeParts, "bfloat16 highest"},
      {kFloat16Pairs, "float16 pairs"},        {kFloat16OnePart, "float16 medium"},
      {kFloat16TwoParts, "float16 high"},      {kFloat16ThreeParts, "float16 highest"},
      {kFloat32OnePart, "float32 medium"},     {kFloat32TwoParts, "float32 high"},
      {kFloat32ThreeParts, "float32 highest"}, {kDouble, "float64"},
  };
  return names;
}

template <class T, Dtype dtype>
KernelShape dense_shape(const std::string& name) {
  using Tile = cuda::RearrangedTile<T, dtype>;
  return {"power_iteration",
          "dense " + name,
          "rearranged_kernel<" + py::type_id<Tile>() + ">",
          Tile::kThreads,
          Tile::kSharedBytes,
          Tile::kBlocks,
          {{"rows", Tile::kRows}, {"bytes", 16 / Tile::kUnit}}};
}

// The kernels that only add and normalise, for one type of value.
template <class T>
std::vector<KernelShape> small_shapes(const std::string& dtype) {
  const std::string type = "<" + py::type_id<T>() + ">", op = "power_iteration";
  return {{op, "sum of products " + dtype, "congruence_sum_kernel" + type,
           cuda::CongruenceSum::kThreads, cuda::CongruenceSum::kSharedBytes, 1},
          {op, "sum of dense " + dtype, "rearranged_sum_kernel" + type, cuda::kRearrangedSumThreads,
           0, 1},
          {op, "orthonormalise " + dtype, "orthonormalise_kernel" + type, cuda::kBasisThreads,
           cuda::BasisBlock::kSharedBytes, 1},
          {op, "triples " + dtype, "triples_kernel" + type, cuda::kBasisThreads,
           cuda::BasisBlock::kSharedBytes, 1}};
}

std::vector<KernelShape> kernels() {
  using enum Dtype;
  std::vector<KernelShape> shapes;
  for (const auto& [kernel, name] : congruence_names()) {
    cuda::with_congruence_tile(kernel, [&, &name = name](auto tile) {
      using Tile = decltype(tile);
      shapes.push_back({"power_iteration",
                        "product " + name,
                        "congruence_kernel<" + py::type_id<Tile>() + ">",
                        Tile::kThreads,
                        Tile::kSharedBytes,
                        Tile::kBlocks,
                        {{"tile", Tile::kTile}, {"depth", Tile::kDepth}}});
    });
  }
  for (const KernelShape& shape :
       {dense_shape<float, kBFloat16>("bfloat16"), dense_shape<float, kFloat16>("float16"),
        dense_shape<float, kFloat32>("float32"), dense_shape<double, kFloat64>("float64"),
        dense_shape<double, kBFloat16>("bfloat16 in float64"),
        dense_shape<double, kFloat16>("float16 in float64"),
        dense_shape<double, kFloat32>("float32 in float64")}) {
    shapes.push_back(shape);
  }
  for (const auto& list : {small_shapes<float>("float32"), small_shapes<double>("float64")}) {
    shapes.insert(shapes.end(), list.begin(), list.end());
  }
  shapes.push_back({"power_iteration", "turned", "turned_kernel<", cuda::kBasisThreads,
                    cuda::BasisBlock::kSharedBytes, 1});
  shapes.push_back(
      {"power_iteration", "structure", "structure_kernel(", cuda::kInspectThreads, 0, 1});
  shapes.push_back({"power_iteration", "direction", "direction_kernel(", cuda::kInspectThreads,
                    cuda::BlockReduction<cuda::kInspectThreads>::kSharedBytes, 1});
  return shapes;
}

void define(py::module_& m) {
  py::enum_<Inspection>(m, "Inspection")
      .value("structure", Inspection::kStructure)
      .value("direction", Inspection::kDirection);
  py::class_<SamplesTuple>(m, "Samples")
      .def(py::init<MatrixTuple, MatrixTuple, bool, int64_t, int64_t, int64_t>());
  py::class_<WeightedStep>(m, "WeightedStep").def(py::init(&weighted_step));
  m.def("rearranged_matvec", &rearranged_matvec);
  m.def("kronecker_steps", &kronecker_steps);
  m.def("power_iteration", &power_iteration);
  m.def("orthonormalise", &orthonormalise);
  m.def("singular_triples", &singular_triples);
}

const Binding binding(&define, &kernels);

}  // namespace
}  // namespace kronext::emulator
