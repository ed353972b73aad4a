#pragma once
// Scratch of Sinkhorn for a tile on a GPU, for costs from products or from the caller.

#include "cuda/op.h"
#include "shared/interrupt.h"
#include "cuda/sinkhorn.h"

namespace scav::device {

// Operations that a part's launches count for, of those that poll() is told: they may wait for the device.
inline constexpr int64_t kLaunches = int64_t(1) << 20;

// `cell_bytes`: what a cell of costs takes of the scratch.
template <class T>
class SinkhornScratch {
 public:
  SinkhornScratch(const OnDevice& on, int64_t n, int64_t m, int64_t cell_bytes, const SinkhornOptions& options,
                  const StepWeights<T>& weights)
      : n_(n),
        m_(m),
        options_(options),
        weights_(weights),
        place_(choose_kernel_place(n, m, sizeof(T), cell_bytes, on.scratch_bytes)),
        stream_(on.stream),
        memory_(on.device) {}

  Needs needs() const { return sinkhorn_needs(place_, n_, m_, sizeof(T)); }

  // `f` (results, N), zero on entry, or null.
  void forward(const Parts<T>& parts, T* out, T* f, const SinkhornReport<T>& report) {
    if (place_ == KernelPlace::none) {
      return iterate(parts, out, f, report);
    }
    const Costs<T>& costs = parts.at(0);
    launch_sinkhorn_forward<T>(costs, place_, options_, weights_,
                               memory_.of(sinkhorn_scratch(place_, costs.count, n_, m_)), out, f, report, stream_);
  }

 private:
  void iterate(const Parts<T>& parts, T* out, T* f, const SinkhornReport<T>& report) {
    const Costs<T>& costs = parts.at(0);
    const int64_t size = SinkhornState<T>::size(costs.count, n_, m_);
    const SinkhornState<T> state(memory_.of(size), costs.count, n_, m_, weights_);
    launch_sinkhorn_start<T>(costs, options_.epsilon, false, state, report, stream_);
    if (options_.scaling.has_value()) {
      anneal(parts, state);
      launch_sinkhorn_start<T>(parts.at(0), options_.epsilon, true, state, report, stream_);
    }
    const bool measure = report.iterations != nullptr;
    for (int64_t iteration = 0; iteration < options_.max_iterations + measure; ++iteration) {
      poll(kLaunches * parts.count);
      parts.each([&](const Costs<T>& part) { launch_sinkhorn_part<T>(part, options_.epsilon, state, stream_); });
      launch_sinkhorn_settle<T>(costs, iteration > 0 ? options_.tolerance : 0.0, iteration,
                                iteration == options_.max_iterations, state, report, stream_);
    }
    launch_sinkhorn_finish<T>(costs, options_.epsilon, state, out, f, stream_);
  }

  // Iterations on the way to the last epsilon. How many a pair needs is known on the device alone: there are launches
  // for as many as there can be.
  void anneal(const Parts<T>& parts, const SinkhornState<T>& state) {
    parts.each([&](const Costs<T>& part) { launch_sinkhorn_largest<T>(part, state, stream_); });
    launch_sinkhorn_anneal<T>(parts.at(0), options_, 0, state, stream_);
    for (int64_t iteration = 1; iteration <= options_.max_iterations; ++iteration) {
      poll(kLaunches * parts.count);
      parts.each([&](const Costs<T>& part) { launch_sinkhorn_part<T>(part, options_.epsilon, state, stream_); });
      launch_sinkhorn_anneal<T>(parts.at(0), options_, iteration, state, stream_);
    }
  }

  int64_t n_, m_;
  SinkhornOptions options_;
  StepWeights<T> weights_;
  KernelPlace place_;
  Stream stream_;
  Scratch<T> memory_;
};

// The plan, from potentials `f` (results, N), and of weighted steps their weights, else null; `g` (results, M), zero on
// entry, or null, is where G of weighted steps goes.
template <class T>
class SinkhornPlan {
 public:
  SinkhornPlan(double epsilon, const T* f, const StepWeights<T>& weights, T* g, const Device& device)
      : epsilon_(epsilon), from_{f, weights, nullptr, g}, memory_(device), rows_(device) {}

  Adjoint<T> adjoint(Stream stream) {
    const auto write = [this, stream](const Costs<T>& costs, const T* grads, const Weights<T>& to) {
      if (costs.end - costs.begin == costs.steps_x) {
        weigh_rows(costs, stream);
        return launch_sinkhorn_backward<T>(costs, epsilon_, grads, from_, to, stream);
      }
      launch_sinkhorn_plan_rows<T>(costs, epsilon_, grads, potentials(costs), sums(costs), sums(costs) + costs.steps_y,
                                   from_, to, stream);
    };
    const auto survey = [this, stream](const Parts<T>& parts) {
      weigh_rows(parts.at(0), stream);
      parts.each([&](const Costs<T>& costs) {
        launch_sinkhorn_columns<T>(costs, epsilon_, nullptr, potentials(costs), nullptr, sums(costs),
                                   sums(costs) + costs.steps_y, stream);
      });
    };
    return {write, survey};
  }

 private:
  void weigh_rows(const Costs<T>& costs, Stream stream) {
    if (from_.weights.x != nullptr) {
      from_.weighted_f = rows_.of(costs.count * costs.steps_x);
      launch_sinkhorn_weigh_rows<T>(costs, from_, stream);
    }
  }

  // Potentials of the one pair that is in parts.
  const T* potentials(const Costs<T>& costs) const {
    if (from_.weighted_f != nullptr) {
      return from_.weighted_f;
    }
    const int64_t result = costs.paired ? costs.first_x : costs.first_x * costs.batch_y + costs.first_y;
    return from_.f + result * costs.steps_x;
  }
  T* sums(const Costs<T>& costs) { return memory_.of(2 * costs.steps_y); }

  double epsilon_;
  SinkhornPotentials<T> from_;
  Scratch<T> memory_, rows_;
};

}  // namespace scav::device
