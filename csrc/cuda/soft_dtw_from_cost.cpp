// scav::soft_dtw_from_cost and scav::soft_dtw_from_cost_backward on a GPU; schemas in
// scav_kernels/ops/soft_dtw_from_cost.py.

#include "cuda/op.h"
#include "cuda/soft_dtw_scratch.h"

namespace scav::device {
namespace {

at::Tensor soft_dtw_from_cost(const at::Tensor& cost, const std::optional<at::Tensor>& x_lengths,
                              const std::optional<at::Tensor>& y_lengths, double gamma, std::optional<int64_t> band) {
  const OnDevice on(cost);
  const DeviceCosts costs = check_device_costs("soft_dtw_from_cost", on, cost, x_lengths, y_lengths, false);
  check_positive("soft_dtw_from_cost", "gamma", gamma, costs.cost.scalar_type());
  check_band("soft_dtw_from_cost", band);
  const int64_t n = costs.steps_x(), m = costs.steps_y();
  at::Tensor out = at::empty(costs.result_shape(), costs.options());
  AT_DISPATCH_FLOATING_TYPES(out.scalar_type(), "soft_dtw_from_cost", [&] {
    SoftDtwScratch<scalar_t> scratch(Sweep::wavefront, n, m, gamma, band, costs.options());
    for_each_tile<scalar_t>(
        costs, on, soft_dtw_needs(Sweep::wavefront, n, m, sizeof(scalar_t)),
        [&](const Slabs<scalar_t>& slabs) { scratch.forward(slabs, out.mutable_data_ptr<scalar_t>(), on.stream); });
  });
  spread_poison(costs, out);
  return out;
}

at::Tensor soft_dtw_from_cost_backward(const at::Tensor& grad, const at::Tensor& cost,
                                       const std::optional<at::Tensor>& x_lengths,
                                       const std::optional<at::Tensor>& y_lengths, double gamma,
                                       std::optional<int64_t> band) {
  const char* op = "soft_dtw_from_cost_backward";
  const OnDevice on(cost);
  const DeviceCosts costs = check_device_costs(op, on, cost, x_lengths, y_lengths, false);
  check_positive(op, "gamma", gamma, costs.cost.scalar_type());
  check_band(op, band);
  const at::Tensor outer = check_grad(op, costs.result_shape(), costs.cost.scalar_type(), cost.device(), grad);
  const int64_t n = costs.steps_x(), m = costs.steps_y();
  at::Tensor out = at::empty(costs.result_shape(), costs.options()), result;
  AT_DISPATCH_FLOATING_TYPES(costs.cost.scalar_type(), "soft_dtw_from_cost_backward", [&] {
    SoftDtwScratch<scalar_t> scratch(Sweep::wavefront, n, m, gamma, band, costs.options());
    const Needs needs =
        soft_dtw_adjoint_needs(Sweep::wavefront, n, m, sizeof(scalar_t), kKeptBytes<scalar_t, scalar_t>);
    result = gradient<scalar_t>(costs, on, outer, needs, scratch.adjoint(out.mutable_data_ptr<scalar_t>(), on.stream));
  });
  return result;
}

}  // namespace

TORCH_LIBRARY_IMPL(scav, SCAV_DEVICE_KEY, m) {
  m.impl("soft_dtw_from_cost", &soft_dtw_from_cost);
  m.impl("soft_dtw_from_cost_backward", &soft_dtw_from_cost_backward);
}

}  // namespace scav::device
