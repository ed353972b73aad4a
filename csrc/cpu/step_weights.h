#pragma once
// Weights of the steps of sequences, checked once, in the form that the kernels read.

#include <optional>
#include <vector>

#include "cpu/cost_inputs.h"
#include "cpu/inputs.h"

namespace scav {

struct StepWeights {
  // (B, N) over the mean of a sequence's valid steps, in the dtype of accumulation, 0 beyond the lengths; undefined
  // where all steps weigh the same.
  Tensor relative;
  Tensor given;               // as the caller passed them
  std::vector<double> means;  // (B,)

  // Null where all steps weigh the same.
  template <class T>
  const T* of(int64_t sequence) const {
    return relative.defined() ? relative.const_data_ptr<T>() + sequence * relative.size(1) : nullptr;
  }
};

// Of the steps of both sides; a result is of all pairs, or of x and y of the same number.
struct PairWeights {
  const StepWeights &x, &y;
  int64_t batch_y;
  bool paired;

  template <class T>
  const T* of_x(int64_t result) const {
    return x.of<T>(paired ? result : result / batch_y);
  }
  template <class T>
  const T* of_y(int64_t result) const {
    return y.of<T>(paired ? result : result % batch_y);
  }
};

// Weights (B, N) of a floating-point dtype that are finite, not negative, and not all 0 within a length.
StepWeights check_weights(const char* op, const char* name, const std::optional<Tensor>& weights,
                          const Lengths& lengths, int64_t steps, ScalarType dtype);

// Marks, with inf, the pairs in which a step that has weight has no finite cost to another: no plan moves its mass.
void mark_blocked_steps(CostInputs& costs, const PairWeights& weights);

// As of sequences; pairs without a plan have no gradient.
NonfiniteGradients separate_nonfinite(const CostInputs& costs, const Tensor& grad);

// The pairs of sequence number s: results s * stride + k * step, for k in [0, count).
struct PairsOfSequence {
  int64_t stride, step, count;
};

// Gradient in the weights, in their shape and dtype. Without the scaling to sum 1, a pair's distance has the gradient
// epsilon * potentials (results, N). `grad` (results,) is 0 for pairs that hold inf or NaN; sequences of such pairs
// that count are marked in `nonfinite`, and get NaN.
Tensor weights_gradient(const StepWeights& weights, const Lengths& lengths, const PairsOfSequence& pairs,
                        double epsilon, const Tensor& grad, const Tensor& potentials,
                        const std::vector<char>& nonfinite);

}  // namespace scav
