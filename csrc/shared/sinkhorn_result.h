#pragma once
// Results of sinkhorn and sinkhorn_from_cost on every device.

#include <ATen/ATen.h>

#include <tuple>
#include <utility>
#include <vector>

#include "shared/sinkhorn.h"

namespace scav {

// Distances; potentials F (results, N), zero beyond the lengths; and how the iterations ended, by result. The last
// three are empty unless asked for.
struct SinkhornResult {
  at::Tensor out, f, iterations, marginal_error;

  SinkhornResult(const std::vector<int64_t>& shape, int64_t steps, const at::TensorOptions& options, bool with_f,
                 bool with_report)
      : out(at::empty(shape, options)) {
    const std::vector<int64_t> nothing{0};
    std::vector<int64_t> of_steps = shape;
    of_steps.push_back(steps);
    f = at::zeros(with_f ? of_steps : nothing, options);
    iterations = at::empty(with_report ? shape : nothing, options.dtype(at::kLong));
    marginal_error = at::empty(with_report ? shape : nothing, options);
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
  std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> tensors() && {
    return {std::move(out), std::move(f), std::move(iterations), std::move(marginal_error)};
  }

 private:
  bool with_f_, with_report_;
};

}  // namespace scav
