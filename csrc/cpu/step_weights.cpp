#include "cpu/step_weights.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/parallel.h"
#include "shared/constants.h"

namespace scav {

StepWeights check_weights(const char* op, const char* name, const std::optional<Tensor>& weights,
                          const Lengths& lengths, int64_t steps, ScalarType dtype) {
  StepWeights result;
  if (!weights.has_value()) {
    return result;
  }
  const int64_t batch = lengths.size();
  check_floating(op, name, *weights);
  check_cpu(op, name, *weights);
  SCAV_CHECK_VALUE(weights->dim() == 2 && weights->size(0) == batch && weights->size(1) == steps, op, ": expected ",
                   name, " of shape (", batch, ", ", steps, "), one weight per step, got shape ", text_of(*weights),
                   "; pass the weights of every step, in the order of the steps");
  const Tensor packed = to_contiguous(to_dtype(*weights, kDouble));
  const double* given = packed.const_data_ptr<double>();
  const int64_t* valid = lengths.data();
  result.given = *weights;
  result.relative = new_zeros({batch, steps}, dtype);
  for (int64_t b = 0; b < batch; ++b) {
    const double* row = given + b * steps;
    double largest = 0, sum = 0;
    for (int64_t s = 0; s < valid[b]; ++s) {
      SCAV_CHECK_VALUE(row[s] >= 0 && std::isfinite(row[s]), op, ": expected ", name, " to be finite and >= 0, got ",
                       row[s], " at step ", s, " of sequence ", b, "; replace it, by 0 to leave the step out");
      largest = std::max(largest, row[s]);
    }
    SCAV_CHECK_VALUE(largest > 0, op, ": expected ", name,
                     " with a weight > 0 among the valid steps, got zeros for all ", valid[b], " of sequence ", b,
                     "; leave the sequence out of the batch");
    for (int64_t s = 0; s < valid[b]; ++s) {
      sum += row[s] / largest;
    }
    const double mean = sum / static_cast<double>(valid[b]);
    result.means.push_back(mean * largest);
    SCAV_DISPATCH(dtype, [&] {
      scalar_t* relative = result.relative.mutable_data_ptr<scalar_t>() + b * steps;
      for (int64_t s = 0; s < valid[b]; ++s) {
        relative[s] = static_cast<scalar_t>(row[s] / largest / mean);
      }
    });
  }
  return result;
}

namespace {

// Of the steps that have weight; `a` and `b` are those of x's and of y's, or null.
template <class T>
bool has_blocked_step(const CostInputs& costs, int64_t pair, const T* a, const T* b) {
  const T* row = costs.rows<T>(pair);
  const int64_t n = costs.length_x(pair), m = costs.length_y(pair);
  std::vector<char> counts(static_cast<size_t>(m), 1);
  for (int64_t t = 0; b != nullptr && t < m; ++t) {
    counts[static_cast<size_t>(t)] = static_cast<char>(b[t] > 0);
  }
  std::vector<char> reached(static_cast<size_t>(m));
  for (int64_t s = 0; s < n; ++s, row += costs.cost.stride(2)) {
    if (a != nullptr && a[s] == 0) {
      continue;
    }
    bool any = false;
    for (int64_t t = 0; t < m; ++t) {
      const bool finite = std::isfinite(row[t]) && counts[static_cast<size_t>(t)] != 0;
      any |= finite;
      reached[static_cast<size_t>(t)] |= static_cast<char>(finite);
    }
    if (!any) {
      return true;
    }
  }
  return reached != counts;
}

template <class T>
void fill_gradient(const StepWeights& weights, const Lengths& lengths, const PairsOfSequence& pairs, double epsilon,
                   const Tensor& grad, const Tensor& potentials, const std::vector<char>& nonfinite, Tensor& gradient) {
  const int64_t steps = potentials.size(potentials.dim() - 1);
  const T* outer = grad.const_data_ptr<T>();
  const T* values = potentials.const_data_ptr<T>();
  T* out = gradient.mutable_data_ptr<T>();
  run_ranges(lengths.size(), [&](int64_t begin, int64_t end) {
    std::vector<double> sums;
    for (int64_t b = begin; b < end; ++b) {
      const int64_t n = lengths.data()[b];
      if (nonfinite[static_cast<size_t>(b)]) {
        std::fill_n(out + b * steps, n, std::numeric_limits<T>::quiet_NaN());
        continue;
      }
      sums.assign(static_cast<size_t>(n), 0);
      for (int64_t k = 0; k < pairs.count; ++k) {
        const int64_t result = b * pairs.stride + k * pairs.step;
        if (outer[result] == 0) {
          continue;
        }
        for (int64_t s = 0; s < n; ++s) {
          const double potential = epsilon * static_cast<double>(values[result * steps + s]);
          // Nothing finite leads to this step: an infinite cost is kUnreachable, or -kMasked in units of epsilon.
          const bool blocked =
              std::max(static_cast<double>(values[result * steps + s]), potential) > static_cast<double>(kReached<T>);
          sums[static_cast<size_t>(s)] +=
              static_cast<double>(outer[result]) * (blocked ? std::numeric_limits<double>::infinity() : potential);
        }
      }
      const T* relative = weights.of<T>(b);
      double mean = 0;
      for (int64_t s = 0; s < n; ++s) {
        mean += relative[s] > 0 ? static_cast<double>(relative[s]) * sums[static_cast<size_t>(s)] : 0.0;
      }
      mean /= static_cast<double>(n);
      for (int64_t s = 0; s < n; ++s) {
        out[b * steps + s] = static_cast<T>((sums[static_cast<size_t>(s)] - mean) /
                                            (static_cast<double>(n) * weights.means[static_cast<size_t>(b)]));
      }
    }
  });
}

}  // namespace

void mark_blocked_steps(CostInputs& costs, const PairWeights& weights) {
  SCAV_DISPATCH(costs.cost.scalar_type(), [&] {
    scalar_t* nonfinite = costs.nonfinite.data<scalar_t>();
    run_ranges(costs.pairs(), [&](int64_t begin, int64_t end) {
      for (int64_t pair = begin; pair < end; ++pair) {
        if (nonfinite[pair] == 0 &&
            has_blocked_step(costs, pair, weights.of_x<scalar_t>(pair), weights.of_y<scalar_t>(pair))) {
          nonfinite[pair] = std::numeric_limits<scalar_t>::infinity();
        }
      }
    });
  });
}

NonfiniteGradients separate_nonfinite(const CostInputs& costs, const Tensor& grad) {
  const int64_t batch_y = costs.paired ? costs.batch_x() : costs.batch_y();
  NonfiniteGradients result{without_nonfinite(costs, grad), std::vector<char>(static_cast<size_t>(costs.batch_x())),
                            std::vector<char>(static_cast<size_t>(batch_y))};
  SCAV_DISPATCH(grad.scalar_type(), [&] {
    const scalar_t* nonfinite = costs.nonfinite.data<scalar_t>();
    const scalar_t* outer = grad.const_data_ptr<scalar_t>();
    for (int64_t pair = 0; pair < costs.pairs(); ++pair) {
      if (nonfinite[pair] != 0 && nonfinite[pair] != std::numeric_limits<scalar_t>::infinity() && outer[pair] != 0) {
        result.x[static_cast<size_t>(pair / costs.batch_y())] = 1;
        result.y[static_cast<size_t>(pair % batch_y)] = 1;
      }
    }
  });
  return result;
}

Tensor weights_gradient(const StepWeights& weights, const Lengths& lengths, const PairsOfSequence& pairs,
                        double epsilon, const Tensor& grad, const Tensor& potentials,
                        const std::vector<char>& nonfinite) {
  Tensor gradient = zeros_like(weights.relative);
  SCAV_DISPATCH(grad.scalar_type(), [&] {
    fill_gradient<scalar_t>(weights, lengths, pairs, epsilon, grad, potentials, nonfinite, gradient);
  });
  return to_dtype(gradient, weights.given.scalar_type());
}

}  // namespace scav
