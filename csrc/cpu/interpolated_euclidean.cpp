// scav::interpolated_euclidean and its backward on the CPU; schemas in scav_kernels/ops/interpolated_euclidean.py.

#include "cpu/norms.h"
#include "cpu/op.h"

#define SCAV_KERNELS "cpu/interpolated_euclidean.inl"
#include "cpu/foreach_level.h"

namespace scav {
namespace {

void check_resample(const char* op, const std::string& resample) {
  SCAV_CHECK_VALUE(resample == "x" || resample == "y" || resample == "shorter", op,
                   ": expected resample 'x', 'y' or 'shorter', got '", resample, "'");
}

Tensor interpolated_euclidean(const Tensor& x, const Tensor& y, const std::optional<Tensor>& x_lengths,
                              const std::optional<Tensor>& y_lengths, bool squared, std::string resample, bool paired) {
  constexpr const char* op = "interpolated_euclidean";
  const Inputs inputs =
      check_inputs(op, x, y, x_lengths, y_lengths, "euclidean", paired, RowUse::resampled, Measuring::by_pair);
  check_resample(op, resample);
  Tensor out = inputs.new_result();
  if (inputs.empty()) {
    return out;
  }
  SCAV_DISPATCH(out.scalar_type(), [&] {
    SCAV_AT_LEVEL(interpolated_euclidean<scalar_t>)
    (inputs, squared, resample, out.mutable_data_ptr<scalar_t>(), nullptr, nullptr, nullptr);
  });
  spread_nonfinite(inputs, out);
  return out;
}

std::tuple<Tensor, Tensor> interpolated_euclidean_backward(const Tensor& grad, const Tensor& x, const Tensor& y,
                                                           const std::optional<Tensor>& x_lengths,
                                                           const std::optional<Tensor>& y_lengths, bool squared,
                                                           std::string resample, bool paired, bool need_x,
                                                           bool need_y) {
  constexpr const char* op = "interpolated_euclidean_backward";
  const Inputs inputs = check_inputs(op, x, y, x_lengths, y_lengths, "euclidean", paired, RowUse::resampled);
  check_resample(op, resample);
  const NonfiniteGradients nonfinite_gradients =
      separate_nonfinite(inputs, check_grad(op, inputs.result_shape(), inputs.x.scalar_type(), cpu(), grad));
  Tensor dx = new_gradient(inputs.x, need_x);
  Tensor dy = new_gradient(inputs.y, need_y);
  if (!inputs.empty()) {
    SCAV_DISPATCH(inputs.x.scalar_type(), [&] {
      SCAV_AT_LEVEL(interpolated_euclidean<scalar_t>)
      (inputs, squared, resample, nullptr, nonfinite_gradients.grad.const_data_ptr<scalar_t>(),
       data_or_null<scalar_t>(dx), data_or_null<scalar_t>(dy));
    });
  }
  return finish_gradients(inputs, dx, dy, nonfinite_gradients);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(scav, CPU, m) {
  m.impl("interpolated_euclidean", SCAV_BOX(&interpolated_euclidean));
  m.impl("interpolated_euclidean_backward", SCAV_BOX(&interpolated_euclidean_backward));
}

}  // namespace scav
