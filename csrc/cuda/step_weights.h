#pragma once
// Weights of the steps of sequences on a GPU: checks, the form that the kernels read, and their gradient.

#include <optional>

#include "cuda/inputs.h"

namespace scav::device {

// As the kernels read them: over the mean of a sequence's valid steps, 0 beyond the lengths; (B1, N) and (B2, M).
template <class T>
struct StepWeights {
  const T *x, *y;
};

// Weights of one side.
struct SideWeights {
  Tensor given;      // as the caller passed them; undefined: all steps weigh the same
  Tensor relative;   // (B, N) over the mean of a sequence's valid steps, in the dtype of accumulation
  Tensor means;      // (B,) float64
  Tensor nonfinite;  // (B,) in the dtype of accumulation: NaN where a weight is out of range, or all are 0, else 0
};

// Both sides; undefined where neither has weights, and where they `must` have, ones.
struct PairWeights {
  SideWeights x, y;

  bool defined() const { return x.relative.defined(); }
  template <class T>
  StepWeights<T> of() const {
    return {x.relative.const_data_ptr<T>(), y.relative.const_data_ptr<T>()};
  }
};

// Adds NaN to what marks the sequences, or pairs, that hold it. Neither waits for the device: what a weight is cannot
// raise.
PairWeights check_step_weights(const char* op, const OnDevice& on, const std::optional<Tensor>& x_weights,
                               const std::optional<Tensor>& y_weights, bool must, DeviceInputs& inputs);
PairWeights check_step_weights(const char* op, const OnDevice& on, const std::optional<Tensor>& x_weights,
                               const std::optional<Tensor>& y_weights, bool must, DeviceCosts& costs);

// Gradients of x's and of y's weights, in their shape and dtype, empty where they are not needed. Without the scaling
// to sum 1, a pair's distance has the gradients epsilon * f and epsilon * g. f (results, N), g (results, M); `grad` by
// result, as it came; `nonfinite` by result: such pairs make the gradients of their sequences NaN, but where
// `blocked` those that hold inf have none.
struct WeightsGradient {
  double epsilon;
  Tensor grad, nonfinite;
  bool blocked, paired;
  int64_t batch_x, batch_y;
  Stream stream;

  Tensor of_x(const SideWeights& weights, const Tensor& lengths, const Tensor& f, bool needed) const;
  Tensor of_y(const SideWeights& weights, const Tensor& lengths, const Tensor& g, bool needed) const;
};

// Launchers of step_weights_kernels.cu. `given` (batch, steps); lengths (batch,) or null.
struct GivenWeights {
  const double* weights;
  int64_t batch, steps;
  const int64_t* lengths;
};
template <class T>
void prepare_step_weights(const GivenWeights& given, T* relative, double* means, T* nonfinite, Stream stream);

// The pairs of sequence number b: results b * stride + k * step, for k in [0, count).
struct PairsOfSequence {
  int64_t stride, step, count;
};

template <class T>
struct WeightSums {
  const T *relative, *potentials, *grads, *nonfinite;
  const double* means;
  bool blocked;
  double epsilon;
  PairsOfSequence pairs;
};
// gradient (batch, steps)
template <class T>
void write_weights_gradient(const GivenWeights& given, const WeightSums<T>& sums, T* gradient, Stream stream);

}  // namespace scav::device
