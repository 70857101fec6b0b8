// The two products of one step of power iteration on the rearranged matrix of H = sum_s w_s g_s
// g_sT:
//
//   left  <- decay left  + weight sum_s w_s G_s R G_sT
//   right <- decay right + weight sum_s w_s G_sT L G_s
//
// Each side is a sum of congruences X_s B X_sT, with X = G and B = R on the left, X = GT and B = L
// on the right, so a transposed view is all that tells the sides apart.
#pragma once

#include "csrc/core/host_device.h"
#include "csrc/core/matrix.h"

namespace kronext {

// The samples G_s (m x n) of one H, given whole or as G_s = D_sT A_s.
struct Samples {
  Matrix g;  // the first sample; D_0 (T x m) where factored
  Matrix a;  // A_0 (T x n) where factored
  bool factored;
  int64_t g_stride;  // elements from one sample to the next
  int64_t a_stride;
  int64_t count;
  const double* weights;  // w_s; null: all 1

  KRONEXT_HOST_DEVICE int64_t m() const { return factored ? g.columns : g.rows; }
  KRONEXT_HOST_DEVICE int64_t n() const { return factored ? a.columns : g.columns; }
};

enum class Structure : int32_t { kGeneral, kSymmetric, kIdentity };

struct CongruenceSide {
  Matrix inner;         // B
  Matrix out;           // rows contiguous; without data: this side is not wanted
  Structure structure;  // of B; unless it is general, out is symmetric and its lower triangle read
  double scale;         // B counts as scale * inner, or scale * identity

  KRONEXT_HOST_DEVICE bool wanted() const { return out.data != nullptr; }
  KRONEXT_HOST_DEVICE bool symmetric() const { return structure != Structure::kGeneral; }
};

struct KroneckerStep {
  Samples samples;
  CongruenceSide left;   // inner is R
  CongruenceSide right;  // inner is L
  double decay;          // 0: the old content of out is not read; always 0 for a general side
  double weight;
};

// A step whose samples may have weights where the caller keeps them, in place of samples.weights.
struct WeightedStep {
  KroneckerStep step;
  const void* weights = nullptr;  // w_s, float32 or float64; null: all 1
  Dtype weights_dtype = Dtype::kFloat32;
  int64_t weights_stride = 0;  // in elements
};

// What is found out about inner matrices first: what `inspect` finds, or `inspect_direction` of
// PowerIterationKernel.
enum class Inspection { kStructure, kDirection };

// Multiplications that a step takes where the samples are whole.
KRONEXT_HOST_DEVICE double step_work(const KroneckerStep& step) {
  const double m = double(step.samples.m()), n = double(step.samples.n());
  return double(step.samples.count) * 1.5 * m * n * (m + n);
}

// One pass over a dense H (mn x mn) with H4 = H.view(m, n, m, n):
//
//   left[i,i'] = sum_jj' H4[i,j,i',j'] R[j,j'],   right[j,j'] = sum_ii' H4[i,j,i',j'] L[i,i']
struct RearrangedProduct {
  Matrix h;
  Matrix l, r;         // m x m, n x n; dense
  Matrix left, right;  // likewise, of one dtype; the sum over i of right goes through partial sums
  bool left_symmetric, right_symmetric;  // replace a result by its symmetric part
};

// What one group of samples goes through, in this order; the first stage is done once for a step.
enum class Stage : int32_t { kInner, kForm, kPanels, kBlocks, kRows, kEnd };

struct StepSizes {
  int64_t group;  // samples in a group at most
  int64_t inner_bytes, group_bytes, scratch_bytes;
  int64_t sums;  // float64 values that the groups are summed in
  int64_t rows;  // tasks of `finish`
};

struct StepJob {
  const KroneckerStep* step;
  int64_t formers;       // factored samples that a group should form side by side
  int64_t first, count;  // the samples of this group
  void* inner;
  void* group;
  double* sums;  // null: the group is all there is, and its rows are written to the results
};

// r iterates as the columns of a basis: `columns` vectors of `size` values, one after the other.
struct Basis {
  void* data;
  Dtype dtype;
  int64_t columns;
  int64_t size;
};

struct PowerIterationKernel {
  // Finds the structure of a side's inner matrix; its scale becomes 1, or that of the identity.
  void (*inspect)(CongruenceSide&);
  // The same for a symmetric inner matrix (rows dense) of which only the direction counts: the
  // scale makes its Frobenius norm 1, and the identity stands in for a zero or non-finite one.
  void (*inspect_direction)(CongruenceSide&);

  // A group of samples of a step: stage by stage, whose tasks are independent of each other, or
  // from a stage to the end on one thread.
  StepSizes (*sizes)(const KroneckerStep&, int64_t formers);
  int64_t (*tasks)(const StepJob&, Stage);
  void (*run)(const StepJob&, Stage, int64_t task, void* scratch);
  void (*run_from)(const StepJob&, Stage, void* scratch);
  // Row `task` of the results from the sums of `slices` parts of the samples, one after the other.
  void (*finish)(const StepJob&, int64_t task, int64_t slices, void* scratch);

  // Rows [first, last) of left, and their part of right added to float64 sums (n x n).
  int64_t (*rearranged_scratch_bytes)(const RearrangedProduct&);
  void (*rearranged_rows)(const RearrangedProduct&, int64_t first, int64_t last, double* right,
                          void* scratch);
  void (*rearranged_finish)(const RearrangedProduct&, const double* rights, int64_t slices);

  // Makes the columns of a basis orthonormal, with columns of the orthonormal `previous` in place
  // of those that vanish, and NaN in all of them where one is not finite. Returns the largest sine
  // of an angle between a column and the span of `previous`. Scratch: as many values as there are
  // columns.
  double (*orthonormalise)(const Basis& basis, const Basis& previous, double* scratch);
  // Turns orthonormal bases (m x m and n x n matrices) into singular triples of Hhat, given
  // `image`, Hhat times the right basis, which is overwritten. Returns 1 where something was not
  // finite (the results are then identities and sigma 0), else 0. Scratch: 2 (columns^2 + columns)
  // values.
  int32_t (*singular_triples)(const Basis& left, const Basis& right, const Basis& image, int64_t m,
                              int64_t n, double* scratch, void* sigma);
};

}  // namespace kronext
