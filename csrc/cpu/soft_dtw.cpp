// scav::soft_dtw and scav::soft_dtw_backward on the CPU; schemas in scav_kernels/ops/soft_dtw.py.

#include "cpu/op.h"

#define SCAV_KERNELS "cpu/soft_dtw.inl"
#include "cpu/foreach_level.h"

namespace scav {
namespace {

at::Tensor soft_dtw(const at::Tensor& x, const at::Tensor& y, const std::optional<at::Tensor>& x_lengths,
                    const std::optional<at::Tensor>& y_lengths, double gamma, std::string cost,
                    std::optional<int64_t> band, bool paired) {
  const Inputs inputs = check_inputs("soft_dtw", x, y, x_lengths, y_lengths, cost, paired);
  check_positive("soft_dtw", "gamma", gamma, inputs.x.scalar_type());
  check_band("soft_dtw", band);
  at::Tensor out = inputs.new_result();
  if (inputs.empty()) {
    return out;
  }
  AT_DISPATCH_FLOATING_TYPES(out.scalar_type(), "soft_dtw", [&] {
    SCAV_AT_LEVEL(soft_dtw_forward<scalar_t>)(inputs, gamma, band, out.mutable_data_ptr<scalar_t>());
  });
  spread_poison(inputs, out);
  return out;
}

std::tuple<at::Tensor, at::Tensor> soft_dtw_backward(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& y,
                                                     const std::optional<at::Tensor>& x_lengths,
                                                     const std::optional<at::Tensor>& y_lengths, double gamma,
                                                     std::string cost, std::optional<int64_t> band, bool paired,
                                                     bool need_x, bool need_y) {
  const Inputs inputs = check_inputs("soft_dtw_backward", x, y, x_lengths, y_lengths, cost, paired);
  check_positive("soft_dtw_backward", "gamma", gamma, inputs.x.scalar_type());
  check_band("soft_dtw_backward", band);
  const Spoilt spoilt = separate_poison(
      inputs, check_grad("soft_dtw_backward", inputs.result_shape(), inputs.x.scalar_type(), at::kCPU, grad));
  at::Tensor dx = need_x ? at::zeros_like(inputs.x) : at::Tensor();
  at::Tensor dy = need_y ? at::zeros_like(inputs.y) : at::Tensor();
  if (!inputs.empty()) {
    AT_DISPATCH_FLOATING_TYPES(inputs.x.scalar_type(), "soft_dtw_backward", [&] {
      SCAV_AT_LEVEL(soft_dtw_backward<scalar_t>)
      (inputs, gamma, band, spoilt.grad.const_data_ptr<scalar_t>(), data_or_null<scalar_t>(dx),
       data_or_null<scalar_t>(dy));
    });
  }
  return finish_gradients(inputs, dx, dy, spoilt);
}

}  // namespace

TORCH_LIBRARY_IMPL(scav, CPU, m) {
  m.impl("soft_dtw", &soft_dtw);
  m.impl("soft_dtw_backward", &soft_dtw_backward);
}

}  // namespace scav
