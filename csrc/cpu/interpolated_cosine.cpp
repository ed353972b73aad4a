// scav::interpolated_cosine and its backward on the CPU; schemas in scav_kernels/ops/interpolated_cosine.py.

#include "cpu/op.h"

#define SCAV_KERNELS "cpu/interpolated_cosine.inl"
#include "cpu/foreach_level.h"

namespace scav {
namespace {

void check_options(const char* op, const std::string& resample, const std::string& mode) {
  SCAV_CHECK_VALUE(resample == "x" || resample == "y" || resample == "shorter", op,
                   ": expected resample 'x', 'y' or 'shorter', got '", resample, "'");
  SCAV_CHECK_VALUE(mode == "linear" || mode == "nearest", op, ": expected mode 'linear' or 'nearest', got '", mode,
                   "'");
}

Tensor interpolated_cosine(const Tensor& x, const Tensor& y, const std::optional<Tensor>& x_lengths,
                           const std::optional<Tensor>& y_lengths, std::string resample, std::string mode,
                           bool paired) {
  constexpr const char* op = "interpolated_cosine";
  const Inputs inputs = check_inputs(op, x, y, x_lengths, y_lengths, "cosine", paired, RowUse::resampled);
  check_options(op, resample, mode);
  Tensor out = inputs.new_result();
  if (inputs.empty()) {
    return out;
  }
  SCAV_DISPATCH(out.scalar_type(), [&] {
    SCAV_AT_LEVEL(interpolated_cosine<scalar_t>)
    (inputs, mode == "nearest", resample, out.mutable_data_ptr<scalar_t>(), nullptr, nullptr, nullptr);
  });
  spread_nonfinite(inputs, out);
  return out;
}

std::tuple<Tensor, Tensor> interpolated_cosine_backward(const Tensor& grad, const Tensor& x, const Tensor& y,
                                                        const std::optional<Tensor>& x_lengths,
                                                        const std::optional<Tensor>& y_lengths, std::string resample,
                                                        std::string mode, bool paired, bool need_x, bool need_y) {
  constexpr const char* op = "interpolated_cosine_backward";
  Inputs inputs = check_inputs(op, x, y, x_lengths, y_lengths, "cosine", paired, RowUse::resampled);
  check_options(op, resample, mode);
  const NonfiniteGradients nonfinite_gradients =
      separate_nonfinite(inputs, check_grad(op, inputs.result_shape(), inputs.x.scalar_type(), cpu(), grad));
  Tensor dx = new_gradient(inputs.x, need_x);
  Tensor dy = new_gradient(inputs.y, need_y);
  if (!inputs.empty()) {
    SCAV_DISPATCH(inputs.x.scalar_type(), [&] {
      SCAV_AT_LEVEL(interpolated_cosine<scalar_t>)
      (inputs, mode == "nearest", resample, nullptr, nonfinite_gradients.grad.const_data_ptr<scalar_t>(),
       data_or_null<scalar_t>(dx), data_or_null<scalar_t>(dy));
    });
  }
  // The kernels' gradients are those of the rows as they are, not of unit rows.
  inputs.cost = Cost::euclidean;
  return finish_gradients(inputs, dx, dy, nonfinite_gradients);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(scav, CPU, m) {
  m.impl("interpolated_cosine", SCAV_BOX(&interpolated_cosine));
  m.impl("interpolated_cosine_backward", SCAV_BOX(&interpolated_cosine_backward));
}

}  // namespace scav
