// A stack for each emulated thread, and the jump from one stack to another.
//
// The sanitizers are told of every jump, so that ASan knows which stack is in use and TSan sees
// each emulated thread as a thread. Their hooks are weak symbols: one object file serves plain and
// sanitized programs.
#pragma once

#include <cstddef>

namespace kronext::emulator {

class Context {
 public:
  Context() = default;
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  // The next jump here calls entry(), which must never return, on a stack of its own.
  void start_at(void (*entry)());

  // Forgets where it was: for a thread of a failed block, which does not finish. One that has
  // finished may start again, and is the same thread to TSan: a new one costs it a third of a
  // millisecond.
  void drop();

  // To be called first in entry().
  static void arrived(Context& previous);

  // Leaves `from` for `to`; comes back when another jump leads to `from`.
  static void jump(Context& from, Context& to, bool from_is_done = false);

 private:
  void* stack_pointer_ = nullptr;
  char* stack_ = nullptr;  // null: the stack of the program itself
  void* tsan_fiber_ = nullptr;
  void* asan_fake_stack_ = nullptr;
  const void* asan_bottom_ = nullptr;
  size_t asan_size_ = 0;
};

// Order between emulated threads, for TSan; `at` names the meeting place.
void announce(void* at);
void observe(void* at);

// Accesses that no sanitizer sees: what the runtime moves on behalf of the hardware.
void copy_unseen(void* to, const void* from, size_t bytes);
void fill_unseen(void* to, int value, size_t bytes);

// Makes [begin, begin + bytes) the only part of the window that ASan lets a kernel touch.
void allow_only(void* window, size_t window_bytes, size_t bytes);

}  // namespace kronext::emulator
