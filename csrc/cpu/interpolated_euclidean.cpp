// scav::interpolated_euclidean and its backward on the CPU; schemas in scav_kernels/ops/interpolated_euclidean.py.

#include "cpu/op.h"

#define SCAV_KERNELS "cpu/interpolated_euclidean.inl"
#include "cpu/foreach_level.h"

namespace scav {
namespace {

void check_resample(const char* op, const std::string& resample) {
  TORCH_CHECK_VALUE(resample == "x" || resample == "y" || resample == "shorter", op,
                    ": expected resample 'x', 'y' or 'shorter', got '", resample, "'");
}

at::Tensor interpolated_euclidean(const at::Tensor& x, const at::Tensor& y, const std::optional<at::Tensor>& x_lengths,
                                  const std::optional<at::Tensor>& y_lengths, bool squared, std::string resample,
                                  bool paired) {
  constexpr const char* op = "interpolated_euclidean";
  const Inputs inputs = check_inputs(op, x, y, x_lengths, y_lengths, "euclidean", paired, true);
  check_resample(op, resample);
  at::Tensor out = inputs.new_result();
  if (inputs.empty()) {
    return out;
  }
  AT_DISPATCH_FLOATING_TYPES(out.scalar_type(), op, [&] {
    SCAV_AT_LEVEL(interpolated_euclidean<scalar_t>)
    (inputs, squared, resample, out.mutable_data_ptr<scalar_t>(), nullptr, nullptr, nullptr);
  });
  spread_nonfinite(inputs, out);
  return out;
}

std::tuple<at::Tensor, at::Tensor> interpolated_euclidean_backward(const at::Tensor& grad, const at::Tensor& x,
                                                                   const at::Tensor& y,
                                                                   const std::optional<at::Tensor>& x_lengths,
                                                                   const std::optional<at::Tensor>& y_lengths,
                                                                   bool squared, std::string resample, bool paired,
                                                                   bool need_x, bool need_y) {
  constexpr const char* op = "interpolated_euclidean_backward";
  const Inputs inputs = check_inputs(op, x, y, x_lengths, y_lengths, "euclidean", paired, true);
  check_resample(op, resample);
  const NonfiniteGradients nonfinite_gradients =
      separate_nonfinite(inputs, check_grad(op, inputs.result_shape(), inputs.x.scalar_type(), at::kCPU, grad));
  at::Tensor dx = need_x ? at::zeros_like(inputs.x) : at::Tensor();
  at::Tensor dy = need_y ? at::zeros_like(inputs.y) : at::Tensor();
  if (!inputs.empty()) {
    AT_DISPATCH_FLOATING_TYPES(inputs.x.scalar_type(), op, [&] {
      SCAV_AT_LEVEL(interpolated_euclidean<scalar_t>)
      (inputs, squared, resample, nullptr, nonfinite_gradients.grad.const_data_ptr<scalar_t>(),
       data_or_null<scalar_t>(dx), data_or_null<scalar_t>(dy));
    });
  }
  return finish_gradients(inputs, dx, dy, nonfinite_gradients);
}

}  // namespace

TORCH_LIBRARY_IMPL(scav, CPU, m) {
  m.impl("interpolated_euclidean", &interpolated_euclidean);
  m.impl("interpolated_euclidean_backward", &interpolated_euclidean_backward);
}

}  // namespace scav
