// L_k = Hhat vec(R_k-1) and R_k = HhatT vec(L_k-1), made orthonormal, `steps` times; then one more
// product for the Rayleigh quotients of the last pairs.
//
// The iterates stay where the results are wanted, and every step writes its products into the
// workspace: so all steps have one table. A copy brings them back once they are orthonormal; after
// the tolerance is reached nothing new is made, and the copy changes nothing.
#include "csrc/cuda/power_iteration.h"

#include <algorithm>

#include "csrc/cuda/kronecker_basis.h"
#include "csrc/cuda/operand.h"
#include "csrc/cuda/placement.h"

namespace kronext::cuda {
namespace {

int64_t left_bytes(const Iterates& i) { return i.count * i.rank * i.m * i.m * bytes_of(i.dtype); }
int64_t right_bytes(const Iterates& i) { return i.count * i.rank * i.n * i.n * bytes_of(i.dtype); }

Matrix iterate(const Iterates& of, bool left, int64_t index) {
  const int64_t dim = left ? of.m : of.n;
  char* const first = static_cast<char*>(left ? of.left : of.right);
  return {first + index * dim * dim * bytes_of(of.dtype), of.dtype, dim, dim, dim, 1};
}

// Where the parts of an iteration lie in its workspace.
struct Space {
  Iterates next;  // the products of a step
  double* turned;
  int* done;
  void* bases;
  void* products;
  int64_t bytes;

  Space(const IterationPlan& plan, void* workspace) : next(plan.bases.shape) {
    Placement space(workspace);
    next.left = space.take(left_bytes(next));
    next.right = space.take(right_bytes(next));
    turned = space.take<double>(next.count * int64_t(sizeof(double)));
    done = space.take<int>(sizeof(int));
    bases = space.take(plan.bases.workspace_bytes);
    products = space.take(std::max(
        {plan.both.workspace_bytes, plan.image.workspace_bytes, plan.dense.workspace_bytes}));
    bytes = space.bytes();
  }
};

struct Tables {
  void *start, *step, *triples;
  void *both, *image, *dense;
  int64_t bytes;

  Tables(const IterationPlan& plan, void* table) {
    Placement places(table);
    start = places.take(plan.bases.table_bytes);
    step = places.take(plan.bases.table_bytes);
    triples = places.take(plan.bases.table_bytes);
    both = places.take(plan.both.table_bytes);
    image = places.take(plan.image.table_bytes);
    dense = places.take(plan.dense.table_bytes);
    bytes = places.bytes();
  }
};

// The products of a step from samples; without `both` those that the last Rayleigh quotients need.
std::vector<WeightedStep> steps_of(const Iteration& iteration, const Iterates& next, bool both) {
  const Iterates& from = iteration.result;
  std::vector<WeightedStep> steps;
  for (int64_t i = 0; i < int64_t(iteration.samples.size()) * from.rank; ++i) {
    const Samples& samples = iteration.samples[size_t(i / from.rank)];
    Matrix right = iterate(next, false, i);
    if (!both) right.data = nullptr;
    const double weight = samples.count > 0 ? 1 / double(samples.count) : 0;
    WeightedStep step;
    step.step = {samples,
                 {iterate(from, false, i), iterate(next, true, i), Structure::kGeneral, 1},
                 {iterate(from, true, i), right, Structure::kGeneral, 1},
                 0,
                 weight};
    steps.push_back(step);
  }
  return steps;
}

std::vector<RearrangedProduct> dense_products_of(const Iteration& iteration, const Iterates& next) {
  const Iterates& from = iteration.result;
  std::vector<RearrangedProduct> products;
  for (int64_t i = 0; i < int64_t(iteration.dense.size()) * from.rank; ++i) {
    products.push_back({iteration.dense[size_t(i / from.rank)], iterate(from, true, i),
                        iterate(from, false, i), iterate(next, true, i), iterate(next, false, i),
                        false, false});
  }
  return products;
}

cudaError_t copy(const Iterates& to, const Iterates& from, cudaStream_t stream) {
  const cudaError_t status = cudaMemcpyAsync(to.left, from.left, size_t(left_bytes(from)),
                                             cudaMemcpyDeviceToDevice, stream);
  if (status != cudaSuccess) return status;
  return cudaMemcpyAsync(to.right, from.right, size_t(right_bytes(from)), cudaMemcpyDeviceToDevice,
                         stream);
}

}  // namespace

IterationPlan plan_power_iteration(const Iteration& iteration, int64_t steps,
                                   std::optional<double> tolerance, MatmulPrecision precision,
                                   const DeviceShape& device) {
  IterationPlan plan = {};
  plan.steps = steps;
  plan.tolerance = tolerance;
  plan.bases = plan_bases(iteration.result);
  // Addresses do not matter yet, but a side without one would not be wanted.
  Iterates next = iteration.result;
  const auto both = steps_of(iteration, next, true), image = steps_of(iteration, next, false);
  plan.both = plan_kronecker_steps(both.data(), int64_t(both.size()), Inspection::kStructure,
                                   precision, device);
  plan.image = plan_kronecker_steps(image.data(), int64_t(image.size()), Inspection::kStructure,
                                    precision, device);
  const auto products = dense_products_of(iteration, next);
  plan.dense = plan_rearranged(products.data(), int64_t(products.size()), device);
  plan.table_bytes = Tables(plan, nullptr).bytes;
  plan.workspace_bytes = Space(plan, nullptr).bytes;
  return plan;
}

void fill_power_iteration_table(const IterationPlan& plan, const Iteration& iteration,
                                void* workspace, void* table) {
  const Space space(plan, workspace);
  const Tables tables(plan, table);
  fill_orthonormalise_table(plan.bases, iteration.result, iteration.start, space.bases,
                            tables.start);
  fill_orthonormalise_table(plan.bases, space.next, iteration.result, space.bases, tables.step);
  fill_triples_table(plan.bases, iteration.result,
                     {space.next.left, space.turned, iteration.sigma, iteration.info}, space.bases,
                     tables.triples);
  const auto both = steps_of(iteration, space.next, true);
  const auto image = steps_of(iteration, space.next, false);
  fill_kronecker_table(plan.both, both.data(), space.products, tables.both);
  fill_kronecker_table(plan.image, image.data(), space.products, tables.image);
  const auto products = dense_products_of(iteration, space.next);
  fill_rearranged_table(plan.dense, products.data(), space.products, tables.dense);
}

cudaError_t power_iteration(const IterationPlan& plan, const Iteration& iteration,
                            const void* table, void* workspace, cudaStream_t stream) {
  const Space space(plan, workspace);
  const Tables tables(plan, const_cast<void*>(table));
  int* const done = plan.tolerance ? space.done : nullptr;
  const double tolerance = plan.tolerance.value_or(0);
  const auto multiply = [&](const KroneckerPlan& kronecker, const void* kronecker_table,
                            const int* unless) {
    const cudaError_t status =
        kronecker_steps(kronecker, kronecker_table, space.products, unless, stream);
    if (status != cudaSuccess) return status;
    return rearranged_matvec(plan.dense, tables.dense, space.products, unless, stream);
  };
  cudaError_t status = cudaMemsetAsync(space.done, 0, sizeof(int), stream);
  if (status == cudaSuccess) status = copy(iteration.result, iteration.start, stream);
  if (status == cudaSuccess) {
    status = orthonormalise(plan.bases, tables.start, space.bases, space.turned, stream);
  }
  // Before the first step nothing has turned by less than any tolerance: 1.4e306 in each.
  if (status == cudaSuccess) {
    status = cudaMemsetAsync(space.turned, 0x7f, size_t(space.next.count) * sizeof(double), stream);
  }
  for (int64_t step = 0; status == cudaSuccess && step < plan.steps; ++step) {
    status = multiply(plan.both, tables.both, done);
    if (status == cudaSuccess) {
      status = orthonormalise(plan.bases, tables.step, space.bases, space.turned, tolerance, done,
                              stream);
    }
    if (status == cudaSuccess) status = copy(iteration.result, space.next, stream);
  }
  if (status == cudaSuccess) status = multiply(plan.image, tables.image, nullptr);
  if (status != cudaSuccess) return status;
  return singular_triples(plan.bases, tables.triples, plan.tolerance, stream);
}

}  // namespace kronext::cuda
