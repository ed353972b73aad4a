#pragma once
// A stack of its own for a function that is left and entered again, on the one thread that enters it.

#include <cstddef>
#include <cstdint>
#include <memory>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace simt {

#if defined(__x86_64__)

// Saves the caller's registers on its stack and its stack in *from, and goes on where `to` was left. ucontext's switch
// would also ask the kernel for the signal mask, which takes most of the time.
extern "C" void simt_switch(void** from, void* to);
asm(R"(
.text
.type simt_switch, @function
simt_switch:
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
.size simt_switch, . - simt_switch
)");

#endif

class Fiber {
 public:
  using Function = void (*)();

  // The next enter() calls `function`, which must not return.
  void start(Function function) {
    function_ = function;
#if defined(__x86_64__)
    // Six registers and the address that the first switch returns to; a function starts 8 bytes off 16.
    auto* top = reinterpret_cast<void**>(reinterpret_cast<uintptr_t>(stack_.get() + kStack) & ~uintptr_t(15)) - 1;
    *--top = reinterpret_cast<void*>(&Fiber::begin);
    top -= 6;
    inside_ = top;
#else
    getcontext(&inside_);
    inside_.uc_stack.ss_sp = stack_.get();
    inside_.uc_stack.ss_size = kStack;
    makecontext(&inside_, &Fiber::begin, 0);
#endif
  }

  void enter() {
    starting() = this;
    announce(&outside_fake_stack_, stack_.get(), kStack);
#if defined(__x86_64__)
    simt_switch(&outside_, inside_);
#else
    swapcontext(&outside_, &inside_);
#endif
    arrived(outside_fake_stack_, nullptr, nullptr);
  }

  // Back to where enter() was called; `for_good` gives up what the stack holds.
  void leave(bool for_good) {
    announce(for_good ? nullptr : &inside_fake_stack_, outside_stack_, outside_size_);
#if defined(__x86_64__)
    simt_switch(&inside_, outside_);
#else
    swapcontext(&inside_, &outside_);
#endif
    arrived(inside_fake_stack_, &outside_stack_, &outside_size_);
  }

 private:
  static constexpr size_t kStack = size_t(128) << 10;

  static Fiber*& starting() {
    static Fiber* fiber;
    return fiber;
  }

  static void begin() {
    Fiber& fiber = *starting();
    arrived(nullptr, &fiber.outside_stack_, &fiber.outside_size_);
    fiber.function_();
  }

  // AddressSanitizer is told of each change of stacks.
  static void announce([[maybe_unused]] void** fake_stack, [[maybe_unused]] const void* to,
                       [[maybe_unused]] size_t size) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(fake_stack, to, size);
#endif
  }
  static void arrived([[maybe_unused]] void* fake_stack, [[maybe_unused]] const void** from,
                      [[maybe_unused]] size_t* size) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake_stack, from, size);
#endif
  }

  std::unique_ptr<char[]> stack_{new char[kStack]};
  Function function_ = nullptr;
#if defined(__x86_64__)
  void *inside_ = nullptr, *outside_ = nullptr;
#else
  ucontext_t inside_, outside_;
#endif
  void *inside_fake_stack_ = nullptr, *outside_fake_stack_ = nullptr;
  const void* outside_stack_ = nullptr;
  size_t outside_size_ = 0;
};

}  // namespace simt
