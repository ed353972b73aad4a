// scav::mean_l1 and its gradient on the CPU; schemas in scav_kernels/ops/mean_l1.py.

#include "cpu/op.h"

#define SCAV_KERNELS "cpu/mean_l1.inl"
#include "cpu/foreach_level.h"

namespace scav {
namespace {

Tensor mean_l1(const Tensor& x, const Tensor& y, const std::optional<Tensor>& x_lengths,
               const std::optional<Tensor>& y_lengths, double weight, bool paired) {
  constexpr const char* op = "mean_l1";
  const Inputs inputs = check_inputs(op, x, y, x_lengths, y_lengths, "euclidean", paired);
  check_positive(op, "weight", weight, inputs.x.scalar_type());
  Tensor out = inputs.new_result();
  if (inputs.empty()) {
    return out;
  }
  SCAV_DISPATCH(out.scalar_type(),
                [&] { SCAV_AT_LEVEL(mean_l1_forward<scalar_t>)(inputs, weight, out.mutable_data_ptr<scalar_t>()); });
  spread_nonfinite(inputs, out);
  return out;
}

std::tuple<Tensor, Tensor> mean_l1_backward(const Tensor& grad, const Tensor& x, const Tensor& y,
                                            const std::optional<Tensor>& x_lengths,
                                            const std::optional<Tensor>& y_lengths, double weight, bool paired,
                                            bool need_x, bool need_y) {
  constexpr const char* op = "mean_l1_backward";
  const Inputs inputs = check_inputs(op, x, y, x_lengths, y_lengths, "euclidean", paired);
  const NonfiniteGradients nonfinite_gradients =
      separate_nonfinite(inputs, check_grad(op, inputs.result_shape(), inputs.x.scalar_type(), cpu(), grad));
  Tensor dx = need_x ? zeros_like(inputs.x) : Tensor();
  Tensor dy = need_y ? zeros_like(inputs.y) : Tensor();
  if (!inputs.empty()) {
    SCAV_DISPATCH(inputs.x.scalar_type(), [&] {
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

STABLE_TORCH_LIBRARY_IMPL(scav, CPU, m) {
  m.impl("mean_l1", SCAV_BOX(&mean_l1));
  m.impl("mean_l1_backward", SCAV_BOX(&mean_l1_backward));
}

}  // namespace scav
