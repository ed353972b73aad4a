// scav::sinkhorn_from_cost and scav::sinkhorn_from_cost_backward on a GPU; schemas in
// scav_kernels/ops/sinkhorn_from_cost.py.

#include "cuda/op.h"
#include "shared/sinkhorn_result.h"
#include "cuda/sinkhorn_scratch.h"

namespace scav::device {
namespace {

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> sinkhorn_from_cost(
    const at::Tensor& cost, const std::optional<at::Tensor>& x_lengths, const std::optional<at::Tensor>& y_lengths,
    double epsilon, int64_t max_iterations, double tolerance, bool save_potentials, bool return_convergence) {
  const OnDevice on(cost);
  const DeviceCosts costs = check_device_costs("sinkhorn_from_cost", on, cost, x_lengths, y_lengths, true);
  check_positive("sinkhorn_from_cost", "epsilon", epsilon, costs.cost.scalar_type());
  check_iterations("sinkhorn_from_cost", max_iterations, tolerance);
  const int64_t n = costs.steps_x(), m = costs.steps_y();
  SinkhornResult result(costs.result_shape(), n, costs.options(), save_potentials, return_convergence);
  const SinkhornOptions options{epsilon, max_iterations, tolerance};
  AT_DISPATCH_FLOATING_TYPES(result.out.scalar_type(), "sinkhorn_from_cost", [&] {
    SinkhornScratch<scalar_t> scratch(on, n, m, 0, options, costs.options());
    for_each_tile<scalar_t>(costs, on, scratch.needs(), [&](const Slabs<scalar_t>& slabs) {
      scratch.forward(slabs, result.out.mutable_data_ptr<scalar_t>(), result.potentials<scalar_t>(),
                      result.report<scalar_t>());
    });
  });
  spread_poison(costs, result.out);
  return std::move(result).tensors();
}

at::Tensor sinkhorn_from_cost_backward(const at::Tensor& grad, const at::Tensor& cost,
                                       const std::optional<at::Tensor>& x_lengths,
                                       const std::optional<at::Tensor>& y_lengths, const at::Tensor& f,
                                       double epsilon) {
  const char* op = "sinkhorn_from_cost_backward";
  const OnDevice on(cost);
  const DeviceCosts costs = check_device_costs(op, on, cost, x_lengths, y_lengths, true);
  check_positive(op, "epsilon", epsilon, costs.cost.scalar_type());
  check_saved(op, "f", f, costs.result_shape({costs.steps_x()}), costs.cost.scalar_type(), cost.device());
  const at::Tensor outer = check_grad(op, costs.result_shape(), costs.cost.scalar_type(), cost.device(), grad);
  const at::Tensor potentials = f.contiguous();
  at::Tensor result;
  AT_DISPATCH_FLOATING_TYPES(costs.cost.scalar_type(), "sinkhorn_from_cost_backward", [&] {
    SinkhornPlan<scalar_t> plan(epsilon, potentials.const_data_ptr<scalar_t>(), costs.options());
    result = gradient<scalar_t>(costs, on, outer, no_needs(), plan.adjoint(on.stream));
  });
  return result;
}

}  // namespace

TORCH_LIBRARY_IMPL(scav, SCAV_DEVICE_KEY, m) {
  m.impl("sinkhorn_from_cost", &sinkhorn_from_cost);
  m.impl("sinkhorn_from_cost_backward", &sinkhorn_from_cost_backward);
}

}  // namespace scav::device
