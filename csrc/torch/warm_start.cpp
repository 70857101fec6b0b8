#include "csrc/torch/warm_start.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>
#include <vector>

#include "csrc/core/warm_start.h"
#include "csrc/cpu/kernels.h"
#include "csrc/torch/parallel.h"

namespace kronext {
namespace {

// Neighbours on the diagonal whose couplings a rotation removes exactly, however close they are.
struct Block {
  int64_t first, size;
};

class WarmStart {
 public:
  WarmStart(int64_t n, const Damping& damping)
      : n_(n),
        damping_(damping),
        bytes_(aligned(n * n * int64_t(sizeof(float)))),
        space_(kMatrices * bytes_),
        values_(n),
        damped_(n),
        inverse_damped_(n),
        gains_(n),
        remainder_(n),
        kink_(n) {
    for (int k = 0; k < kMatrices; ++k) spare_.push_back(matrix(k));
  }

  bool solve(const float* a, const float* basis, float* root) {
    if (!project(a, basis)) return false;
    for (int rotations = kMaxRotations;; --rotations) {
      const double error = remaining_error();
      if (error <= largest_remainder(0)) return write_root(root, error);
      // Written so that a NaN leads to the exit.
      if (!(error <= largest_remainder(rotations))) return false;
      if (!solve_blocks(rotations % 2 ? 0 : block_size() / 2)) return false;
      rotate();
      if (!(cancellation_ <= kLargestCancellation)) return false;
    }
  }

 private:
  static constexpr int kMatrices = 5;
  static constexpr int64_t kRowsOfTask = kMirrorTile;

  float* matrix(int index) const { return reinterpret_cast<float*>(space_.at(index * bytes_)); }
  float* take() {
    float* last = spare_.back();
    spare_.pop_back();
    return last;
  }
  // `matrix` becomes a spare one and `by` takes its name.
  void replace(float*& matrix, float* by) {
    spare_.push_back(matrix);
    matrix = by;
  }

  int64_t block_size() const { return n_ < 512 ? 32 : 64; }

  Matrix dense(const float* data) const { return part(data, 0, 0, n_, n_); }
  Matrix part(const float* data, int64_t row, int64_t column, int64_t rows, int64_t columns) const {
    return {const_cast<float*>(data) + row * n_ + column, Dtype::kFloat32, rows, columns, n_, 1};
  }
  NearDiagonal near_diagonal() const {
    return {n_, b_, values_.data(), damped_.data(), inverse_damped_.data(), gains_.data()};
  }

  template <class Rows>
  void over_rows(const Rows& rows) const {
    const int64_t tasks = (n_ + kRowsOfTask - 1) / kRowsOfTask;
    run_tasks(tasks, worker_count(tasks, double(n_) * double(n_)), [&](int64_t task, int64_t) {
      rows(task * kRowsOfTask, std::min(n_, (task + 1) * kRowsOfTask));
    });
  }

  template <class Problem>
  static void run_one(const JobKernel<Problem>& job, const Problem& problem) {
    std::vector<Problem> problems{problem};
    run_jobs(job, problems);
  }

  // B = VT A V in float64, A brought to a largest entry near 1; B and V in ascending order. False
  // where something is not finite, which always shows on the diagonal.
  bool project(const float* a, const float* basis) {
    float largest = 0;
    for (int64_t i = 0; i < n_; ++i) {
      for (int64_t j = 0; j <= i; ++j) largest = std::max(largest, std::fabs(a[i * n_ + j]));
    }
    inverse_scale_ = std::ldexp(1.0, -std::clamp(std::ilogb(largest), -126, 126));
    float *full = take(), *projected = take();
    b_ = take();
    v_ = take();
    over_rows([&](int64_t first, int64_t last) {
      kernels_.mirror(a, n_, float(inverse_scale_), full, first, last);
    });
    run_one(cpu::kernels().similarity,
            {dense(basis).transposed(), dense(full), dense(projected), 1, true});
    for (int64_t i = 0; i < n_; ++i) {
      if (!std::isfinite(projected[i * (n_ + 1)])) return false;
    }
    std::vector<int32_t> order(n_);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t i, int32_t j) {
      return projected[i * (n_ + 1)] < projected[j * (n_ + 1)];
    });
    over_rows([&](int64_t first, int64_t last) {
      kernels_.permute(projected, n_, order.data(), order.data(), b_, first, last);
      kernels_.permute(basis, n_, nullptr, order.data(), v_, first, last);
    });
    spare_.push_back(full);
    spare_.push_back(projected);
    return true;
  }

  // d, x and f from the diagonal of B, less `defect`; the largest f is brought to 1.
  void read_diagonal(const float* gram) {
    Damping damping = damping_;
    damping.eps *= inverse_scale_;
    for (int64_t i = 0; i < n_; ++i) {
      const double value = b_[i * (n_ + 1)];
      values_[i] = gram ? value * (2 - double(gram[i * (n_ + 1)])) : value;
    }
    const double largest = *std::max_element(values_.begin(), values_.end());
    gain_scale_ = 0;
    for (int64_t i = 0; i < n_; ++i) {
      damped_[i] = damped_eigenvalue(values_[i], largest, damping);
      inverse_damped_[i] = 1 / damped_[i];
      gains_[i] = damped_inverse_root(values_[i], largest, damping);
      gain_scale_ = std::max(gain_scale_, gains_[i]);
    }
    for (double& gain : gains_) gain /= gain_scale_;
  }

  // A bound of the relative error of Daleckii and Krein for B; infinite or NaN where there is none.
  double remaining_error() {
    read_diagonal(nullptr);
    over_rows([&](int64_t first, int64_t last) {
      kernels_.measure(near_diagonal(), remainder_.data(), kink_.data(), first, last);
    });
    double remainder = 0, coupling = 0, kink = 0, norm = 0;
    bool pseudo_inverse = false;
    for (int64_t i = 0; i < n_; ++i) {
      remainder += remainder_[i];
      coupling += remainder_[i] / gains_[i];
      kink += kink_[i];
      norm += gains_[i] * gains_[i];
      pseudo_inverse |= !(damped_[i] > 0);
    }
    if (pseudo_inverse || !(std::sqrt(kink / norm) <= damping_.root * largest_remainder(0))) {
      return HUGE_VAL;
    }
    coupling = std::sqrt(coupling);
    const double error = remainder / (damping_.root * std::sqrt(norm)) + error_of_largest();
    // Where the bound does not hold, one rotation more is needed at least.
    return coupling <= kLargestCoupling ? error / (1 - coupling)
                                        : std::max(error, largest_remainder(1));
  }

  // How far the largest eigenvalue, a measure of the damping, may lie above the largest of d.
  double error_of_largest() const {
    if (damping_.relative_eps == 0) return 0;
    const int64_t top = std::max_element(values_.begin(), values_.end()) - values_.begin();
    double above = 0;
    for (int64_t j = 0; j < n_; ++j) {
      const double coupling = std::fabs(b_[top * n_ + j]);
      if (j == top || coupling == 0) continue;
      above += coupling * coupling / std::max(coupling, values_[top] - values_[j]);
    }
    return above / values_[top];
  }

  // Diagonalises blocks on the diagonal of B; false where that fails.
  bool solve_blocks(int64_t offset) {
    std::vector<Block> blocks;
    for (int64_t first = 0, last; first < n_; first = last) {
      last = std::min(n_, first == 0 && offset > 0 ? offset : first + block_size());
      blocks.push_back({first, last - first});
    }
    const Workspace vectors(n_ * block_size() * int64_t(sizeof(float)));
    float* const q = reinterpret_cast<float*>(vectors.at(0));
    if (!find_vectors(blocks, q)) return false;

    const auto vectors_of = [&](const Block& block) {
      return Matrix{
          q + block.first * block_size(), Dtype::kFloat32, block.size, block.size, block.size, 1};
    };
    float *b = take(), *v = take();
    std::vector<PreconditionProblem> products;
    for (const Block& column : blocks) {
      products.push_back({part(v_, 0, column.first, n_, column.size), Matrix{}, vectors_of(column),
                          part(v, 0, column.first, n_, column.size)});
      for (const Block& row : blocks) {
        if (row.first < column.first) continue;
        products.push_back({part(b_, row.first, column.first, row.size, column.size),
                            vectors_of(row).transposed(), vectors_of(column),
                            part(b, row.first, column.first, row.size, column.size)});
      }
    }
    run_jobs(cpu::kernels().precondition, products);
    over_rows([&](int64_t first, int64_t last) { kernels_.mirror(b, n_, 1, b, first, last); });
    replace(b_, b);
    replace(v_, v);

    std::vector<double> sums(n_);
    for (const Block& block : blocks) {
      kernels_.weigh_columns(q + block.first * block_size(), damped_.data() + block.first,
                             block.size, sums.data() + block.first, 0, block.size);
    }
    note_cancellation(sums);
    return true;
  }

  // Reads the diagonal anew; `sums` are those of weigh_columns with the old x.
  void note_cancellation(const std::vector<double>& sums) {
    read_diagonal(nullptr);
    double largest = 0;
    for (int64_t j = 0; j < n_; ++j) largest = std::max(largest, sums[j] * inverse_damped_[j]);
    cancellation_ *= largest;
  }

  // Eigenvectors of the blocks, one after the other, each dense in block_size() n / blocks values.
  bool find_vectors(std::vector<Block> blocks, float* q) const {
    std::stable_sort(blocks.begin(), blocks.end(),
                     [](const Block& a, const Block& b) { return a.size > b.size; });
    const auto& eigh = cpu::kernels().eigh_mixed;
    const int64_t group = std::max<int64_t>(1, eigh.group_size / 4);
    std::vector<std::pair<int64_t, int64_t>> tasks;  // runs of blocks of one size
    const int64_t total = int64_t(blocks.size());
    for (int64_t begin = 0, end; begin < total; begin = end) {
      for (end = begin;
           end < total && end - begin < group && blocks[end].size == blocks[begin].size;)
        ++end;
      tasks.emplace_back(begin, end);
    }
    std::vector<int32_t> info(total);
    int64_t workspace_bytes = 0;
    for (const Block& block : blocks) {
      workspace_bytes =
          std::max(workspace_bytes, aligned(int64_t(eigh.workspace_bytes(block.size))));
    }
    const double work = 10.0 * double(n_ * block_size() * block_size());
    const int64_t workers = worker_count(int64_t(tasks.size()), work);
    const Workspace space(workers * workspace_bytes);
    run_tasks(int64_t(tasks.size()), workers, [&](int64_t index, int64_t worker) {
      const auto [begin, end] = tasks[index];
      std::vector<const float*> matrices;
      std::vector<float*> vectors;
      for (int64_t k = begin; k < end; ++k) {
        matrices.push_back(b_ + blocks[k].first * (n_ + 1));
        vectors.push_back(q + blocks[k].first * block_size());
      }
      eigh.run({blocks[begin].size, end - begin, matrices.data(), n_, nullptr, vectors.data(),
                nullptr, nullptr, info.data() + begin, false},
               space.at(worker * workspace_bytes));
    });
    return std::all_of(info.begin(), info.end(), [](int32_t i) { return i == kDone; });
  }

  // V <- V U, B <- UT B U.
  void rotate() {
    float *u = take(), *w = take(), *b = take();
    std::vector<double> limits(n_);
    over_rows([&](int64_t first, int64_t last) {
      kernels_.angles(near_diagonal(), u, limits.data(), first, last);
    });
    for (double& limit : limits) limit = limit > kLongestRow ? kLongestRow / limit : 1;
    over_rows(
        [&](int64_t first, int64_t last) { kernels_.limit(limits.data(), n_, u, first, last); });
    run_one(cpu::kernels().outer->job, {dense(u), dense(w), 0, 1});
    const double norm = std::sqrt(largest_eigenvalue(w));
    const float scale = norm > kLargestRotation ? float(kLargestRotation / norm) : 1;
    const bool cubic = norm > kLargestQuadraticRotation;
    if (cubic) run_one(cpu::kernels().precondition, {dense(u), Matrix{}, dense(w), dense(b)});
    over_rows([&](int64_t first, int64_t last) {
      kernels_.rotation(w, cubic ? b : nullptr, n_, scale, u, first, last);
    });
    run_one(cpu::kernels().similarity, {dense(u).transposed(), dense(b_), dense(b), 1, false});
    run_one(cpu::kernels().precondition, {dense(v_), Matrix{}, dense(u), dense(w)});
    replace(b_, b);
    replace(v_, w);
    std::vector<double> sums(n_);
    over_rows([&](int64_t first, int64_t last) {
      kernels_.weigh_columns(u, damped_.data(), n_, sums.data(), first, last);
    });
    note_cancellation(sums);
    spare_.push_back(u);
  }

  // By power iteration: an estimate from below, whose error the check of VT V would show.
  double largest_eigenvalue(const float* w) const {
    std::vector<float> x(n_, 1), y(n_);
    double norm = 0;
    for (int64_t i = 0; i < n_; ++i) x[i] += float(i % 7) / 8;  // no symmetry of W hides from it
    for (int step = 0; step < 8; ++step) {
      const double length = std::sqrt(std::inner_product(x.begin(), x.end(), x.begin(), 0.0));
      if (!(length > 0)) return 0;
      for (float& value : x) value = float(value / length);
      over_rows([&](int64_t first, int64_t last) {
        kernels_.multiply(w, n_, x.data(), y.data(), first, last);
      });
      norm = std::sqrt(std::inner_product(y.begin(), y.end(), y.begin(), 0.0));
      std::swap(x, y);
    }
    return norm;
  }

  // V f(B) VT, unless V turns out not to be orthogonal or the root not to fit float32.
  bool write_root(float* root, double error) {
    float *gram = take(), *f = take();
    run_one(cpu::kernels().outer->job, {dense(v_).transposed(), dense(gram), 0, 1});
    read_diagonal(gram);
    over_rows([&](int64_t first, int64_t last) {
      kernels_.function(near_diagonal(), gram, 1 / damping_.root, f, remainder_.data(), first,
                        last);
    });
    double squares = 0, weighted = 0, norm = 0;
    for (int64_t i = 0; i < n_; ++i) {
      squares += remainder_[i];
      weighted += gains_[i] * gains_[i] * remainder_[i];
      norm += gains_[i] * gains_[i];
    }
    const double defect = std::sqrt(squares * weighted / norm);
    const double scale = gain_scale_ * std::pow(inverse_scale_, 1 / damping_.root);
    // No entry exceeds the norm of the root, which is about `scale`.
    constexpr double kLargestScale = 0x1p127;
    if (!(error + defect <= kLargestError && scale < kLargestScale)) return false;
    run_one(cpu::kernels().similarity, {dense(v_), dense(f), dense(root), scale, false});
    return true;
  }

  const int64_t n_;
  const Damping damping_;
  const int64_t bytes_;
  const Workspace space_;
  const WarmStartKernel& kernels_ = cpu::kernels().warm_start;
  std::vector<float*> spare_;
  float *b_ = nullptr, *v_ = nullptr;
  double inverse_scale_ = 1, gain_scale_ = 1;
  double cancellation_ = 1;  // of all rotations so far, at most
  std::vector<double> values_, damped_, inverse_damped_, gains_, remainder_, kink_;
};

}  // namespace

bool warm_inverse_root(int64_t n, const float* matrix, const float* basis, const Damping& damping,
                       float* root) {
  return WarmStart(n, damping).solve(matrix, basis, root);
}

}  // namespace kronext
