#pragma once
// Results of sinkhorn and sinkhorn_from_cost on every device, and checks of their options.

#include <tuple>
#include <utility>
#include <vector>

#include "shared/checks.h"
#include "shared/sinkhorn.h"
#include "shared/tensor.h"

namespace scav {

inline SinkhornOptions check_sinkhorn_options(const char* op, double epsilon, int64_t max_iterations, double tolerance,
                                              std::optional<double> scaling, ScalarType dtype) {
  check_positive(op, "epsilon", epsilon, dtype);
  check_iterations(op, max_iterations, tolerance);
  SCAV_CHECK_VALUE(!scaling.has_value() || (*scaling > 0 && *scaling < 1), op,
                   ": expected scaling between 0 and 1, both excluded, or None, got ", scaling.value_or(0));
  return {epsilon, max_iterations, tolerance, scaling};
}

// Distances; potentials F (results, N), zero beyond the lengths; and how the iterations ended, by result. The last
// three are empty unless asked for.
struct SinkhornResult {
  Tensor out, f, iterations, marginal_error;

  SinkhornResult(const Shape& shape, int64_t steps, ScalarType dtype, const Device& device, bool with_f,
                 bool with_report)
      : out(new_empty(shape, dtype, device)) {
    const Shape nothing{0};
    Shape of_steps = shape;
    of_steps.push_back(steps);
    f = new_zeros(with_f ? of_steps : nothing, dtype, device);
    iterations = new_empty(with_report ? shape : nothing, kLong, device);
    marginal_error = new_empty(with_report ? shape : nothing, dtype, device);
    with_f_ = with_f;
    with_report_ = with_report;
  }

  template <class T>
  T* potentials() {
    return with_f_ ? f.mutable_data_ptr<T>() : nullptr;
  }
  template <class T>
  SinkhornReport<T> report() {
    if (!with_report_) {
      return {nullptr, nullptr};
    }
    return {iterations.mutable_data_ptr<int64_t>(), marginal_error.mutable_data_ptr<T>()};
  }
  std::tuple<Tensor, Tensor, Tensor, Tensor> tensors() && {
    return {std::move(out), std::move(f), std::move(iterations), std::move(marginal_error)};
  }

 private:
  bool with_f_, with_report_;
};

}  // namespace scav
