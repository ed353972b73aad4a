// scav::dtw and scav::dtw_from_cost, forward and backward, on a GPU; schemas in scav_kernels/ops.

#include "cuda/op.h"
#include "cuda/dtw_scratch.h"
#include "shared/dtw.h"

namespace scav::device {
namespace {

void fused_dtw(const DeviceInputs& inputs, const OnDevice& on, int64_t band, uint8_t* paths, at::Tensor& out) {
  const FusedShape shape(inputs.steps_x(), inputs.steps_y(), inputs.dim(), on.shared_bytes);
  const auto code_bytes = [&](int64_t blocks) { return paths ? shape.columns(blocks) * kDtwColumnBytes : 0; };
  Scratch carry(inputs.options()), codes(inputs.options().dtype(at::kByte));
  for_each_fused_tile(inputs, on, shape.carried(1) * int64_t(sizeof(float)) + code_bytes(1),
                      [&](const Costs<float>& costs, int64_t blocks) {
                        launch_dtw_fused(costs, shape, band, carry.of<float>(shape.carried(blocks)),
                                         codes.of<uint8_t>(code_bytes(blocks)), paths, out.mutable_data_ptr<float>(),
                                         on.stream);
                      });
}

std::tuple<at::Tensor, at::Tensor> dtw(const at::Tensor& x, const at::Tensor& y,
                                       const std::optional<at::Tensor>& x_lengths,
                                       const std::optional<at::Tensor>& y_lengths, std::string cost,
                                       std::optional<int64_t> band, bool paired, bool save_path) {
  const OnDevice on(x);
  // Check the shapes first; the choice of kernel depends on them.
  check_pairs("dtw", x, y, x_lengths, y_lengths, paired);
  const Sweep sweep = choose_forward(on, x, y, paired, save_path ? kDtwColumnBytes : 0);
  const DeviceInputs inputs = check_device_inputs("dtw", on, x, y, x_lengths, y_lengths, cost, paired, rows_for(sweep));
  check_band("dtw", band);
  const int64_t n = inputs.steps_x(), m = inputs.steps_y();
  at::Tensor out = at::empty(inputs.result_shape(), inputs.options());
  at::Tensor path = at::full(save_path ? inputs.result_shape({n + m}) : std::vector<int64_t>{0}, kPathEnd,
                             inputs.options().dtype(at::kByte));
  if (inputs.empty()) {
    return {out, path};
  }
  uint8_t* const paths = save_path ? path.mutable_data_ptr<uint8_t>() : nullptr;
  if (sweep == Sweep::fused) {
    fused_dtw(inputs, on, band.value_or(-1), paths, out);
    spread_nonfinite(inputs, out);
    return {out, path};
  }
  AT_DISPATCH_FLOATING_TYPES(inputs.dtype, "dtw", [&] {
    DtwScratch<scalar_t> scratch(sweep, n, m, inputs.options(), paths);
    for_each_tile<scalar_t>(inputs, on, order_of(sweep), scratch.needs(), [&](const Parts<scalar_t>& parts) {
      scratch.forward(parts, band, out.mutable_data_ptr<scalar_t>(), on.stream);
    });
  });
  spread_nonfinite(inputs, out);
  return {out, path};
}

std::tuple<at::Tensor, at::Tensor> dtw_backward(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& y,
                                                const std::optional<at::Tensor>& x_lengths,
                                                const std::optional<at::Tensor>& y_lengths, const at::Tensor& out,
                                                const at::Tensor& path, std::string cost, bool paired, bool need_x,
                                                bool need_y) {
  const char* op = "dtw_backward";
  const OnDevice on(x);
  const DeviceInputs inputs = check_device_inputs(op, on, x, y, x_lengths, y_lengths, cost, paired, RowsFor::adjoint);
  check_saved(op, "path", path, inputs.result_shape({inputs.steps_x() + inputs.steps_y()}), at::kByte, x.device());
  check_saved(op, "out", out, inputs.result_shape(), inputs.dtype, x.device());
  // A pair that no path gets through has no gradient.
  const at::Tensor outer = check_grad(op, inputs.result_shape(), inputs.dtype, x.device(), grad);
  const at::Tensor inner = outer.masked_fill(out.isinf().logical_and(inputs.nonfinite() == 0), 0);
  const at::Tensor paths = path.contiguous();
  std::tuple<at::Tensor, at::Tensor> result;
  AT_DISPATCH_FLOATING_TYPES(inputs.dtype, "dtw_backward", [&] {
    const Sweep sweep = choose_backward(inputs, on, sizeof(scalar_t) + inputs.x.element_size());
    result = gradients<scalar_t>(inputs, on, order_of(sweep), inner, need_x, need_y, no_needs(),
                                 dtw_adjoint<scalar_t>(paths.const_data_ptr<uint8_t>(), on.stream));
  });
  return result;
}

std::tuple<at::Tensor, at::Tensor> dtw_from_cost(const at::Tensor& cost, const std::optional<at::Tensor>& x_lengths,
                                                 const std::optional<at::Tensor>& y_lengths,
                                                 std::optional<int64_t> band, bool save_path) {
  const OnDevice on(cost);
  const DeviceCosts costs = check_device_costs("dtw_from_cost", on, cost, x_lengths, y_lengths, false);
  check_band("dtw_from_cost", band);
  const int64_t n = costs.steps_x(), m = costs.steps_y();
  at::Tensor out = at::empty(costs.result_shape(), costs.options());
  at::Tensor path = at::full(save_path ? costs.result_shape({n + m}) : std::vector<int64_t>{0}, kPathEnd,
                             costs.options().dtype(at::kByte));
  uint8_t* const paths = save_path ? path.mutable_data_ptr<uint8_t>() : nullptr;
  AT_DISPATCH_FLOATING_TYPES(out.scalar_type(), "dtw_from_cost", [&] {
    DtwScratch<scalar_t> scratch(Sweep::wavefront, n, m, costs.options(), paths);
    for_each_tile<scalar_t>(costs, on, scratch.needs(), [&](const Parts<scalar_t>& parts) {
      scratch.forward(parts, band, out.mutable_data_ptr<scalar_t>(), on.stream);
    });
  });
  spread_nonfinite(costs, out);
  return {out, path};
}

at::Tensor dtw_from_cost_backward(const at::Tensor& grad, const at::Tensor& cost,
                                  const std::optional<at::Tensor>& x_lengths,
                                  const std::optional<at::Tensor>& y_lengths, const at::Tensor& out,
                                  const at::Tensor& path) {
  const char* op = "dtw_from_cost_backward";
  const OnDevice on(cost);
  const DeviceCosts costs = check_device_costs(op, on, cost, x_lengths, y_lengths, false);
  check_saved(op, "path", path, costs.result_shape({costs.steps_x() + costs.steps_y()}), at::kByte, cost.device());
  check_saved(op, "out", out, costs.result_shape(), costs.cost.scalar_type(), cost.device());
  // A pair that no path gets through has no gradient.
  const at::Tensor outer = check_grad(op, costs.result_shape(), costs.cost.scalar_type(), cost.device(), grad);
  const at::Tensor inner = outer.masked_fill(out.isinf().logical_and(costs.nonfinite == 0), 0);
  const at::Tensor paths = path.contiguous();
  at::Tensor result;
  AT_DISPATCH_FLOATING_TYPES(costs.cost.scalar_type(), "dtw_from_cost_backward", [&] {
    result = gradient<scalar_t>(costs, on, inner, no_needs(),
                                dtw_adjoint<scalar_t>(paths.const_data_ptr<uint8_t>(), on.stream));
  });
  return result;
}

}  // namespace

TORCH_LIBRARY_IMPL(scav, SCAV_DEVICE_KEY, m) {
  m.impl("dtw", &dtw);
  m.impl("dtw_backward", &dtw_backward);
  m.impl("dtw_from_cost", &dtw_from_cost);
  m.impl("dtw_from_cost_backward", &dtw_from_cost_backward);
}

}  // namespace scav::device
