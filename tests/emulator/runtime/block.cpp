#include "tests/emulator/runtime/block.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <utility>

namespace kronext::emulator {
namespace {

constexpr size_t kSharedWindow = 256 << 10;
constexpr int kMaxThreads = 1024;

template <class T>
void put_in_order(std::vector<T>& values, std::mt19937_64& random) {
  if (!std::is_sorted(values.begin(), values.end())) {
    std::make_heap(values.begin(), values.end());  // std::sort would call memmove
    std::sort_heap(values.begin(), values.end());
  }
  if (schedule().order == Order::kReverse) std::reverse(values.begin(), values.end());
  if (schedule().order == Order::kRandom) std::shuffle(values.begin(), values.end(), random);
}

}  // namespace

Block& block() {
  static Block instance;
  return instance;
}

std::string text(const Location& where) {
  return std::string(where.file_name()) + ":" + std::to_string(where.line());
}

bool same_place(const Location& a, const Location& b) {
  return a.line() == b.line() && !std::strcmp(a.file_name(), b.file_name());
}

Block::Block() {
  shared = mmap(nullptr, kSharedWindow, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) throw std::bad_alloc();
}

void Block::run_grid(const std::function<void()>& body, Index3 grid_shape, Index3 block_shape,
                     size_t shared_bytes) {
  const uint64_t threads = uint64_t(block_shape.x) * block_shape.y * block_shape.z;
  const uint64_t blocks = uint64_t(grid_shape.x) * grid_shape.y * grid_shape.z;
  if (threads < 1 || threads > kMaxThreads) {
    throw Error("launch: a block has 1 to 1024 threads (got " + std::to_string(threads) + ")");
  }
  if (blocks < 1) throw Error("launch: a grid has at least one block");
  if (shared_bytes > kMaxSharedBytes) {
    throw Error("launch: at most 227 KB of shared memory (got " + std::to_string(shared_bytes) +
                ")");
  }
  body_ = &body;
  grid = grid_shape;
  size = block_shape;
  count_ = int(threads);
  while (threads_.size() < threads) threads_.emplace_back();
  warps_.resize((threads + kWarpSize - 1) / kWarpSize);
  round_.reserve(threads);
  later_.reserve(threads);
  random.seed(schedule().seed);
  std::vector<uint64_t> order(blocks);
  for (uint64_t i = 0; i < blocks; ++i) order[i] = i;
  put_in_order(order, random);
  for (uint64_t number : order) {
    fill_unseen(shared, 0xff, shared_bytes);
    allow_only(shared, kSharedWindow, shared_bytes);
    run({unsigned(number % grid.x), unsigned(number / grid.x % grid.y),
         unsigned(number / grid.x / grid.y)});
    allow_only(shared, kSharedWindow, kSharedWindow);
  }
}

void Block::run(Index3 block_index) {
  index = block_index;
  start_threads();
  announce(&block_start_);
  Thread* first = next();
  current = first;
  Context::jump(program_, first->context);
  current = nullptr;
  observe(&block_end_);
  if (failure_.empty() && live_) failure_ = describe_deadlock();
  for (int i = 0; i < count_; ++i) {
    if (!threads_[i].done) threads_[i].context.drop();
  }
  if (!failure_.empty()) throw Error(std::exchange(failure_, {}));
}

void Block::start_threads() {
  live_ = count_;
  waiting_ = 0;
  at_ = 0;
  round_.clear();
  later_.clear();
  for (Warp& warp : warps_) {
    warp.live = 0;
    while (!warp.meetings.empty()) {
      warp.spare.push_back(std::move(warp.meetings.back()));
      warp.meetings.pop_back();
    }
  }
  for (int i = 0; i < count_; ++i) {
    Thread& thread = threads_[i];
    thread.number = i;
    thread.lane = i % kWarpSize;
    thread.warp = i / kWarpSize;
    thread.index = {i % size.x, i / size.x % size.y, i / (size.x * size.y)};
    thread.done = thread.at_barrier = false;
    thread.waits_in = nullptr;
    thread.barriers_passed = 0;
    thread.uncommitted.clear();
    thread.groups.clear();
    warps_[thread.warp].live |= 1u << thread.lane;
    thread.context.start_at(&Block::entry);
    later_.push_back(i);
  }
}

// The thread to run now, or null when none can.
Thread* Block::next() {
  if (at_ == round_.size()) {
    round_.clear();
    at_ = 0;
    round_.swap(later_);
    put_in_order(round_, random);
  }
  return at_ < round_.size() ? &threads_[round_[at_++]] : nullptr;
}

void Block::make_ready(Thread& thread) {
  thread.waits_in = nullptr;
  later_.push_back(thread.number);
}

// Runs others until this thread is ready and its turn has come.
void Block::go_on() {
  Thread& me = *current;
  Thread* other = next();
  if (other == &me) return;
  current = other;
  Context::jump(me.context, other ? other->context : program_, me.done);
}

void Block::block_on(const char* what, const Location& where) {
  current->waits_in = what;
  current->where = where;
  go_on();
}

void Block::give_way() {
  make_ready(*current);
  go_on();
}

void Block::entry() {
  Block& self = block();
  Context::arrived(self.program_);
  observe(&self.block_start_);
  (*self.body_)();
  self.finish_thread();
}

void Block::finish_thread() {
  announce(&block_end_);
  current->done = true;
  --live_;
  warp().live &= ~(1u << current->lane);
  if (live_ && waiting_ == live_) open_barrier();  // threads that have exited no longer count
  go_on();
}

void Block::stop(const std::string& message) {
  const auto triple = [](const Index3& i) {
    return "(" + std::to_string(i.x) + ", " + std::to_string(i.y) + ", " + std::to_string(i.z) +
           ")";
  };
  failure_ = message + ", block " + triple(index) + " thread " + triple(current->index);
  Context::jump(current->context, program_);
  std::terminate();  // nothing jumps back into a failed block
}

std::string Block::describe_deadlock() const {
  std::map<std::string, int> waiting;
  for (int i = 0; i < count_; ++i) {
    const Thread& thread = threads_[i];
    if (!thread.done) ++waiting[std::string(thread.waits_in) + " at " + text(thread.where)];
  }
  std::string message = "deadlock:";
  for (const auto& [place, threads] : waiting) {
    message += " " + std::to_string(threads) + " threads wait in " + place + ";";
  }
  message.pop_back();
  return message;
}

void Block::barrier(const Location& where) {
  if (waiting_ == 0) {
    barrier_place_ = where;
  } else if (!same_place(barrier_place_, where)) {
    stop("divergent barrier: this thread is at " + text(where) + ", others wait at " +
         text(barrier_place_));
  }
  announce(&barrier_parity_[current->barriers_passed % 2]);
  current->at_barrier = true;
  if (++waiting_ == live_) open_barrier();
  block_on("__syncthreads", where);
  observe(&barrier_parity_[current->barriers_passed++ % 2]);
}

void Block::open_barrier() {
  waiting_ = 0;
  for (int i = 0; i < count_; ++i) {
    if (!threads_[i].at_barrier) continue;
    threads_[i].at_barrier = false;
    make_ready(threads_[i]);
  }
}

void Block::wake_others(uint32_t lanes_of_warp) {
  for (int lane = 0; lane < kWarpSize; ++lane) {
    if (lane != current->lane && lanes_of_warp >> lane & 1) {
      make_ready(threads_[current->warp * kWarpSize + lane]);
    }
  }
}

uint32_t Block::existing_lanes() const {
  const int lanes = std::min(kWarpSize, count_ - current->warp * kWarpSize);
  return lanes == kWarpSize ? kWholeWarp : (1u << lanes) - 1;
}

}  // namespace kronext::emulator
