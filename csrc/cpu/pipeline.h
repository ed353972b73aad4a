#pragma once
// Tasks in a row that threads run one behind the other: each reads what the task before it has finished so far.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <limits>
#include <vector>

namespace scav {

class Pipeline {
 public:
  // A task has finished all that it writes.
  static constexpr int64_t kFinished = std::numeric_limits<int64_t>::max();

  explicit Pipeline(int64_t tasks) : finished_(static_cast<size_t>(tasks)) {}

  // Returns the next task, or the number of tasks once there is none. A thread runs the task that it takes to its end:
  // so the task before has a thread, and waiting for it ends, however few threads there are.
  int64_t take() {
    return std::min(next_.fetch_add(1, std::memory_order_acq_rel), static_cast<int64_t>(finished_.size()));
  }

  // Says that `task` has finished the first `amount` of what it writes.
  void publish(int64_t task, int64_t amount) {
    finished_[static_cast<size_t>(task)].store(amount, std::memory_order_release);
  }

  // Waits until the task before `task`, if there is one, has finished `amount`. Throws where the op is to end.
  void wait(int64_t task, int64_t amount) const {
    if (task > 0 && finished_[static_cast<size_t>(task - 1)].load(std::memory_order_acquire) < amount) {
      wait_longer(finished_[static_cast<size_t>(task - 1)], amount);
    }
  }

 private:
  static void wait_longer(const std::atomic<int64_t>& finished, int64_t amount);

  std::atomic<int64_t> next_{0};
  std::vector<std::atomic<int64_t>> finished_;
};

}  // namespace scav
