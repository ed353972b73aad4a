// scav::dtw and scav::dtw_from_cost, forward and backward, on a GPU; schemas in scav_kernels/ops.

#include "cuda/op.h"
#include "cuda/dtw_scratch.h"

namespace scav::device {
namespace {

void fused_dtw(const DeviceInputs& inputs, const OnDevice& on, int64_t band, uint8_t* paths, Tensor& out) {
  const FusedShape shape(inputs.steps_x(), inputs.steps_y(), inputs.dim(), on.shared_bytes);
  const auto code_bytes = [&](int64_t blocks) { return paths ? shape.columns(blocks) * kDtwColumnBytes : 0; };
  Scratch<float> carry(on.device);
  Scratch<uint8_t> codes(on.device);
  for_each_fused_tile(inputs, on, shape.carried(1) * int64_t(sizeof(float)) + code_bytes(1),
                      [&](const Costs<float>& costs, int64_t blocks) {
                        launch_dtw_fused(costs, shape, band, carry.of(shape.carried(blocks)),
                                         codes.of(code_bytes(blocks)), paths, out.mutable_data_ptr<float>(), on.stream);
                      });
}

std::tuple<Tensor, Tensor> dtw(const Tensor& x, const Tensor& y, const std::optional<Tensor>& x_lengths,
                               const std::optional<Tensor>& y_lengths, std::string cost, std::optional<int64_t> band,
                               double step_penalty, double diagonal_weight, bool open_begin, bool open_end,
                               std::optional<std::string> normalize, bool paired, bool save_path) {
  const OnDevice on(x);
  // Check the shapes first; the choice of kernel depends on them.
  check_pairs("dtw", x, y, x_lengths, y_lengths, paired);
  const DtwOptions options = check_dtw_options("dtw", band, step_penalty, diagonal_weight, open_begin, open_end,
                                               normalize, accumulation_dtype(x));
  const Sweep sweep = choose_forward(on, x, y, paired, save_path ? kDtwColumnBytes : 0, has_plain_paths(options));
  const DeviceInputs inputs = check_device_inputs("dtw", on, x, y, x_lengths, y_lengths, cost, paired, rows_for(sweep));
  const int64_t n = inputs.steps_x(), m = inputs.steps_y();
  Tensor out = inputs.new_empty(inputs.result_shape());
  Tensor path = new_full(save_path ? inputs.result_shape({n + m}) : Shape{0}, kPathEnd, kByte, on.device);
  if (inputs.empty()) {
    return {out, path};
  }
  uint8_t* const paths = save_path ? path.mutable_data_ptr<uint8_t>() : nullptr;
  if (sweep == Sweep::fused) {
    fused_dtw(inputs, on, band.value_or(-1), paths, out);
    spread_nonfinite(inputs, out);
    return {out, path};
  }
  SCAV_DISPATCH(inputs.dtype, [&] {
    DtwScratch<scalar_t> scratch(sweep, n, m, options, on.device, paths);
    for_each_tile<scalar_t>(inputs, on, order_of(sweep), scratch.needs(), [&](const Parts<scalar_t>& parts) {
      scratch.forward(parts, out.mutable_data_ptr<scalar_t>(), on.stream);
    });
  });
  spread_nonfinite(inputs, out);
  return {out, path};
}

// `grad` with zeros for pairs that no path gets through: they have no gradient.
Tensor without_unreachable(const Tensor& grad, const Tensor& out, const Tensor& nonfinite) {
  return zero_unless(logical_not(logical_and(is_infinite(out), logical_not(nonfinite))), grad);
}

std::tuple<Tensor, Tensor> dtw_backward(const Tensor& grad, const Tensor& x, const Tensor& y,
                                        const std::optional<Tensor>& x_lengths, const std::optional<Tensor>& y_lengths,
                                        const Tensor& out, const Tensor& path, std::string cost, double diagonal_weight,
                                        std::optional<std::string> normalize, bool paired, bool need_x, bool need_y) {
  const char* op = "dtw_backward";
  const OnDevice on(x);
  const DeviceInputs inputs = check_device_inputs(op, on, x, y, x_lengths, y_lengths, cost, paired, RowsFor::adjoint);
  const PathOptions options = check_path_options(op, diagonal_weight, normalize, inputs.dtype);
  check_saved(op, "path", path, inputs.result_shape({inputs.steps_x() + inputs.steps_y()}), kByte, x.device());
  check_saved(op, "out", out, inputs.result_shape(), inputs.dtype, x.device());
  const Tensor outer = check_grad(op, inputs.result_shape(), inputs.dtype, x.device(), grad);
  const Tensor inner = without_unreachable(outer, out, inputs.nonfinite());
  const Tensor paths = to_contiguous(path);
  std::tuple<Tensor, Tensor> result;
  SCAV_DISPATCH(inputs.dtype, [&] {
    const Sweep sweep = choose_backward(inputs, on, sizeof(scalar_t) + inputs.x.element_size());
    result = gradients<scalar_t>(inputs, on, order_of(sweep), inner, need_x, need_y, no_needs(),
                                 dtw_adjoint<scalar_t>(options, paths.const_data_ptr<uint8_t>(), on.stream));
  });
  return result;
}

std::tuple<Tensor, Tensor> dtw_from_cost(const Tensor& cost, const std::optional<Tensor>& x_lengths,
                                         const std::optional<Tensor>& y_lengths, std::optional<int64_t> band,
                                         double step_penalty, double diagonal_weight, bool open_begin, bool open_end,
                                         std::optional<std::string> normalize, bool save_path) {
  const char* op = "dtw_from_cost";
  const OnDevice on(cost);
  const DeviceCosts costs = check_device_costs(op, on, cost, x_lengths, y_lengths, false);
  const DtwOptions options = check_dtw_options(op, band, step_penalty, diagonal_weight, open_begin, open_end, normalize,
                                               costs.cost.scalar_type());
  const int64_t n = costs.steps_x(), m = costs.steps_y();
  Tensor out = costs.new_result();
  Tensor path = new_full(save_path ? costs.result_shape({n + m}) : Shape{0}, kPathEnd, kByte, on.device);
  uint8_t* const paths = save_path ? path.mutable_data_ptr<uint8_t>() : nullptr;
  SCAV_DISPATCH(out.scalar_type(), [&] {
    DtwScratch<scalar_t> scratch(Sweep::wavefront, n, m, options, on.device, paths);
    for_each_tile<scalar_t>(costs, on, scratch.needs(), [&](const Parts<scalar_t>& parts) {
      scratch.forward(parts, out.mutable_data_ptr<scalar_t>(), on.stream);
    });
  });
  spread_nonfinite(costs, out);
  return {out, path};
}

Tensor dtw_from_cost_backward(const Tensor& grad, const Tensor& cost, const std::optional<Tensor>& x_lengths,
                              const std::optional<Tensor>& y_lengths, const Tensor& out, const Tensor& path,
                              double diagonal_weight, std::optional<std::string> normalize) {
  const char* op = "dtw_from_cost_backward";
  const OnDevice on(cost);
  const DeviceCosts costs = check_device_costs(op, on, cost, x_lengths, y_lengths, false);
  const PathOptions options = check_path_options(op, diagonal_weight, normalize, costs.cost.scalar_type());
  check_saved(op, "path", path, costs.result_shape({costs.steps_x() + costs.steps_y()}), kByte, cost.device());
  check_saved(op, "out", out, costs.result_shape(), costs.cost.scalar_type(), cost.device());
  const Tensor outer = check_grad(op, costs.result_shape(), costs.cost.scalar_type(), cost.device(), grad);
  const Tensor inner = without_unreachable(outer, out, costs.nonfinite);
  const Tensor paths = to_contiguous(path);
  Tensor result;
  SCAV_DISPATCH(costs.cost.scalar_type(), [&] {
    result = gradient<scalar_t>(costs, on, inner, no_needs(),
                                dtw_adjoint<scalar_t>(options, paths.const_data_ptr<uint8_t>(), on.stream));
  });
  return result;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(scav, SCAV_DEVICE_KEY, m) {
  m.impl("dtw", SCAV_BOX(&dtw));
  m.impl("dtw_backward", SCAV_BOX(&dtw_backward));
  m.impl("dtw_from_cost", SCAV_BOX(&dtw_from_cost));
  m.impl("dtw_from_cost_backward", SCAV_BOX(&dtw_from_cost_backward));
}

}  // namespace scav::device
