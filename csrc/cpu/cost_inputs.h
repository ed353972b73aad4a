#pragma once
// Costs that the caller passes instead of sequences, checked once, in the form that the kernels read.

#include <optional>
#include <vector>

#include "shared/checks.h"

namespace scav {

struct CostInputs {
  bool paired;                   // B2 = 1: the costs are those of B1 pairs, with a length of y each
  Tensor cost;                   // (B1, B2, N, M) float32 or float64, steps of y adjacent
  Lengths x_lengths, y_lengths;  // (B1,), (B2,) int64; (B1,), (B1,) if paired
  // By result: 0, or the NaN or -inf in a valid cell, which the pair's distance becomes.
  Scratch nonfinite;
  Tensor given;  // as the caller passed them

  int64_t batch_x() const { return cost.size(0); }
  int64_t batch_y() const { return cost.size(1); }
  int64_t steps_x() const { return cost.size(2); }
  int64_t steps_y() const { return cost.size(3); }
  int64_t pairs() const { return batch_x() * batch_y(); }
  int64_t length_x(int64_t pair) const { return x_lengths.data()[pair / batch_y()]; }
  int64_t length_y(int64_t pair) const { return y_lengths.data()[paired ? pair : pair % batch_y()]; }
  bool empty() const { return pairs() == 0; }

  // (B1, B2), or (B1,) if paired.
  Shape result_shape() const { return paired ? Shape{batch_x()} : Shape{batch_x(), batch_y()}; }
  Shape result_shape(int64_t tail) const {
    Shape shape = result_shape();
    shape.push_back(tail);
    return shape;
  }
  Tensor new_result() const { return new_empty(result_shape(), cost.scalar_type()); }
  Tensor new_gradient() const { return new_zeros(shape_of(given), cost.scalar_type()); }

  template <class T>
  const T* rows(int64_t pair) const {
    return cost.const_data_ptr<T>() + pair / batch_y() * cost.stride(0) + pair % batch_y() * cost.stride(1);
  }
};

CostInputs check_costs(const char* op, const Tensor& cost, const std::optional<Tensor>& x_lengths,
                       const std::optional<Tensor>& y_lengths);

// Distances of nonfinite pairs become the NaN or infinity that is in `nonfinite`.
void spread_nonfinite(const CostInputs& costs, Tensor& result);

// `grad` with zeros for nonfinite pairs.
Tensor without_nonfinite(const CostInputs& costs, const Tensor& grad);

// `gradient`, of the shape of the costs given, in the caller's dtype, with NaN in the valid cells of pairs that hold
// NaN or -inf and whose `grad` is not zero.
Tensor finish_gradient(const CostInputs& costs, const Tensor& grad, Tensor gradient);

}  // namespace scav
