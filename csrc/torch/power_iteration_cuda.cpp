#include "csrc/cuda/power_iteration.h"

#include <torch/csrc/stable/library.h>

#include "csrc/torch/cuda_device.h"
#include "csrc/torch/matmul_precision.h"
#include "csrc/torch/power_iteration.h"

namespace kronext {
namespace {

void multiply(const char* op, const Tensor& where, const std::vector<WeightedStep>& steps,
              Inspection inspection) {
  const CudaDevice device(op, where);
  const cuda::KroneckerPlan plan =
      cuda::plan_kronecker_steps(steps.data(), int64_t(steps.size()), inspection,
                                 matmul_precision(Backend::kCuda), device.shape());
  device.run(
      plan,
      [&](void* table, void* workspace) {
        cuda::fill_kronecker_table(plan, steps.data(), workspace, table);
      },
      [&](const void* table, void* workspace) {
        return cuda::kronecker_steps(plan, table, workspace, nullptr, device.stream());
      });
}

void multiply_dense(const char* op, const Tensor& where,
                    const std::vector<RearrangedProduct>& products) {
  const CudaDevice device(op, where);
  const cuda::RearrangedPlan plan =
      cuda::plan_rearranged(products.data(), int64_t(products.size()), device.shape());
  device.run(
      plan,
      [&](void* table, void* workspace) {
        cuda::fill_rearranged_table(plan, products.data(), workspace, table);
      },
      [&](const void* table, void* workspace) {
        return cuda::rearranged_matvec(plan, table, workspace, nullptr, device.stream());
      });
}

cuda::Iterates raw(const Tensor& left, const Tensor& right) {
  const Iterates of{left, right};
  return {left.data_ptr(), right.data_ptr(), of.dtype(), of.count(), of.rank(), of.m(), of.n()};
}

void normalise(const char* op, const Iterates& iterates, const Iterates& previous,
               const Tensor& turned) {
  const CudaDevice device(op, iterates.left);
  const cuda::Iterates columns = raw(iterates.left, iterates.right);
  const cuda::BasesPlan plan = cuda::plan_bases(columns);
  device.run(
      plan,
      [&](void* table, void* workspace) {
        cuda::fill_orthonormalise_table(plan, columns, raw(previous.left, previous.right),
                                        workspace, table);
      },
      [&](const void* table, void* workspace) {
        return cuda::orthonormalise(plan, table, workspace, static_cast<double*>(turned.data_ptr()),
                                    device.stream());
      });
}

void find_triples(const char* op, const Triples& results, const Tensor& image, const Tensor& turned,
                  std::optional<double> tol) {
  const auto& [left, right, sigma, info] = results;
  const CudaDevice device(op, left);
  const cuda::Iterates columns = raw(left, right);
  const cuda::Triples triples{image.data_ptr(), static_cast<const double*>(turned.data_ptr()),
                              sigma.data_ptr(), static_cast<int32_t*>(info.data_ptr())};
  const cuda::BasesPlan plan = cuda::plan_bases(columns);
  device.run(
      plan,
      [&](void* table, void* workspace) {
        cuda::fill_triples_table(plan, columns, triples, workspace, table);
      },
      [&](const void* table, void*) {
        return cuda::singular_triples(plan, table, tol, device.stream());
      });
}

Triples iterate(const Iteration& given) {
  const CudaDevice device(given.op, given.start.left);
  const Triples results = with_sigma_and_info(given.start.like());
  const auto& [left, right, sigma, info] = results;
  const cuda::Iteration iteration{
      raw(given.start.left, given.start.right), raw(left, right), sigma.data_ptr(),
      static_cast<int32_t*>(info.data_ptr()),   given.samples,    given.dense};
  const cuda::IterationPlan plan = cuda::plan_power_iteration(
      iteration, given.steps, given.tol, matmul_precision(Backend::kCuda), device.shape());
  device.run(
      plan,
      [&](void* table, void* workspace) {
        cuda::fill_power_iteration_table(plan, iteration, workspace, table);
      },
      [&](const void* table, void* workspace) {
        return cuda::power_iteration(plan, iteration, table, workspace, device.stream());
      });
  return results;
}

constexpr PowerIterationDevice kCuda{multiply, multiply_dense, normalise, find_triples, iterate};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(kronext, CUDA, m) {
  m.impl("kron_matvec", TORCH_BOX(&kron_matvec<kCuda>));
  m.impl("kron_matvec_factored", TORCH_BOX(&kron_matvec_factored<kCuda>));
  m.impl("rearranged_matvec", TORCH_BOX(&rearranged_matvec<kCuda>));
  m.impl("power_iteration", TORCH_BOX(&power_iteration<kCuda>));
  m.impl("power_iteration_factored", TORCH_BOX(&power_iteration_factored<kCuda>));
  m.impl("power_iteration_dense", TORCH_BOX(&power_iteration_dense<kCuda>));
  m.impl("power_iteration_normalise", TORCH_BOX(&power_iteration_normalise<kCuda>));
  m.impl("power_iteration_triples", TORCH_BOX(&power_iteration_triples<kCuda>));
  m.impl("power_iteration_list_", TORCH_BOX(&power_iteration_list_<kCuda>));
}

}  // namespace kronext
