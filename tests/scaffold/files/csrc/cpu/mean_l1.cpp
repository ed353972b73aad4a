// scav::mean_l1 and its gradient on the CPU; schemas in scav_kernels/ops/mean_l1.py.

#include "cpu/op.h"

#define SCAV_KERNELS "cpu/mean_l1.inl"
#include "cpu/foreach_level.h"

namespace scav {
namespace {

at::Tensor mean_l1(const at::Tensor& x, const at::Tensor& y, const std::optional<at::Tensor>& x_lengths,
                   const std::optional<at::Tensor>& y_lengths, double weight, bool paired) {
  constexpr const char* op = "mean_l1";
  const Inputs inputs = check_inputs(op, x, y, x_lengths, y_lengths, "euclidean", paired);
  check_positive(op, "weight", weight, inputs.x.scalar_type());
  at::Tensor out = inputs.new_result();
  if (inputs.empty()) {
    return out;
  }
  AT_DISPATCH_FLOATING_TYPES(out.scalar_type(), op, [&] {
    SCAV_AT_LEVEL(mean_l1_forward<scalar_t>)(inputs, weight, out.mutable_data_ptr<scalar_t>());
  });
  spread_nonfinite(inputs, out);
  return out;
}

std::tuple<at::Tensor, at::Tensor> mean_l1_backward(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& y,
                                                    const std::optional<at::Tensor>& x_lengths,
                                                    const std::optional<at::Tensor>& y_lengths, double weight,
                                                    bool paired, bool need_x, bool need_y) {
  constexpr const char* op = "mean_l1_backward";
  const Inputs inputs = check_inputs(op, x, y, x_lengths, y_lengths, "euclidean", paired);
  const NonfiniteGradients nonfinite_gradients =
      separate_nonfinite(inputs, check_grad(op, inputs.result_shape(), inputs.x.scalar_type(), at::kCPU, grad));
  at::Tensor dx = need_x ? at::zeros_like(inputs.x) : at::Tensor();
  at::Tensor dy = need_y ? at::zeros_like(inputs.y) : at::Tensor();
  if (!inputs.empty()) {
    AT_DISPATCH_FLOATING_TYPES(inputs.x.scalar_type(), op, [&] {
      const Sequences<scalar_t> xs = inputs.sequences_x<scalar_t>(), ys = inputs.sequences_y<scalar_t>();
      const scalar_t* outer = nonfinite_gradients.grad.const_data_ptr<scalar_t>();
      const auto backward = SCAV_AT_LEVEL(mean_l1_backward<scalar_t>);
      if (need_x) {
        backward(inputs, xs, ys, weight, outer, ys.batch, 1, dx.mutable_data_ptr<scalar_t>());
      }
      if (need_y) {
        backward(inputs, ys, xs, weight, outer, 1, ys.batch, dy.mutable_data_ptr<scalar_t>());
      }
    });
  }
  return finish_gradients(inputs, dx, dy, nonfinite_gradients);
}

}  // namespace

TORCH_LIBRARY_IMPL(scav, CPU, m) {
  m.impl("mean_l1", &mean_l1);
  m.impl("mean_l1_backward", &mean_l1_backward);
}

}  // namespace scav
