#include "cpu/cost_inputs.h"

#include <torch/csrc/stable/ops.h>

#include <cmath>
#include <limits>

#include "cpu/parallel.h"

namespace scav {

namespace {

// f(pair), over the threads.
template <class F>
void for_each_pair(const CostInputs& costs, const F& f) {
  run_ranges(costs.pairs(), [&](int64_t begin, int64_t end) {
    for (int64_t pair = begin; pair < end; ++pair) {
      f(pair);
    }
  });
}

// NaN or -inf if a valid cell holds it, NaN before -inf; else 0.
template <class T>
T find_nonfinite(const CostInputs& costs, int64_t pair) {
  constexpr T lowest = std::numeric_limits<T>::lowest();
  const T* row = costs.rows<T>(pair);
  const int64_t n = costs.length_x(pair), m = costs.length_y(pair);
  T nonfinite = 0;
  for (int64_t s = 0; s < n; ++s, row += costs.cost.stride(2)) {
    bool bad = false;
    for (int64_t t = 0; t < m; ++t) {
      bad |= !(row[t] >= lowest);
    }
    for (int64_t t = 0; bad && t < m; ++t) {
      if (!(row[t] >= lowest) && !std::isnan(nonfinite)) {
        nonfinite = row[t];
      }
    }
  }
  return nonfinite;
}

}  // namespace

CostInputs check_costs(const char* op, const Tensor& cost, const std::optional<Tensor>& x_lengths,
                       const std::optional<Tensor>& y_lengths) {
  leave_threads_behind_after_fork();
  check_grid(op, cost, x_lengths, y_lengths);
  check_cpu(op, "cost", cost);
  CostInputs costs;
  costs.given = cost;
  costs.paired = cost.dim() == 3;
  costs.cost = to_dtype(costs.paired ? torch::stable::unsqueeze(cost, 1) : cost, accumulation_dtype(cost));
  costs.x_lengths = check_lengths(op, "x_lengths", x_lengths, costs.batch_x(), costs.steps_x());
  costs.y_lengths =
      check_lengths(op, "y_lengths", y_lengths, costs.paired ? costs.batch_x() : costs.batch_y(), costs.steps_y());
  if (costs.cost.stride(3) != 1) {
    costs.cost = to_contiguous(costs.cost);
  }
  SCAV_DISPATCH(costs.cost.scalar_type(), [&] {
    costs.nonfinite = Scratch::of<scalar_t>(costs.pairs());
    scalar_t* nonfinite = costs.nonfinite.data<scalar_t>();
    for_each_pair(costs, [&](int64_t pair) { nonfinite[pair] = find_nonfinite<scalar_t>(costs, pair); });
  });
  return costs;
}

void spread_nonfinite(const CostInputs& costs, Tensor& result) {
  SCAV_DISPATCH(result.scalar_type(), [&] {
    const scalar_t* nonfinite = costs.nonfinite.data<scalar_t>();
    scalar_t* out = result.mutable_data_ptr<scalar_t>();
    for (int64_t pair = 0; pair < costs.pairs(); ++pair) {
      if (nonfinite[pair] != 0) {
        out[pair] = nonfinite[pair];
      }
    }
  });
}

Tensor without_nonfinite(const CostInputs& costs, const Tensor& grad) {
  Tensor finite = copy_of(grad);
  SCAV_DISPATCH(finite.scalar_type(), [&] {
    const scalar_t* nonfinite = costs.nonfinite.data<scalar_t>();
    scalar_t* out = finite.mutable_data_ptr<scalar_t>();
    for (int64_t pair = 0; pair < costs.pairs(); ++pair) {
      if (nonfinite[pair] != 0) {
        out[pair] = 0;
      }
    }
  });
  return finite;
}

Tensor finish_gradient(const CostInputs& costs, const Tensor& grad, Tensor gradient) {
  SCAV_DISPATCH(gradient.scalar_type(), [&] {
    const scalar_t* nonfinite = costs.nonfinite.data<scalar_t>();
    const scalar_t* outer = grad.const_data_ptr<scalar_t>();
    scalar_t* cells = gradient.mutable_data_ptr<scalar_t>();
    for_each_pair(costs, [&](int64_t pair) {
      if (nonfinite[pair] == 0 || nonfinite[pair] == std::numeric_limits<scalar_t>::infinity() || outer[pair] == 0) {
        return;
      }
      for (int64_t s = 0; s < costs.length_x(pair); ++s) {
        std::fill_n(cells + (pair * costs.steps_x() + s) * costs.steps_y(), costs.length_y(pair),
                    std::numeric_limits<scalar_t>::quiet_NaN());
      }
    });
  });
  return to_dtype(gradient, costs.given.scalar_type());
}

}  // namespace scav
