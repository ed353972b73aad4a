#include "cpu/parallel.h"

#include <pthread.h>
#include <torch/csrc/stable/ops.h>

#include <atomic>
#include <numeric>
#include <thread>

#include "cpu/float_settings.h"
#include "cpu/torch_settings.h"

namespace scav {

namespace {

std::atomic<bool> just_forked{false};

const int watch_forks = pthread_atfork(nullptr, nullptr, [] { just_forked = true; });

}  // namespace

void leave_threads_behind_after_fork() {
  if (just_forked.exchange(false)) {
    use_one_thread();
  }
}

int64_t thread_count() { return in_part() ? 1 : static_cast<int64_t>(torch::stable::get_num_threads()); }

void run_ranges(int64_t count, const std::function<void(int64_t, int64_t)>& range) {
  if (count == 1) {
    range(0, 1);
    return;
  }
  torch::stable::parallel_for(0, count, 1, [&, settings = float_settings()](int64_t begin, int64_t end) {
    const FloatSettings of_caller(settings);
    range(begin, end);
  });
}

void run_parts(int64_t parts, const std::function<void(int64_t)>& part) {
  const std::thread::id caller = std::this_thread::get_id();
  PartsInParallel loop(parts);
  run_ranges(parts,
             [&](int64_t begin, int64_t end) { loop.run(begin, end, std::this_thread::get_id() == caller, part); });
  loop.rethrow();
}

std::vector<int64_t> split_by_weight(const std::vector<double>& weights, int64_t parts) {
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::vector<int64_t> bounds{0};
  double before = 0;
  for (size_t index = 0; index < weights.size(); ++index) {
    // A range ends where its weight is nearest to its equal part.
    while (static_cast<int64_t>(bounds.size()) < parts &&
           before + weights[index] / 2 > total * static_cast<double>(bounds.size()) / static_cast<double>(parts)) {
      bounds.push_back(static_cast<int64_t>(index));
    }
    before += weights[index];
  }
  bounds.resize(static_cast<size_t>(parts) + 1, static_cast<int64_t>(weights.size()));
  return bounds;
}

}  // namespace scav
