// scav::sinkhorn and scav::sinkhorn_from_cost, forward and backward, on the CPU; schemas in scav_kernels/ops.

#include "cpu/op.h"
#include "shared/sinkhorn_result.h"

#define SCAV_KERNELS "cpu/sinkhorn.inl"
#include "cpu/foreach_level.h"

namespace scav {
namespace {

std::tuple<Tensor, Tensor, Tensor, Tensor> sinkhorn(const Tensor& x, const Tensor& y,
                                                    const std::optional<Tensor>& x_lengths,
                                                    const std::optional<Tensor>& y_lengths, double epsilon,
                                                    int64_t max_iterations, double tolerance, std::string cost,
                                                    bool paired, bool save_potentials, bool return_convergence) {
  const Inputs inputs = check_inputs("sinkhorn", x, y, x_lengths, y_lengths, cost, paired);
  check_positive("sinkhorn", "epsilon", epsilon, inputs.x.scalar_type());
  check_iterations("sinkhorn", max_iterations, tolerance);
  SinkhornResult result(inputs.result_shape(), inputs.steps_x(), inputs.x.scalar_type(), cpu(), save_potentials,
                        return_convergence);
  if (inputs.empty()) {
    return std::move(result).tensors();
  }
  SCAV_DISPATCH(result.out.scalar_type(), [&] {
    SCAV_AT_LEVEL(sinkhorn_forward<scalar_t>)
    (inputs, SinkhornOptions{epsilon, max_iterations, tolerance}, result.out.mutable_data_ptr<scalar_t>(),
     result.potentials<scalar_t>(), result.report<scalar_t>());
  });
  spread_nonfinite(inputs, result.out);
  return std::move(result).tensors();
}

std::tuple<Tensor, Tensor> sinkhorn_backward(const Tensor& grad, const Tensor& x, const Tensor& y,
                                             const std::optional<Tensor>& x_lengths,
                                             const std::optional<Tensor>& y_lengths, const Tensor& f, double epsilon,
                                             std::string cost, bool paired, bool need_x, bool need_y) {
  const Inputs inputs = check_inputs("sinkhorn_backward", x, y, x_lengths, y_lengths, cost, paired);
  check_positive("sinkhorn_backward", "epsilon", epsilon, inputs.x.scalar_type());
  check_saved("sinkhorn_backward", "f", f, inputs.result_shape({inputs.steps_x()}), inputs.x.scalar_type(), cpu());
  const NonfiniteGradients nonfinite_gradients = separate_nonfinite(
      inputs, check_grad("sinkhorn_backward", inputs.result_shape(), inputs.x.scalar_type(), cpu(), grad));
  Tensor dx = new_gradient(inputs.x, need_x);
  Tensor dy = new_gradient(inputs.y, need_y);
  if (!inputs.empty()) {
    const Tensor potentials = to_contiguous(f);
    SCAV_DISPATCH(inputs.x.scalar_type(), [&] {
      SCAV_AT_LEVEL(sinkhorn_backward<scalar_t>)
      (inputs, epsilon, nonfinite_gradients.grad.const_data_ptr<scalar_t>(), potentials.const_data_ptr<scalar_t>(),
       data_or_null<scalar_t>(dx), data_or_null<scalar_t>(dy));
    });
  }
  return finish_gradients(inputs, dx, dy, nonfinite_gradients);
}

std::tuple<Tensor, Tensor, Tensor, Tensor> sinkhorn_from_cost(const Tensor& cost,
                                                              const std::optional<Tensor>& x_lengths,
                                                              const std::optional<Tensor>& y_lengths, double epsilon,
                                                              int64_t max_iterations, double tolerance,
                                                              bool save_potentials, bool return_convergence) {
  CostInputs costs = check_costs("sinkhorn_from_cost", cost, x_lengths, y_lengths);
  check_positive("sinkhorn_from_cost", "epsilon", epsilon, costs.cost.scalar_type());
  check_iterations("sinkhorn_from_cost", max_iterations, tolerance);
  mark_blocked_steps(costs);
  SinkhornResult result(costs.result_shape(), costs.steps_x(), costs.cost.scalar_type(), cpu(), save_potentials,
                        return_convergence);
  if (costs.empty()) {
    return std::move(result).tensors();
  }
  SCAV_DISPATCH(result.out.scalar_type(), [&] {
    SCAV_AT_LEVEL(sinkhorn_from_cost_forward<scalar_t>)
    (costs, SinkhornOptions{epsilon, max_iterations, tolerance}, result.out.mutable_data_ptr<scalar_t>(),
     result.potentials<scalar_t>(), result.report<scalar_t>());
  });
  spread_nonfinite(costs, result.out);
  return std::move(result).tensors();
}

Tensor sinkhorn_from_cost_backward(const Tensor& grad, const Tensor& cost, const std::optional<Tensor>& x_lengths,
                                   const std::optional<Tensor>& y_lengths, const Tensor& f, double epsilon) {
  const char* op = "sinkhorn_from_cost_backward";
  CostInputs costs = check_costs(op, cost, x_lengths, y_lengths);
  check_positive(op, "epsilon", epsilon, costs.cost.scalar_type());
  check_saved(op, "f", f, costs.result_shape(costs.steps_x()), costs.cost.scalar_type(), cpu());
  mark_blocked_steps(costs);
  const Tensor outer = check_grad(op, costs.result_shape(), costs.cost.scalar_type(), cpu(), grad);
  Tensor gradient = costs.new_gradient();
  if (!costs.empty()) {
    const Tensor inner = without_nonfinite(costs, outer), potentials = to_contiguous(f);
    SCAV_DISPATCH(gradient.scalar_type(), [&] {
      SCAV_AT_LEVEL(sinkhorn_from_cost_backward<scalar_t>)
      (costs, epsilon, inner.const_data_ptr<scalar_t>(), potentials.const_data_ptr<scalar_t>(),
       gradient.mutable_data_ptr<scalar_t>());
    });
  }
  return finish_gradient(costs, outer, std::move(gradient));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(scav, CPU, m) {
  m.impl("sinkhorn", SCAV_BOX(&sinkhorn));
  m.impl("sinkhorn_backward", SCAV_BOX(&sinkhorn_backward));
  m.impl("sinkhorn_from_cost", SCAV_BOX(&sinkhorn_from_cost));
  m.impl("sinkhorn_from_cost_backward", SCAV_BOX(&sinkhorn_from_cost_backward));
}

}  // namespace scav
