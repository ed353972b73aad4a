// scav::dtw and scav::dtw_backward on the CPU; schemas in scav_kernels/ops/dtw.py.

#include "cpu/op.h"

#define SCAV_KERNELS "cpu/dtw.inl"
#include "cpu/foreach_level.h"

namespace scav {
namespace {

std::tuple<at::Tensor, at::Tensor> dtw(const at::Tensor& x, const at::Tensor& y,
                                       const std::optional<at::Tensor>& x_lengths,
                                       const std::optional<at::Tensor>& y_lengths, std::string cost,
                                       std::optional<int64_t> band, bool paired, bool save_path) {
  const Inputs inputs = check_inputs("dtw", x, y, x_lengths, y_lengths, cost, paired);
  check_band("dtw", band);
  at::Tensor out = inputs.new_result();
  // What follows a path's end is its end mark again, so that equal calls return equal tensors.
  at::Tensor path = at::full(
      save_path ? inputs.result_shape({inputs.steps_x() + inputs.steps_y()}) : std::vector<int64_t>{0}, 3, at::kByte);
  if (inputs.empty()) {
    return {out, path};
  }
  AT_DISPATCH_FLOATING_TYPES(out.scalar_type(), "dtw", [&] {
    SCAV_AT_LEVEL(dtw_forward<scalar_t>)
    (inputs, band, out.mutable_data_ptr<scalar_t>(), save_path ? path.mutable_data_ptr<uint8_t>() : nullptr);
  });
  spread_poison(inputs, out);
  return {out, path};
}

std::tuple<at::Tensor, at::Tensor> dtw_backward(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& y,
                                                const std::optional<at::Tensor>& x_lengths,
                                                const std::optional<at::Tensor>& y_lengths, const at::Tensor& out,
                                                const at::Tensor& path, std::string cost, bool paired, bool need_x,
                                                bool need_y) {
  const Inputs inputs = check_inputs("dtw_backward", x, y, x_lengths, y_lengths, cost, paired);
  check_saved("dtw_backward", "path", path, inputs.result_shape({inputs.steps_x() + inputs.steps_y()}), at::kByte,
              at::kCPU);
  check_saved("dtw_backward", "out", out, inputs.result_shape(), inputs.x.scalar_type(), at::kCPU);
  const Spoilt spoilt = separate_poison(
      inputs, check_grad("dtw_backward", inputs.result_shape(), inputs.x.scalar_type(), at::kCPU, grad));
  at::Tensor dx = need_x ? at::zeros_like(inputs.x) : at::Tensor();
  at::Tensor dy = need_y ? at::zeros_like(inputs.y) : at::Tensor();
  if (!inputs.empty()) {
    const at::Tensor paths = path.contiguous(), values = out.contiguous();
    AT_DISPATCH_FLOATING_TYPES(inputs.x.scalar_type(), "dtw_backward", [&] {
      SCAV_AT_LEVEL(dtw_backward<scalar_t>)
      (inputs, spoilt.grad.const_data_ptr<scalar_t>(), values.const_data_ptr<scalar_t>(),
       paths.const_data_ptr<uint8_t>(), data_or_null<scalar_t>(dx), data_or_null<scalar_t>(dy));
    });
  }
  return finish_gradients(inputs, dx, dy, spoilt);
}

}  // namespace

TORCH_LIBRARY_IMPL(scav, CPU, m) {
  m.impl("dtw", &dtw);
  m.impl("dtw_backward", &dtw_backward);
}

}  // namespace scav
