#include "csrc/cuda/congruence_plan.h"

#include <algorithm>
#include <array>

#include "csrc/cuda/congruence_tiles.cuh"

namespace kronext::cuda {
namespace {

// Depth that is summed in float32, at most; and the least that is worth a part of its own.
constexpr int64_t kMostDepth = 2048, kLeastDepth = 256;
// Blocks of a grid for each multiprocessor that parts are made for.
constexpr int64_t kWaves = 2;

constexpr int64_t kTileSide = 64;

int64_t round_up(int64_t value, int64_t to) { return ceil_divide(value, to) * to; }

// Rows of what a round makes begin at multiples of 16 bytes.
int64_t pitch_of(int64_t length) { return round_up(length, 4); }

bool is_wide(const KroneckerStep& s) {
  for (Dtype dtype : {s.samples.g.dtype, s.samples.a.dtype, s.left.inner.dtype, s.left.out.dtype,
                      s.right.inner.dtype, s.right.out.dtype}) {
    if (dtype == Dtype::kFloat64) return true;
  }
  return false;
}

Matrix moved(Matrix matrix, int64_t elements) {
  matrix.data = static_cast<char*>(matrix.data) + elements * bytes_of(matrix.dtype);
  return matrix;
}

// Samples [first, first + count) of a tensor.
Stack samples_of(const Matrix& tensor, int64_t stride, int64_t first, int64_t count) {
  return {moved(tensor, first * stride), stride, count};
}

// Whether the positions of all samples are rows of one matrix.
bool follow_each_other(const Matrix& tensor, int64_t stride) {
  return tensor.rows == 1 || stride == tensor.rows * tensor.row_stride;
}

// The rows of all matrices of a stack as one matrix, where they follow each other.
Stack joined(const Stack& stack) {
  Matrix all = stack.first;
  all.rows *= stack.count;
  if (stack.first.rows == 1) all.row_stride = stack.stride;
  return {all, 0, 1};
}

// The same as matrices of `block` of the stack's, and one of what is left.
std::array<Stack, 2> in_blocks(const Stack& stack, int64_t block) {
  const int64_t rows = stack.first.rows, whole = stack.count / block, rest = stack.count % block;
  Matrix first = joined(stack).first;
  first.rows = rows * block;
  Matrix last = moved(first, whole * block * stack.stride);
  last.rows = rows * rest;
  return {Stack{first, block * stack.stride, whole}, Stack{last, 0, rest > 0}};
}

SampledOperand sampled_operand(const Stack& stack, int64_t chunks) {
  SampledOperand operand = {};
  static_cast<Operand&>(operand) = make_operand(stack.first);
  operand.stride_bytes = stack.stride * bytes_of(stack.first.dtype);
  operand.chunks = int32_t(chunks);
  operand.vector = operand.vector && (stack.count <= 1 || operand.stride_bytes % 16 == 0);
  return operand;
}

// A matrix without columns has one chunk too, of zeros.
int64_t chunks_of(const Matrix& x, int64_t depth) {
  return std::max<int64_t>(1, ceil_divide(x.columns, depth));
}

int64_t block_count(const CongruenceTask& task) {
  return int64_t(task.outputs) * task.x_tiles * task.y_tiles;
}
int64_t block_count(const CongruenceSumTask& task) {
  const int64_t tiles = ceil_divide(task.dim, CongruenceSum::kTile);
  return tiles * tiles;
}

template <class Task>
void append(std::vector<Task>& tasks, Task task) {
  task.first_block = tasks.empty() ? 0 : tasks.back().first_block + block_count(tasks.back());
  tasks.push_back(task);
}

// Multiplications of a sample: formed, then both sides; or both sides through M_s, padding
// included.
bool forming_costs_less(double m, double n, double positions, double rows, double padded) {
  const double formed = m * n * positions + 1.5 * m * n * (m + n);
  const double kept = padded * (1.5 * (m * m + n * n) + 2 * rows * (m + n));
  return formed < kept;
}

}  // namespace

CongruencePlanner::CongruencePlanner(const WeightedStep* steps, int64_t count,
                                     const KroneckerPlan& plan, void* workspace)
    : precision_(plan.precision),
      device_(plan.device),
      space_(workspace),
      inspections_(plan.inspection, 2 * count, space_) {
  std::vector<Step> described;
  for (int64_t i = 0; i < count; ++i) described.push_back(describe(steps[i]));
  const auto fits_a_round = [&](const Step& step) {
    return step.given->step.samples.count * step.bytes <= plan.round_bytes;
  };
  for (Step& step : described) {
    for (int side : {0, 1}) {
      const int64_t values = fits_a_round(step) ? 0 : step.dim[side] * step.dim[side];
      step.sums[side] = space_.take<double>(values * int64_t(sizeof(double)));
    }
  }
  std::vector<Group> round;
  int64_t bytes = 0;
  for (Step& step : described) {
    const int64_t samples = step.given->step.samples.count;
    int64_t first = 0;
    do {
      const int64_t room = (plan.round_bytes - bytes) / step.bytes / step.block * step.block;
      if (!round.empty() && room < (fits_a_round(step) ? samples : 1)) {
        run_round(round);
        round.clear();
        bytes = 0;
        continue;
      }
      const int64_t taken = std::min(samples - first, std::max(room, step.block));
      round.push_back({&step, first, taken, first + taken == samples});
      bytes += taken * step.bytes;
      first += taken;
    } while (round.empty() || !round.back().last || round.back().step != &step);
  }
  if (!round.empty()) run_round(round);
}

const CongruenceSide& CongruencePlanner::side_of(const Step& step, int side) {
  return side == 0 ? step.given->step.left : step.given->step.right;
}

CongruencePlanner::Step CongruencePlanner::describe(const WeightedStep& given) {
  const KroneckerStep& s = given.step;
  const int64_t m = s.samples.m(), n = s.samples.n();
  Step step = {};
  step.given = &given;
  step.inspected[0] = inspections_.add(s.left.inner);
  step.inspected[1] = inspections_.add(s.right.inner);
  step.dim[0] = m;
  step.dim[1] = n;
  step.positions = s.samples.factored ? s.samples.g.rows : 0;
  step.wide = is_wide(s);
  step.block = 1;
  const bool rows_follow = s.samples.factored &&
                           follow_each_other(s.samples.g, s.samples.g_stride) &&
                           follow_each_other(s.samples.a, s.samples.a_stride);
  if (step.positions > 0) {
    const int64_t rows = round_up(step.positions, kTileSide);
    if (rows_follow) step.block = std::max<int64_t>(1, kTileSide / step.positions);
    step.factored = !forming_costs_less(double(m), double(n), double(step.positions), double(rows),
                                        double(rows_follow ? step.positions : rows));
    if (!step.factored) step.block = 1;
  }
  step.rows_follow = rows_follow;
  const int64_t pair = std::max(kTileSide, pitch_of(step.positions));
  const int64_t values =
      step.factored ? 2 * step.positions * (pitch_of(m) + pitch_of(n) + pair) : 3 * m * pitch_of(n);
  step.bytes = std::max<int64_t>(1, values) * (step.wide ? 8 : 4);
  return step;
}

void CongruencePlanner::run_round(const std::vector<Group>& groups) {
  const int64_t lasting = space_.bytes();
  for (const Group& group : groups) {
    const Samples& s = group.step->given->step.samples;
    if (group.step->factored) {
      for (int side : {0, 1}) add_factored_side(group, side);
      continue;
    }
    Stack g = samples_of(s.g, s.g_stride, group.first, group.count);
    if (s.factored) {
      const Stack d = g.transposed();
      const Stack a = samples_of(s.a, s.a_stride, group.first, group.count).transposed();
      g = make_stack(*group.step, group.step->dim[0], group.step->dim[1], group.count);
      add_product(group, kForm, true, d, a, g, {});
    }
    add_whole_side(group, 0, g);
    add_whole_side(group, 1, g.transposed());
  }
  for (const auto& [key, tasks] : round_products_) {
    launches_.push_back({false, key.second, int64_t(products_.size()), int64_t(tasks.size()),
                         tasks.back().first_block + block_count(tasks.back())});
    products_.insert(products_.end(), tasks.begin(), tasks.end());
  }
  for (const auto& [wide, tasks] : round_sums_) {
    // Any kernel of the same type of value.
    const auto kernel = wide ? CongruenceKernel::kDouble : CongruenceKernel::kFloat32ThreeParts;
    launches_.push_back({true, kernel, int64_t(sums_.size()), int64_t(tasks.size()),
                         tasks.back().first_block + block_count(tasks.back())});
    sums_.insert(sums_.end(), tasks.begin(), tasks.end());
  }
  round_products_.clear();
  round_sums_.clear();
  space_.give_back_to(lasting);
}

// T_s = w_s X_s B, C = sum_s T_s X_sT.
void CongruencePlanner::add_whole_side(const Group& group, int side, const Stack& x) {
  const CongruenceSide& wanted = side_of(*group.step, side);
  if (!wanted.wanted()) return;
  const Step& step = *group.step;
  const Stack like_g = make_stack(step, step.dim[0], step.dim[1], group.count);
  const Stack t = side == 0 ? like_g : like_g.transposed();
  Extras extras;
  extras.inner = step.inspected[side];
  extras.weighted = true;
  extras.first_sample = group.first;
  add_product(group, kTimes, false, x, {wanted.inner.transposed(), 0, x.count}, t, extras);
  add_square(group, side, x, t);
}

// P_s = A_s B, M_s = w_s P_s A_sT, T_s = D_sT M_s, C = sum_s T_s D_s; on the right side D and A
// have changed places.
void CongruencePlanner::add_factored_side(const Group& group, int side) {
  const CongruenceSide& wanted = side_of(*group.step, side);
  if (!wanted.wanted()) return;
  const Step& step = *group.step;
  const Samples& s = step.given->step.samples;
  Stack d = samples_of(s.g, s.g_stride, group.first, group.count);
  Stack a = samples_of(s.a, s.a_stride, group.first, group.count);
  if (side == 1) std::swap(d, a);
  const Stack p = make_stack(step, step.positions, step.dim[1 - side], group.count);
  const Stack t = make_stack(step, step.positions, step.dim[side], group.count);
  const auto all = [&](const Stack& stack) { return step.rows_follow ? joined(stack) : stack; };

  Extras with_inner;
  with_inner.inner = step.inspected[side];
  add_product(group, kForm, false, all(a), {wanted.inner.transposed(), 0, all(a).count}, all(p),
              with_inner);
  const auto a_blocks = in_blocks(a, step.block), p_blocks = in_blocks(p, step.block);
  const auto d_blocks = in_blocks(d, step.block), t_blocks = in_blocks(t, step.block);
  int64_t first_sample = group.first;
  for (size_t i = 0; i < a_blocks.size(); ++i) {
    if (a_blocks[i].count == 0) continue;
    const int64_t rows = a_blocks[i].first.rows;
    const Stack m = make_stack(step, rows, rows, a_blocks[i].count);
    Extras weighted;
    weighted.weighted = true;
    weighted.first_sample = first_sample;
    weighted.positions = step.positions;
    add_product(group, kPairs, false, a_blocks[i], p_blocks[i], m, weighted);
    add_product(group, kTimes, false, d_blocks[i].transposed(), m, t_blocks[i].transposed(), {});
    first_sample += a_blocks[i].count * step.block;
  }
  add_square(group, side, all(d).transposed(), all(t).transposed());
}

// C = sum_s T_s X_sT, in parts.
void CongruencePlanner::add_square(const Group& group, int side, const Stack& x, const Stack& t) {
  const Step& step = *group.step;
  const CongruenceSide& wanted = side_of(*group.step, side);
  const int64_t dim = step.dim[side], pitch = pitch_of(dim);
  const CongruenceKernel kernel = kernel_for(step, x.first.dtype, false);
  int64_t parts = 0;
  Extras extras;
  extras.mirrored = step.inspected[side];
  with_congruence_tile(kernel, [&](auto tile) {
    using Tile = decltype(tile);
    const int64_t chunks = x.count * chunks_of(x.first, Tile::kDepth);
    const int64_t tiles = ceil_divide(dim, Tile::kTile) * ceil_divide(dim, Tile::kTile);
    const int64_t wanted_parts =
        ceil_divide(kWaves * device_.multiprocessors, std::max<int64_t>(1, tiles));
    const int64_t least = ceil_divide(chunks * Tile::kDepth, kMostDepth);
    const int64_t most = ceil_divide(chunks * Tile::kDepth, kLeastDepth);
    parts = std::clamp(wanted_parts, least, most);
    if (parts == 0) return;
    extras.chunks = ceil_divide(chunks, parts);
    parts = ceil_divide(chunks, extras.chunks);
  });
  Stack sums = make_stack(step, dim, dim, parts);
  if (parts > 0) add_product(group, kSquare, false, x, t, sums.transposed(), extras);

  CongruenceSumTask task = {};
  task.parts = sums.first.data;
  task.pitch = pitch;
  task.sums = step.sums[side];
  task.out = wanted.out.data;
  task.out_stride = wanted.out.row_stride;
  task.decay = step.given->step.decay;
  task.weight = step.given->step.weight;
  task.inner = step.inspected[side];
  task.dim = int32_t(dim);
  task.count = int32_t(parts);
  task.out_dtype = wanted.out.dtype;
  task.first = group.first == 0;
  task.last = group.last;
  append(round_sums_[step.wide], task);
}

void CongruencePlanner::add_product(const Group& group, Stage stage, bool pair, const Stack& left,
                                    const Stack& right, const Stack& out, const Extras& extras) {
  const Step& step = *group.step;
  const WeightedStep& given = *step.given;
  const CongruenceKernel kernel = kernel_for(step, left.first.dtype, pair);
  CongruenceTask task = {};
  with_congruence_tile(kernel, [&](auto tile) {
    using Tile = decltype(tile);
    const int64_t chunks = chunks_of(left.first, Tile::kDepth);
    task.left = sampled_operand(left, chunks);
    task.right = sampled_operand(right, chunks);
    task.all_chunks = int32_t(left.count * chunks);
    task.chunks = int32_t(extras.chunks > 0 ? extras.chunks : chunks);
    task.x_tiles = int32_t(ceil_divide(left.first.rows, Tile::kTile));
    task.y_tiles = int32_t(ceil_divide(right.first.rows, Tile::kTile));
  });
  task.outputs = int32_t(ceil_divide(task.all_chunks, task.chunks));
  task.out = out.first.data;
  task.x_stride = out.first.row_stride;
  task.y_stride = out.first.column_stride;
  task.out_stride = out.stride;
  if (extras.weighted && given.weights) {
    const int64_t bytes =
        extras.first_sample * given.weights_stride * bytes_of(given.weights_dtype);
    task.weights = static_cast<const char*>(given.weights) + bytes;
    task.weights_stride = given.weights_stride;
    task.weights_dtype = given.weights_dtype;
  }
  task.inner = extras.inner;
  task.mirrored = extras.mirrored;
  task.positions = int32_t(extras.positions);
  append(round_products_[{stage, kernel}], task);
}

CongruenceKernel CongruencePlanner::kernel_for(const Step& step, Dtype left, bool pair) const {
  using enum CongruenceKernel;
  if (step.wide) return kDouble;
  const auto of_parts = [&](CongruenceKernel one, CongruenceKernel two, CongruenceKernel three) {
    const int parts = parts_of(precision_);
    return parts == 3 ? three : parts == 2 ? two : one;
  };
  switch (left) {
    case Dtype::kBFloat16:
      return pair ? kBFloat16Pairs
                  : of_parts(kBFloat16OnePart, kBFloat16TwoParts, kBFloat16ThreeParts);
    case Dtype::kFloat16:
      return pair ? kFloat16Pairs : of_parts(kFloat16OnePart, kFloat16TwoParts, kFloat16ThreeParts);
    default:
      return of_parts(kFloat32OnePart, kFloat32TwoParts, kFloat32ThreeParts);
  }
}

Stack CongruencePlanner::make_stack(const Step& step, int64_t rows, int64_t columns,
                                    int64_t count) {
  const int64_t pitch = pitch_of(columns);
  const Dtype dtype = step.wide ? Dtype::kFloat64 : Dtype::kFloat32;
  void* const data = space_.take(count * rows * pitch * bytes_of(dtype));
  return {{data, dtype, rows, columns, pitch, 1}, rows * pitch, count};
}

}  // namespace kronext::cuda
