// Products with the rearranged matrix of H, and power iteration on it
// (csrc/core/power_iteration.h), on a stream.
//
// Each op is planned once for the shapes of its arguments; then for each call a table is filled,
// copied to the device, and the op launched. Nothing here allocates, synchronises or looks at
// device data, so all of it may be captured into a CUDA graph (from pinned memory that lives as
// long as the graph). Tables hold addresses of the workspace. What the data decide is decided on
// the device: kernels inspect the matrices L and R and take the shorter way, and they return at
// once when the iteration has reached its tolerance.
//
// How the ops of csrc/torch/power_iteration.cpp come about:
//   kron_matvec, _factored              a KroneckerStep for each batch entry, kStructure
//   power_iteration_list_               the same for each matrix with one sample, kDirection
//   rearranged_matvec                   a RearrangedProduct for each batch entry
//   power_iteration, _factored, _dense  an Iteration, and for each batch entry its samples or H
//   power_iteration_normalise           orthonormalise
//   power_iteration_triples             singular_triples
#pragma once

#include <cuda_runtime.h>

#include <optional>
#include <vector>

#include "csrc/core/matmul_precision.h"
#include "csrc/core/power_iteration.h"
#include "csrc/cuda/tile_plan.h"

namespace kronext::cuda {

// ---- products from samples (congruence.cuh) ----------------------------------------------------

// The kernels that are built: dtype of the samples, parts of a float32 number. Pairs of samples are
// multiplied where factored ones are formed.
enum class CongruenceKernel {
  kBFloat16Pairs,
  kBFloat16OnePart,
  kBFloat16TwoParts,
  kBFloat16ThreeParts,
  kFloat16Pairs,
  kFloat16OnePart,
  kFloat16TwoParts,
  kFloat16ThreeParts,
  kFloat32OnePart,
  kFloat32TwoParts,
  kFloat32ThreeParts,
  kDouble,
};

struct CongruenceLaunch {
  bool sums;  // of parts; else products
  CongruenceKernel kernel;
  int64_t first_task, tasks, blocks;
};

struct KroneckerPlan {
  Inspection inspection;
  MatmulPrecision precision;
  DeviceShape device;
  int64_t round_bytes;
  int64_t steps, inspections, inspect_blocks, products, sums;
  std::vector<CongruenceLaunch> launches;
  int64_t table_bytes, workspace_bytes;
};

// What is made of the samples of a round takes so much of the workspace, about.
constexpr int64_t kRoundBytes = 64 << 20;

// Steps of any shapes and dtypes, whose structures and scales are not read. A side may write into
// the inner matrix of the other side, where there is one sample; no two results may overlap.
KroneckerPlan plan_kronecker_steps(const WeightedStep* steps, int64_t count, Inspection inspection,
                                   MatmulPrecision precision, const DeviceShape& device,
                                   int64_t round_bytes = kRoundBytes);

// Writes plan.table_bytes to `table`, host memory aligned to 16 bytes.
void fill_kronecker_table(const KroneckerPlan& plan, const WeightedStep* steps, void* workspace,
                          void* table);

// `table` and `workspace` are device memory, aligned to 256 bytes. Does nothing where `done`, an
// int on the device, is not 0; it may be null.
cudaError_t kronecker_steps(const KroneckerPlan& plan, const void* table, void* workspace,
                            const int* done, cudaStream_t stream);

// ---- products with a dense H (rearranged.cuh) --------------------------------------------------

struct RearrangedPlan {
  DeviceShape device;
  int64_t inspections, inspect_blocks;  // tasks and blocks of the first launch
  int64_t products, pass_blocks, sum_blocks;
  Dtype h_dtype, factor_dtype;  // of all products
  int64_t table_bytes, workspace_bytes;
};

// All products are of one dtype of H and one dtype of L and R. The symmetric flags of the products
// are not read: kernels find out. Strides may be anything; rows of H that are aligned to 16 bytes
// are read fastest.
RearrangedPlan plan_rearranged(const RearrangedProduct* products, int64_t count,
                               const DeviceShape& device);

// Writes plan.table_bytes to `table`, host memory aligned to 16 bytes.
void fill_rearranged_table(const RearrangedPlan& plan, const RearrangedProduct* products,
                           void* workspace, void* table);

// `table` and `workspace` are device memory, aligned to 256 bytes. Does nothing where `done`, an
// int on the device, is not 0; it may be null.
cudaError_t rearranged_matvec(const RearrangedPlan& plan, const void* table, void* workspace,
                              const int* done, cudaStream_t stream);

// ---- bases (kronecker_basis.cuh) ---------------------------------------------------------------

// The iterates of a batch: left (count, rank, m, m) and right (count, rank, n, n), dense.
struct Iterates {
  void *left, *right;
  Dtype dtype;
  int64_t count, rank, m, n;
};

struct BasesPlan {
  Iterates shape;
  int64_t table_bytes, workspace_bytes;  // of either op
};

BasesPlan plan_bases(const Iterates& iterates);

// Makes both sides of `iterates` orthonormal in place, as csrc/core/power_iteration.h says.
// `turned` gets one float64 for each batch entry: how far its spans turned from the orthonormal
// `previous`.
void fill_orthonormalise_table(const BasesPlan& plan, const Iterates& iterates,
                               const Iterates& previous, void* workspace, void* table);
cudaError_t orthonormalise(const BasesPlan& plan, const void* table, void* workspace,
                           double* turned, cudaStream_t stream);

// Where singular triples are written, and what they are made from beside the iterates, which become
// the factors.
struct Triples {
  void* image;           // Hhat vec(right), like left; overwritten
  const double* turned;  // (count)
  void* sigma;           // (count, rank), of the dtype of the iterates
  int32_t* info;         // (count)
};

void fill_triples_table(const BasesPlan& plan, const Iterates& iterates, const Triples& triples,
                        void* workspace, void* table);
cudaError_t singular_triples(const BasesPlan& plan, const void* table,
                             std::optional<double> tolerance, cudaStream_t stream);

// ---- power iteration ---------------------------------------------------------------------------

struct Iteration {
  Iterates start;   // not written
  Iterates result;  // other memory of the same shape
  void* sigma;
  int32_t* info;
  // H of each batch entry: the mean over samples, or dense.
  std::vector<Samples> samples;
  std::vector<Matrix> dense;
};

struct IterationPlan {
  int64_t steps;
  std::optional<double> tolerance;
  KroneckerPlan both, image;  // from samples: both products of a step, and the last one
  RearrangedPlan dense;
  BasesPlan bases;
  int64_t table_bytes, workspace_bytes;
};

IterationPlan plan_power_iteration(const Iteration& iteration, int64_t steps,
                                   std::optional<double> tolerance, MatmulPrecision precision,
                                   const DeviceShape& device);
void fill_power_iteration_table(const IterationPlan& plan, const Iteration& iteration,
                                void* workspace, void* table);

// All steps are launched; once the tolerance is reached in every batch entry the kernels of the
// steps that are left return at once.
cudaError_t power_iteration(const IterationPlan& plan, const Iteration& iteration,
                            const void* table, void* workspace, cudaStream_t stream);

}  // namespace kronext::cuda
