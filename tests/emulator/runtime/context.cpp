#include "tests/emulator/runtime/context.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstring>
#include <new>

#if !defined(__x86_64__)
#error "the emulator's context switch is written for x86-64"
#endif

extern "C" {
void* __tsan_get_current_fiber() __attribute__((weak));
void* __tsan_create_fiber(unsigned) __attribute__((weak));
void __tsan_destroy_fiber(void*) __attribute__((weak));
void __tsan_switch_to_fiber(void*, unsigned) __attribute__((weak));
void __tsan_acquire(void*) __attribute__((weak));
void __tsan_release(void*) __attribute__((weak));
void __sanitizer_start_switch_fiber(void**, const void*, size_t) __attribute__((weak));
void __sanitizer_finish_switch_fiber(void*, const void**, size_t*) __attribute__((weak));
void __asan_poison_memory_region(const volatile void*, size_t) __attribute__((weak));
void __asan_unpoison_memory_region(const volatile void*, size_t) __attribute__((weak));
void kronext_emulator_switch(void** save, void* load);
}

// The registers that the System V ABI lets a callee keep, then the stack pointer.
__asm__(R"(
.text
.type kronext_emulator_switch,@function
.globl kronext_emulator_switch
.hidden kronext_emulator_switch
kronext_emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size kronext_emulator_switch,.-kronext_emulator_switch
)");

namespace kronext::emulator {
namespace {

constexpr size_t kStackBytes = 128 << 10, kGuardBytes = 4096, kSavedRegisters = 6;

const bool kTsan = __tsan_create_fiber != nullptr;
const bool kAsan = __asan_poison_memory_region != nullptr;

char* new_stack() {
  void* memory = mmap(nullptr, kStackBytes + kGuardBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  mprotect(memory, kGuardBytes, PROT_NONE);
  return static_cast<char*>(memory) + kGuardBytes;
}

}  // namespace

Context::~Context() {
  drop();
  if (stack_) munmap(stack_ - kGuardBytes, kStackBytes + kGuardBytes);
}

void Context::start_at(void (*entry)()) {
  if (!stack_) stack_ = new_stack();
  void** top = reinterpret_cast<void**>(stack_ + kStackBytes);
  *--top = nullptr;  // the return address of entry(); keeps the alignment of a call
  *--top = reinterpret_cast<void*>(entry);
  for (size_t i = 0; i < kSavedRegisters; ++i) *--top = nullptr;
  stack_pointer_ = top;
  if (kTsan && !tsan_fiber_) tsan_fiber_ = __tsan_create_fiber(0);
  asan_fake_stack_ = nullptr;
  asan_bottom_ = stack_;
  asan_size_ = kStackBytes;
}

void Context::drop() {
  if (kTsan && stack_ && tsan_fiber_) __tsan_destroy_fiber(tsan_fiber_);
  tsan_fiber_ = asan_fake_stack_ = stack_pointer_ = nullptr;
}

void Context::arrived(Context& previous) {
  if (!kAsan) return;
  const void* bottom;
  size_t size;
  __sanitizer_finish_switch_fiber(nullptr, &bottom, &size);
  if (!previous.stack_) {
    previous.asan_bottom_ = bottom;
    previous.asan_size_ = size;
  }
}

void Context::jump(Context& from, Context& to, bool from_is_done) {
  if (kTsan) {
    if (!from.stack_) from.tsan_fiber_ = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(to.tsan_fiber_, 1);  // 1: the jump itself orders nothing
  }
  if (kAsan) {
    __sanitizer_start_switch_fiber(from_is_done ? nullptr : &from.asan_fake_stack_, to.asan_bottom_,
                                   to.asan_size_);
  }
  kronext_emulator_switch(&from.stack_pointer_, to.stack_pointer_);
  if (kAsan) __sanitizer_finish_switch_fiber(from.asan_fake_stack_, nullptr, nullptr);
}

void announce(void* at) {
  if (kTsan) __tsan_release(at);
}

void observe(void* at) {
  if (kTsan) __tsan_acquire(at);
}

// TSan intercepts memcpy and memset wherever they are called from, but not a loop of this file.
void copy_unseen(void* to, const void* from, size_t bytes) {
  if (!kTsan) {
    std::memcpy(to, from, bytes);
    return;
  }
  for (size_t i = 0; i < bytes; ++i) {
    static_cast<volatile char*>(to)[i] = static_cast<const volatile char*>(from)[i];
  }
}

void fill_unseen(void* to, int value, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) static_cast<volatile char*>(to)[i] = char(value);
}

void allow_only(void* window, size_t window_bytes, size_t bytes) {
  if (!kAsan) return;
  __asan_unpoison_memory_region(window, bytes);
  __asan_poison_memory_region(static_cast<char*>(window) + bytes, window_bytes - bytes);
}

}  // namespace kronext::emulator
