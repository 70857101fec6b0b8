#include "tests/emulator/runtime/emulator.h"

#include <algorithm>
#include <string>

#include "tests/emulator/runtime/block.h"

namespace kronext::emulator {
namespace {

constexpr int kPreemptOneIn = 4;

}  // namespace

Schedule& schedule() {
  static Schedule instance;
  return instance;
}

void run_grid(const std::function<void()>& body, Index3 grid, Index3 size, size_t shared_bytes) {
  block().run_grid(body, grid, size, shared_bytes);
}

const Index3& thread_index() { return block().current->index; }
const Index3& block_index() { return block().index; }
const Index3& block_size() { return block().size; }
const Index3& grid_size() { return block().grid; }
int lane_index() { return block().current->lane; }
void* dynamic_shared() { return block().shared; }

void fail(const std::string& message, const Location& where) {
  block().stop(message + ", " + text(where));
}

static uint64_t barrier_count = 0;
uint64_t barriers() { return barrier_count; }

void block_barrier(const Location& where) {
  ++barrier_count;
  block().barrier(where);
}

void preempt() {
  if (schedule().order == Order::kRandom && block().random() % kPreemptOneIn == 0) {
    block().give_way();
  }
}

// ---- asynchronous copies -----------------------------------------------------------------------

void start_copy(void* to, const void* from, uint32_t bytes, uint32_t valid_bytes) {
  block().current->uncommitted.push_back({to, from, bytes, valid_bytes});
}

void commit_copies() {
  Thread& me = *block().current;
  me.groups.push_back(std::move(me.uncommitted));
  me.uncommitted.clear();
}

void for_each_landing_copy(int left, const std::function<void(void*, uint32_t)>& see) {
  const Thread& me = *block().current;
  for (size_t i = 0; i + size_t(left) < me.groups.size(); ++i) {
    for (const Copy& copy : me.groups[i]) see(copy.to, copy.bytes);
  }
}

void land_copies(int left) {
  Thread& me = *block().current;
  for (; me.groups.size() > size_t(left); me.groups.pop_front()) {
    for (const Copy& copy : me.groups.front()) {
      copy_unseen(copy.to, copy.from, copy.valid_bytes);
      fill_unseen(static_cast<char*>(copy.to) + copy.valid_bytes, 0, copy.bytes - copy.valid_bytes);
    }
  }
}

// ---- meetings of the lanes of a warp -----------------------------------------------------------

Meeting* arrive(uint32_t mask, const char* what, const Location& where, bool orders_memory,
                const void* brought, size_t bytes) {
  Thread& me = *block().current;
  Warp& warp = block().warp();
  const uint32_t existing = block().existing_lanes();
  const auto refuse = [&](const std::string& why) { fail(std::string(what) + why, where); };
  if (!(mask >> me.lane & 1)) refuse(": the lane is not in its own mask");
  if ((mask & existing & ~warp.live) || (mask & ~existing && mask != kWholeWarp)) {
    refuse(": the mask names lanes that have exited or do not exist");
  }
  mask &= existing;
  Meeting* mine = nullptr;
  for (const auto& meeting : warp.meetings) {
    if (meeting->mask == mask && !(meeting->arrived >> me.lane & 1)) {
      mine = meeting.get();
      break;
    }
    if (meeting->mask != mask && meeting->mask & mask && meeting->arrived != meeting->mask) {
      refuse(std::string(": overlaps the mask of ") + meeting->what + " at " +
             text(meeting->where));
    }
  }
  if (!mine) {
    warp.meetings.push_back(std::move(warp.spare.back()));
    warp.spare.pop_back();
    mine = warp.meetings.back().get();
    mine->mask = mask;
    mine->arrived = mine->left = 0;
    mine->what = what;
    mine->where = where;
    mine->orders_memory = orders_memory;
  } else if (!same_place(mine->where, where)) {
    refuse(std::string(": warp divergence, it meets ") + mine->what + " at " + text(mine->where));
  }
  copy_unseen(mine->brought[me.lane], brought, bytes);
  mine->arrived |= 1u << me.lane;
  if (orders_memory) announce(mine);
  return mine;
}

bool everyone_is_here(const Meeting& meeting) { return meeting.arrived == meeting.mask; }

uint32_t lanes(const Meeting& meeting) { return meeting.mask; }

void read_brought(const Meeting& meeting, int lane, void* to, size_t bytes) {
  copy_unseen(to, meeting.brought[lane], bytes);
}

void write_result(Meeting& meeting, int lane, const void* from, size_t bytes) {
  copy_unseen(meeting.result[lane], from, bytes);
}

void open(Meeting& meeting) { block().wake_others(meeting.mask); }

void wait(Meeting& meeting) { block().block_on(meeting.what, meeting.where); }

void leave(Meeting* meeting, void* result, size_t bytes) {
  Thread& me = *block().current;
  auto& meetings = block().warp().meetings;
  if (meeting->orders_memory) observe(meeting);
  copy_unseen(result, meeting->result[me.lane], bytes);
  meeting->left |= 1u << me.lane;
  if (meeting->left != meeting->mask) return;
  const auto at = std::find_if(meetings.begin(), meetings.end(),
                               [&](const auto& other) { return other.get() == meeting; });
  block().warp().spare.push_back(std::move(*at));
  meetings.erase(at);
}

void warp_barrier(uint32_t mask, const Location& where) {
  ++barrier_count;
  Meeting* meeting = arrive(mask, "__syncwarp", where, true, nullptr, 0);
  if (everyone_is_here(*meeting)) {
    open(*meeting);
  } else {
    wait(*meeting);
  }
  leave(meeting, nullptr, 0);
}

}  // namespace kronext::emulator
