// scav::chamfer and its gradient on a GPU; schemas in scav_kernels/ops/chamfer.py.

#include "cuda/op.h"
#include "cuda/chamfer.h"

namespace scav::device {
namespace {

Shape nearest_shape(const DeviceInputs& inputs, const ChamferSides& sides) {
  return inputs.result_shape({sides.saved_steps(inputs.steps_x(), inputs.steps_y())});
}

std::tuple<Tensor, Tensor> chamfer(const Tensor& x, const Tensor& y, const std::optional<Tensor>& x_lengths,
                                   const std::optional<Tensor>& y_lengths, std::string cost, std::string direction,
                                   bool paired, bool save_nearest) {
  const char* op = "chamfer";
  const OnDevice on(x);
  const DeviceInputs inputs = check_device_inputs(op, on, x, y, x_lengths, y_lengths, cost, paired, RowsFor::products);
  const ChamferSides sides = parse_direction(op, direction);
  const int64_t n = inputs.steps_x(), m = inputs.steps_y();
  Tensor out = inputs.new_empty(inputs.result_shape());
  Tensor nearest = new_zeros(save_nearest ? nearest_shape(inputs, sides) : Shape{0}, kInt, on.device);
  if (inputs.empty()) {
    return {out, nearest};
  }
  const bool root = inputs.cost == Cost::euclidean;
  int32_t* const steps = save_nearest ? nearest.mutable_data_ptr<int32_t>() : nullptr;
  SCAV_DISPATCH(inputs.dtype, [&] {
    Scratch<scalar_t> scratch(on.device);
    for_each_tile<scalar_t>(
        inputs, on, Order::by_sequence, chamfer_needs(n, m, sizeof(scalar_t)), [&](const Parts<scalar_t>& parts) {
          // The root of a minimum is enough.
          const auto squared = [&](Costs<scalar_t> costs) {
            costs.kind = root ? CellKind::sqeuclidean : costs.kind;
            return costs;
          };
          const int64_t pairs = parts.at(0).count;
          const ChamferMinima<scalar_t> minima(sides, root, scratch.of(ChamferMinima<scalar_t>::size(pairs, n, m)),
                                               pairs, n, steps);
          parts.each([&](const Costs<scalar_t>& costs) {
            launch_chamfer_part<scalar_t>(squared(costs), minima, on.stream);
            if (costs.end == n) {
              launch_chamfer_finish<scalar_t>(costs, minima, out.mutable_data_ptr<scalar_t>(), on.stream);
            }
          });
        });
  });
  spread_nonfinite(inputs, out);
  return {out, nearest};
}

std::tuple<Tensor, Tensor> chamfer_backward(const Tensor& grad, const Tensor& x, const Tensor& y,
                                            const std::optional<Tensor>& x_lengths,
                                            const std::optional<Tensor>& y_lengths, const Tensor& nearest,
                                            std::string cost, std::string direction, bool paired, bool need_x,
                                            bool need_y) {
  const char* op = "chamfer_backward";
  const OnDevice on(x);
  const DeviceInputs inputs = check_device_inputs(op, on, x, y, x_lengths, y_lengths, cost, paired, RowsFor::adjoint);
  const ChamferSides sides = parse_direction(op, direction);
  check_saved(op, "nearest", nearest, nearest_shape(inputs, sides), kInt, x.device());
  const Tensor outer = check_grad(op, inputs.result_shape(), inputs.dtype, x.device(), grad);
  const Tensor steps = to_contiguous(nearest);
  std::tuple<Tensor, Tensor> result;
  SCAV_DISPATCH(inputs.dtype, [&] {
    const auto write = [&](const Costs<scalar_t>& costs, const scalar_t* grads, const Weights<scalar_t>& to) {
      launch_chamfer_backward<scalar_t>(costs, sides, grads, steps.const_data_ptr<int32_t>(), to, on.stream);
    };
    result = gradients<scalar_t>(inputs, on, Order::by_sequence, outer, need_x, need_y, no_needs(), {write, {}});
  });
  return result;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(scav, SCAV_DEVICE_KEY, m) {
  m.impl("chamfer", SCAV_BOX(&chamfer));
  m.impl("chamfer_backward", SCAV_BOX(&chamfer_backward));
}

}  // namespace scav::device
