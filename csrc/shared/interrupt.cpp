#include "shared/interrupt.h"

#include <chrono>
#include <utility>

namespace scav {

namespace {

using Clock = std::chrono::steady_clock;

// A few milliseconds of vector units, and tens where a loop has none.
constexpr int64_t kOperations = int64_t(1) << 24;
constexpr auto kInterval = std::chrono::milliseconds(50);

std::atomic<InterruptCheck> interrupt_check{nullptr};

// State of the thread: operations since it last read the clock, time of its last check, and its parallel loop.
thread_local int64_t operations_done = 0;
thread_local Clock::time_point last_check;
thread_local const PartsInParallel* loop = nullptr;
thread_local bool called_the_op = true;

// Unwinds a thread whose loop another thread has ended.
struct EndedElsewhere {};

void check_now_and_then() {
  const InterruptCheck check = interrupt_check.load(std::memory_order_relaxed);
  if (check == nullptr) {
    return;
  }
  const Clock::time_point now = Clock::now();
  if (now - last_check >= kInterval) {
    last_check = now;
    check();
  }
}

}  // namespace

void set_interrupt_check(InterruptCheck check) { interrupt_check = check; }

void poll(int64_t operations) {
  operations_done += operations;
  if (operations_done < kOperations) {
    return;
  }
  operations_done = 0;
  if (loop != nullptr && loop->ended()) {
    throw EndedElsewhere();
  }
  if (called_the_op) {
    check_now_and_then();
  }
}

bool in_part() { return loop != nullptr; }

void PartsInParallel::run(int64_t begin, int64_t end, bool calling_thread, const std::function<void(int64_t)>& part) {
  const PartsInParallel* const outer = std::exchange(loop, this);
  const bool outer_called = std::exchange(called_the_op, calling_thread && called_the_op);
  try {
    for (int64_t index = begin; index < end && !ended(); ++index) {
      part(index);
    }
  } catch (const EndedElsewhere&) {
  } catch (...) {
    this->end(std::current_exception());
  }
  if (unfinished_.fetch_sub(end - begin) == end - begin) {
    const std::lock_guard<std::mutex> lock(mutex_);
    finished_.notify_one();
  }
  if (calling_thread) {
    wait();
  }
  loop = outer;
  called_the_op = outer_called;
}

void PartsInParallel::rethrow() const {
  if (error_ != nullptr) {
    std::rethrow_exception(error_);
  }
}

void PartsInParallel::end(std::exception_ptr error) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (error_ == nullptr) {
    error_ = std::move(error);
  }
  ended_ = true;
}

void PartsInParallel::wait() {
  // Others are mostly nearly done: sleeping would take longer.
  for (int spin = 0; spin < 20000 && unfinished_ > 0; ++spin) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }
  while (unfinished_ > 0) {
    {
      std::unique_lock<std::mutex> lock(mutex_);
      if (finished_.wait_for(lock, kInterval, [this] { return unfinished_ == 0; })) {
        return;
      }
    }
    try {
      if (!ended() && called_the_op) {
        check_now_and_then();
      }
    } catch (...) {
      end(std::current_exception());
    }
  }
}

}  // namespace scav
