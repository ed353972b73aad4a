// scav::sinkhorn and scav::sinkhorn_from_cost, forward and backward, on the CPU; schemas in scav_kernels/ops.

#include "cpu/op.h"
#include "shared/sinkhorn_result.h"

#define SCAV_KERNELS "cpu/sinkhorn.inl"
#include "cpu/foreach_level.h"

namespace scav {
namespace {

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> sinkhorn(const at::Tensor& x, const at::Tensor& y,
                                                                    const std::optional<at::Tensor>& x_lengths,
                                                                    const std::optional<at::Tensor>& y_lengths,
                                                                    double epsilon, int64_t max_iterations,
                                                                    double tolerance, std::string cost, bool paired,
                                                                    bool save_potentials, bool return_convergence) {
  const Inputs inputs = check_inputs("sinkhorn", x, y, x_lengths, y_lengths, cost, paired);
  check_positive("sinkhorn", "epsilon", epsilon, inputs.x.scalar_type());
  check_iterations("sinkhorn", max_iterations, tolerance);
  SinkhornResult result(inputs.result_shape(), inputs.steps_x(), inputs.x.options(), save_potentials,
                        return_convergence);
  if (inputs.empty()) {
    return std::move(result).tensors();
  }
  AT_DISPATCH_FLOATING_TYPES(result.out.scalar_type(), "sinkhorn", [&] {
    SCAV_AT_LEVEL(sinkhorn_forward<scalar_t>)
    (inputs, SinkhornOptions{epsilon, max_iterations, tolerance}, result.out.mutable_data_ptr<scalar_t>(),
     result.potentials<scalar_t>(), result.report<scalar_t>());
  });
  spread_nonfinite(inputs, result.out);
  return std::move(result).tensors();
}

std::tuple<at::Tensor, at::Tensor> sinkhorn_backward(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& y,
                                                     const std::optional<at::Tensor>& x_lengths,
                                                     const std::optional<at::Tensor>& y_lengths, const at::Tensor& f,
                                                     double epsilon, std::string cost, bool paired, bool need_x,
                                                     bool need_y) {
  const Inputs inputs = check_inputs("sinkhorn_backward", x, y, x_lengths, y_lengths, cost, paired);
  check_positive("sinkhorn_backward", "epsilon", epsilon, inputs.x.scalar_type());
  check_saved("sinkhorn_backward", "f", f, inputs.result_shape({inputs.steps_x()}), inputs.x.scalar_type(), at::kCPU);
  const NonfiniteGradients nonfinite_gradients = separate_nonfinite(
      inputs, check_grad("sinkhorn_backward", inputs.result_shape(), inputs.x.scalar_type(), at::kCPU, grad));
  at::Tensor dx = need_x ? at::zeros_like(inputs.x) : at::Tensor();
  at::Tensor dy = need_y ? at::zeros_like(inputs.y) : at::Tensor();
  if (!inputs.empty()) {
    const at::Tensor potentials = f.contiguous();
    AT_DISPATCH_FLOATING_TYPES(inputs.x.scalar_type(), "sinkhorn_backward", [&] {
      SCAV_AT_LEVEL(sinkhorn_backward<scalar_t>)
      (inputs, epsilon, nonfinite_gradients.grad.const_data_ptr<scalar_t>(), potentials.const_data_ptr<scalar_t>(),
       data_or_null<scalar_t>(dx), data_or_null<scalar_t>(dy));
    });
  }
  return finish_gradients(inputs, dx, dy, nonfinite_gradients);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> sinkhorn_from_cost(
    const at::Tensor& cost, const std::optional<at::Tensor>& x_lengths, const std::optional<at::Tensor>& y_lengths,
    double epsilon, int64_t max_iterations, double tolerance, bool save_potentials, bool return_convergence) {
  CostInputs costs = check_costs("sinkhorn_from_cost", cost, x_lengths, y_lengths);
  check_positive("sinkhorn_from_cost", "epsilon", epsilon, costs.cost.scalar_type());
  check_iterations("sinkhorn_from_cost", max_iterations, tolerance);
  mark_blocked_steps(costs);
  SinkhornResult result(costs.result_shape(), costs.steps_x(), costs.cost.options(), save_potentials,
                        return_convergence);
  if (costs.empty()) {
    return std::move(result).tensors();
  }
  AT_DISPATCH_FLOATING_TYPES(result.out.scalar_type(), "sinkhorn_from_cost", [&] {
    SCAV_AT_LEVEL(sinkhorn_from_cost_forward<scalar_t>)
    (costs, SinkhornOptions{epsilon, max_iterations, tolerance}, result.out.mutable_data_ptr<scalar_t>(),
     result.potentials<scalar_t>(), result.report<scalar_t>());
  });
  spread_nonfinite(costs, result.out);
  return std::move(result).tensors();
}

at::Tensor sinkhorn_from_cost_backward(const at::Tensor& grad, const at::Tensor& cost,
                                       const std::optional<at::Tensor>& x_lengths,
                                       const std::optional<at::Tensor>& y_lengths, const at::Tensor& f,
                                       double epsilon) {
  const char* op = "sinkhorn_from_cost_backward";
  CostInputs costs = check_costs(op, cost, x_lengths, y_lengths);
  check_positive(op, "epsilon", epsilon, costs.cost.scalar_type());
  check_saved(op, "f", f, costs.result_shape(costs.steps_x()), costs.cost.scalar_type(), at::kCPU);
  mark_blocked_steps(costs);
  const at::Tensor outer = check_grad(op, costs.result_shape(), costs.cost.scalar_type(), at::kCPU, grad);
  at::Tensor gradient = costs.new_gradient();
  if (!costs.empty()) {
    const at::Tensor inner = without_nonfinite(costs, outer), potentials = f.contiguous();
    AT_DISPATCH_FLOATING_TYPES(gradient.scalar_type(), "sinkhorn_from_cost_backward", [&] {
      SCAV_AT_LEVEL(sinkhorn_from_cost_backward<scalar_t>)
      (costs, epsilon, inner.const_data_ptr<scalar_t>(), potentials.const_data_ptr<scalar_t>(),
       gradient.mutable_data_ptr<scalar_t>());
    });
  }
  return finish_gradient(costs, outer, std::move(gradient));
}

}  // namespace

TORCH_LIBRARY_IMPL(scav, CPU, m) {
  m.impl("sinkhorn", &sinkhorn);
  m.impl("sinkhorn_backward", &sinkhorn_backward);
  m.impl("sinkhorn_from_cost", &sinkhorn_from_cost);
  m.impl("sinkhorn_from_cost_backward", &sinkhorn_from_cost_backward);
}

}  // namespace scav
