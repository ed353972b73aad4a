// scav::chamfer and its gradient on the CPU; schemas in scav_kernels/ops/chamfer.py.

#include "cpu/op.h"
#include "shared/chamfer.h"

#define SCAV_KERNELS "cpu/chamfer.inl"
#include "cpu/foreach_level.h"

namespace scav {
namespace {

Shape nearest_shape(const Inputs& inputs, const ChamferSides& sides) {
  return inputs.result_shape({sides.saved_steps(inputs.steps_x(), inputs.steps_y())});
}

std::tuple<Tensor, Tensor> chamfer(const Tensor& x, const Tensor& y, const std::optional<Tensor>& x_lengths,
                                   const std::optional<Tensor>& y_lengths, std::string cost, std::string direction,
                                   bool paired, bool save_nearest) {
  constexpr const char* op = "chamfer";
  Inputs inputs = check_inputs(op, x, y, x_lengths, y_lengths, cost, paired, RowUse::multiplied, Measuring::by_pair);
  // Of a minimum, one root is enough.
  const bool root = inputs.cost == Cost::euclidean;
  if (root) {
    inputs.cost = Cost::sqeuclidean;
  }
  const ChamferSides sides = parse_direction(op, direction);
  Tensor out = inputs.new_result();
  Tensor nearest = save_nearest ? new_zeros(nearest_shape(inputs, sides), kInt) : new_nothing(kInt);
  if (inputs.empty()) {
    return {out, nearest};
  }
  SCAV_DISPATCH(out.scalar_type(), [&] {
    SCAV_AT_LEVEL(chamfer_forward<scalar_t>)
    (inputs, root, sides, out.mutable_data_ptr<scalar_t>(),
     save_nearest ? nearest.mutable_data_ptr<int32_t>() : nullptr);
  });
  spread_nonfinite(inputs, out);
  return {out, nearest};
}

std::tuple<Tensor, Tensor> chamfer_backward(const Tensor& grad, const Tensor& x, const Tensor& y,
                                            const std::optional<Tensor>& x_lengths,
                                            const std::optional<Tensor>& y_lengths, const Tensor& nearest,
                                            std::string cost, std::string direction, bool paired, bool need_x,
                                            bool need_y) {
  constexpr const char* op = "chamfer_backward";
  const Inputs inputs = check_inputs(op, x, y, x_lengths, y_lengths, cost, paired);
  const ChamferSides sides = parse_direction(op, direction);
  check_saved(op, "nearest", nearest, nearest_shape(inputs, sides), kInt, cpu());
  const NonfiniteGradients nonfinite_gradients =
      separate_nonfinite(inputs, check_grad(op, inputs.result_shape(), inputs.x.scalar_type(), cpu(), grad));
  Tensor dx = new_gradient(inputs.x, need_x);
  Tensor dy = new_gradient(inputs.y, need_y);
  if (!inputs.empty()) {
    const Tensor steps = to_contiguous(nearest);
    SCAV_DISPATCH(inputs.x.scalar_type(), [&] {
      SCAV_AT_LEVEL(chamfer_backward<scalar_t>)
      (inputs, sides, nonfinite_gradients.grad.const_data_ptr<scalar_t>(), steps.const_data_ptr<int32_t>(),
       data_or_null<scalar_t>(dx), data_or_null<scalar_t>(dy));
    });
  }
  return finish_gradients(inputs, dx, dy, nonfinite_gradients);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(scav, CPU, m) {
  m.impl("chamfer", SCAV_BOX(&chamfer));
  m.impl("chamfer_backward", SCAV_BOX(&chamfer_backward));
}

}  // namespace scav
