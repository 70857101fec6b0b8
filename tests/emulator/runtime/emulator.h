// Executes CUDA kernels on the CPU: one fiber for each thread of a block, one block after another.
//
// Kernels are compiled by the host compiler from the source that nvcc compiles. `twins/` is put
// first on the include path and holds an emulated twin of each header that speaks to the GPU; the
// twins call what is declared here. Which thread and which block goes next is the schedule's
// choice: a correct kernel gives the same bits under all of them. What a kernel must not do (a
// barrier that not all threads reach, a mask that names the wrong lanes, a deadlock) throws Error
// with the source line.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <source_location>
#include <stdexcept>
#include <string>

namespace kronext::emulator {

using Location = std::source_location;

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

enum class Order { kForward, kReverse, kRandom };

struct Schedule {
  Order order = Order::kForward;
  uint64_t seed = 0;  // of kRandom
};

Schedule& schedule();

struct Index3 {
  unsigned x = 1, y = 1, z = 1;
};

constexpr int kWarpSize = 32;
constexpr uint32_t kWholeWarp = 0xffffffffu;
constexpr size_t kSlotBytes = 64;  // what a lane can bring to, and take from, a warp collective
constexpr size_t kMaxSharedBytes = 227 * 1024;

// ---- called by a launch ------------------------------------------------------------------------

void run_grid(const std::function<void()>& thread_body, Index3 grid, Index3 block,
              size_t shared_bytes);

// ---- called by a kernel ------------------------------------------------------------------------

const Index3& thread_index();
const Index3& block_index();
const Index3& block_size();
const Index3& grid_size();
int lane_index();
void* dynamic_shared();  // starts as 0xff bytes: NaN in every floating-point type

[[noreturn]] void fail(const std::string& message, const Location& where);
void block_barrier(const Location& where);
// Barriers that threads came to, of blocks and of warps, since the program began: what a kernel
// did, where its results do not tell.
uint64_t barriers();
void preempt();  // a point where a random schedule may run other threads first

void start_copy(void* to, const void* from, uint32_t bytes, uint32_t valid_bytes);
void commit_copies();
void land_copies(int groups_left_in_flight);
// Calls see(to, bytes) for each copy that land_copies would land.
void for_each_landing_copy(int groups_left_in_flight,
                           const std::function<void(void*, uint32_t)>& see);

// The lanes of a warp meet, the last to arrive combines what all of them brought.
struct Meeting;
Meeting* arrive(uint32_t mask, const char* what, const Location& where, bool orders_memory,
                const void* brought, size_t bytes);
bool everyone_is_here(const Meeting& meeting);
uint32_t lanes(const Meeting& meeting);
void read_brought(const Meeting& meeting, int lane, void* to, size_t bytes);
void write_result(Meeting& meeting, int lane, const void* from, size_t bytes);
void open(Meeting& meeting);
void wait(Meeting& meeting);
void leave(Meeting* meeting, void* result, size_t bytes);

// combine(lanes, in, out): in[l] is what lane l brought, out[l] is what it takes away.
template <class Out, class In, class Combine>
Out collective(uint32_t mask, const char* what, const Location& where, const In& mine,
               const Combine& combine) {
  static_assert(sizeof(In) <= kSlotBytes && sizeof(Out) <= kSlotBytes);
  Meeting* meeting = arrive(mask, what, where, false, &mine, sizeof(In));
  if (everyone_is_here(*meeting)) {
    In in[kWarpSize] = {};
    Out out[kWarpSize] = {};
    for (int lane = 0; lane < kWarpSize; ++lane) {
      if (lanes(*meeting) >> lane & 1) read_brought(*meeting, lane, &in[lane], sizeof(In));
    }
    combine(lanes(*meeting), in, out);
    for (int lane = 0; lane < kWarpSize; ++lane) {
      write_result(*meeting, lane, &out[lane], sizeof(Out));
    }
    open(*meeting);
  } else {
    wait(*meeting);
  }
  Out result;
  leave(meeting, &result, sizeof(Out));
  return result;
}

void warp_barrier(uint32_t mask, const Location& where);

}  // namespace kronext::emulator
