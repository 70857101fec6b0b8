// The block that is running: its threads, and which of them goes next.
//
// The runtime is never compiled with a sanitizer, so that ASan and TSan see the accesses of kernels
// and not those of the machine under them. TSan still sees calls of malloc, free, memcpy and
// memmove: what threads share here is allocated before they start, and moved by loops.
#pragma once

#include <deque>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "tests/emulator/runtime/context.h"
#include "tests/emulator/runtime/emulator.h"

namespace kronext::emulator {

struct Meeting {
  uint32_t mask, arrived, left;
  const char* what;
  Location where;
  bool orders_memory;
  alignas(16) char brought[kWarpSize][kSlotBytes], result[kWarpSize][kSlotBytes];
};

struct Copy {
  void* to;
  const void* from;
  uint32_t bytes, valid_bytes;
};

struct Thread {
  Context context;
  Index3 index;
  int number, lane, warp;
  bool done, at_barrier;
  const char* waits_in;  // null: ready or running
  Location where;
  uint64_t barriers_passed;
  std::vector<Copy> uncommitted;
  std::deque<std::vector<Copy>> groups;
};

struct Warp {
  uint32_t live = 0;
  std::vector<std::unique_ptr<Meeting>> meetings, spare;  // a lane is in one meeting at a time

  Warp() {
    meetings.reserve(kWarpSize);
    spare.reserve(kWarpSize);
    for (int i = 0; i < kWarpSize; ++i) spare.push_back(std::make_unique<Meeting>());
  }
};

class Block {
 public:
  Block();
  void run_grid(const std::function<void()>& body, Index3 grid, Index3 size, size_t shared_bytes);
  void run(Index3 index);

  [[noreturn]] void stop(const std::string& message);
  void barrier(const Location& where);
  void give_way();
  void block_on(const char* what, const Location& where);
  void wake_others(uint32_t lanes_of_warp);
  Warp& warp() { return warps_[current->warp]; }
  uint32_t existing_lanes() const;

  Thread* current = nullptr;
  Index3 index, size, grid;
  void* shared;
  std::mt19937_64 random;

 private:
  static void entry();
  void make_ready(Thread& thread);
  Thread* next();
  void go_on();
  void finish_thread();
  void start_threads();
  void open_barrier();
  std::string describe_deadlock() const;

  Context program_;
  const std::function<void()>* body_ = nullptr;
  std::deque<Thread> threads_;  // a Context does not move
  std::vector<Warp> warps_;
  std::vector<int> round_, later_;  // threads to run in this round, and in the next one
  size_t at_ = 0;
  int count_ = 0, live_ = 0, waiting_ = 0;
  Location barrier_place_;
  // Addresses that name meeting places to TSan.
  char block_start_ = 0, barrier_parity_[2] = {}, block_end_ = 0;
  std::string failure_;
};

Block& block();

std::string text(const Location& where);
bool same_place(const Location& a, const Location& b);

}  // namespace kronext::emulator
