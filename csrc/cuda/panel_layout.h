// Where the panel eigensolver keeps what it works on, and which blocks of a launch work on what.
#pragma once

#include "csrc/cuda/spectral_task.h"

namespace kronext::cuda {

constexpr int kPanel = 32;                // columns that are rotated, and eliminated, together
constexpr int kPairColumns = 2 * kPanel;  // those of the two panels that meet
constexpr int kLargestPanelMatrix = 2048;
constexpr int kMaxPairs = kLargestPanelMatrix / kPairColumns;
constexpr int kGramRows = 128;  // summed by one block: fixed, so that bits do not depend on a list
constexpr int kPanelSweeps = 20;

// Panels come in pairs; columns beyond the matrix are zero.
KRONEXT_HOST_DEVICE int pairs_of(int n) { return (n + kPairColumns - 1) / kPairColumns; }
KRONEXT_HOST_DEVICE int gram_parts(int pairs) {
  return (pairs * kPairColumns + kGramRows - 1) / kGramRows;
}

// One matrix on its way. Zero at the start.
struct PanelState {
  unsigned largest;                                      // bits of the largest magnitude
  unsigned defect;                                       // bits of the largest |tile of QT Q - I|^2
  int failed_shifts;                                     // factorisations that met a small pivot
  int factored;                                          // one went through
  int arrived;                                           // blocks of a launch that are done
  int info, root_exponent;                               // of the results
  int pair_arrived[kMaxPairs], pair_turns[kMaxPairs];    // the same of a pair; its panels change
  unsigned cosine[kPanelSweeps], tangent[kPanelSweeps];  // bits of the largest that a sweep met
};

// Byte offsets into the workspace of one matrix. A wide number has 8 bytes.
struct PanelLayout {
  int64_t remainder;  // n x n wide: what is left to eliminate. Before: a defect, A Q
  int64_t parts;      // in the same place, afterwards: parts of Gram matrices
  int64_t rotations;  // 64 x 64 for each pair
  int64_t panel;      // 32 x n wide: the columns that are being eliminated
  int64_t forms;      // in the same place, afterwards: parts of Rayleigh quotients, n for each tile
  int64_t columns;    // M in panels of n x 32
  int64_t square, length, weight, order;  // n numbers each
  int64_t projected;                      // QT A Q, of a warm start
  int64_t basis;                          // Q
  int64_t factor;                         // L in panels
  int64_t bytes;

  KRONEXT_HOST_DEVICE PanelLayout(int size, bool warm) : bytes(0) {
    const int64_t n = size, pairs = pairs_of(size), tile = kPairColumns * kPairColumns * 4;
    const int64_t part_bytes = aligned(pairs * gram_parts(int(pairs)) * tile);
    const int64_t sweep_bytes = part_bytes + pairs * tile, wide_bytes = n * n * 8;
    remainder = parts = take(sweep_bytes > wide_bytes ? sweep_bytes : wide_bytes);
    rotations = parts + part_bytes;
    panel = forms = take(n * kPanel * 8);
    columns = take(pairs * kPairColumns * n * 4);
    square = take(n * 8);
    length = take(n * 4);
    weight = take(n * 4);
    order = take(n * 4);
    projected = take(warm ? wide_bytes : 0);
    basis = take(warm ? n * n * 4 : 0);
    factor = take(warm ? pairs * kPairColumns * n * 4 : 0);
  }

  static KRONEXT_HOST_DEVICE int64_t aligned(int64_t size) { return (size + 255) / 256 * 256; }

 private:
  KRONEXT_HOST_DEVICE int64_t take(int64_t size) {
    const int64_t at = bytes;
    bytes += aligned(size);
    return at;
  }
};

struct PanelTask {
  SpectralTask spectral;
  int64_t state_at, space_at;  // bytes into the workspace
};

// Matrices of one number of panel pairs.
struct SizeClass {
  int pairs, matrices;
};

// The largest first, as the matrices in the table. Kernels get it by value.
struct SizeClasses {
  SizeClass each[kMaxPairs];
  int count = 0;
};

// How many blocks a launch has for a matrix.
struct ForEachStrip {  // of 64 rows
  static KRONEXT_HOST_DEVICE int blocks(int pairs) { return pairs; }
};
struct ForEachTile {
  static KRONEXT_HOST_DEVICE int blocks(int pairs) { return pairs * pairs; }
};
struct ForEachLowerTile {
  static KRONEXT_HOST_DEVICE int blocks(int pairs) { return pairs * (pairs + 1) / 2; }
};
struct ForEachPair {  // of panels
  static KRONEXT_HOST_DEVICE int blocks(int pairs) { return pairs; }
};
struct ForEachGramPart {
  static KRONEXT_HOST_DEVICE int blocks(int pairs) { return pairs * gram_parts(pairs); }
};

// Shifts that are tried until the factorisation goes through: 0, 2^-20, 2^-14, 2^-8, then every
// second power of two. Powers of four, so that what a shift alone makes is undone exactly.
KRONEXT_HOST_DEVICE int shift_exponent(int attempt) {
  return attempt < 4 ? 6 * attempt - 26 : 2 * attempt - 12;
}

// The last shift is at least the norm of a matrix with entries below 2.
KRONEXT_HOST_DEVICE int shift_attempts(int n) {
  int attempts = 7;  // up to 1
  while (1 << shift_exponent(attempts - 1) < 2 * n) ++attempts;
  return attempts;
}

}  // namespace kronext::cuda
