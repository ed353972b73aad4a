// scav::dtw_from_cost and scav::dtw_from_cost_backward on a GPU; schemas in scav_kernels/ops/dtw_from_cost.py.

#include "cuda/op.h"
#include "cuda/dtw_scratch.h"

namespace scav::device {
namespace {

std::tuple<at::Tensor, at::Tensor> dtw_from_cost(const at::Tensor& cost, const std::optional<at::Tensor>& x_lengths,
                                                 const std::optional<at::Tensor>& y_lengths,
                                                 std::optional<int64_t> band, bool save_path) {
  const OnDevice on(cost);
  const DeviceCosts costs = check_device_costs("dtw_from_cost", on, cost, x_lengths, y_lengths, false);
  check_band("dtw_from_cost", band);
  const int64_t n = costs.steps_x(), m = costs.steps_y();
  at::Tensor out = at::empty(costs.result_shape(), costs.options());
  // What follows a path's end is its end mark again, so that equal calls return equal tensors.
  at::Tensor path =
      at::full(save_path ? costs.result_shape({n + m}) : std::vector<int64_t>{0}, 3, costs.options().dtype(at::kByte));
  uint8_t* const paths = save_path ? path.mutable_data_ptr<uint8_t>() : nullptr;
  AT_DISPATCH_FLOATING_TYPES(out.scalar_type(), "dtw_from_cost", [&] {
    DtwScratch<scalar_t> scratch(Sweep::wavefront, n, m, costs.options(), paths);
    for_each_tile<scalar_t>(costs, on, scratch.needs(), [&](const Slabs<scalar_t>& slabs) {
      scratch.forward(slabs, band, out.mutable_data_ptr<scalar_t>(), on.stream);
    });
  });
  spread_poison(costs, out);
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
  const at::Tensor inner = outer.masked_fill(out.isinf().logical_and(costs.poison == 0), 0);
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
  m.impl("dtw_from_cost", &dtw_from_cost);
  m.impl("dtw_from_cost_backward", &dtw_from_cost_backward);
}

}  // namespace scav::device
