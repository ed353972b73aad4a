#pragma once
// Ends a long op from outside, as by Ctrl-C. Depends on neither Python nor torch: the module that loads the kernels
// sets the check.

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>

namespace scav {

// Throws where the op is to end. Called on the thread that called the op, at most every 50 ms.
using InterruptCheck = void (*)();
void set_interrupt_check(InterruptCheck check);

// Loops that may run for long call this with the number of arithmetic operations since their last call, roughly. Throws
// where the op is to end; cheap otherwise.
void poll(int64_t operations);

// True inside a part of a parallel loop.
bool in_part();

// The parts of one parallel loop, of which the calling thread runs some and other threads the rest. The first exception
// in any of them ends all.
class PartsInParallel {
 public:
  explicit PartsInParallel(int64_t parts) : unfinished_(parts) {}

  // Runs parts [begin, end) on this thread. On the calling thread, then waits for the others, and checks meanwhile.
  void run(int64_t begin, int64_t end, bool calling_thread, const std::function<void(int64_t)>& part);
  // Throws what a part threw; call it once all have run.
  void rethrow() const;

  bool ended() const { return ended_.load(std::memory_order_relaxed); }

 private:
  void end(std::exception_ptr error);
  void wait();

  std::atomic<bool> ended_{false};
  std::atomic<int64_t> unfinished_;
  std::mutex mutex_;  // guards the two members below
  std::condition_variable finished_;
  std::exception_ptr error_;
};

}  // namespace scav
