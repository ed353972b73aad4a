// scav::sinkhorn and scav::sinkhorn_from_cost, forward and backward, on a GPU; schemas in scav_kernels/ops.

#include "cuda/op.h"
#include "shared/sinkhorn_result.h"
#include "cuda/sinkhorn_scratch.h"

namespace scav::device {
namespace {

using OptionalTensor = std::optional<Tensor>;

void refuse_weights(const char* op, const OptionalTensor& x_weights, const OptionalTensor& y_weights,
                    std::optional<double> scaling = {}) {
  SCAV_CHECK(
      !x_weights.has_value() && !y_weights.has_value() && !scaling.has_value(), op,
      ": x_weights, y_weights and scaling are not implemented on a GPU; move the inputs to the CPU, or leave them "
      "out");
}

// Of weights.
std::tuple<Tensor, Tensor> no_gradients(ScalarType dtype, const Device& device) {
  return {new_empty({0}, dtype, device), new_empty({0}, dtype, device)};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> sinkhorn(const Tensor& x, const Tensor& y, const OptionalTensor& x_lengths,
                                                    const OptionalTensor& y_lengths, const OptionalTensor& x_weights,
                                                    const OptionalTensor& y_weights, double epsilon,
                                                    int64_t max_iterations, double tolerance,
                                                    std::optional<double> scaling, std::string cost, bool paired,
                                                    bool save_potentials, bool return_convergence) {
  refuse_weights("sinkhorn", x_weights, y_weights, scaling);
  const OnDevice on(x);
  const DeviceInputs inputs =
      check_device_inputs("sinkhorn", on, x, y, x_lengths, y_lengths, cost, paired, RowsFor::products);
  check_positive("sinkhorn", "epsilon", epsilon, inputs.dtype);
  check_iterations("sinkhorn", max_iterations, tolerance);
  const int64_t n = inputs.steps_x(), m = inputs.steps_y();
  SinkhornResult result(inputs.result_shape(), n, inputs.dtype, on.device, save_potentials, return_convergence);
  if (inputs.empty()) {
    return std::move(result).tensors();
  }
  const SinkhornOptions options{epsilon, max_iterations, tolerance};
  SCAV_DISPATCH(inputs.dtype, [&] {
    SinkhornScratch<scalar_t> scratch(on, n, m, sizeof(scalar_t), options);
    for_each_tile<scalar_t>(inputs, on, Order::by_sequence, scratch.needs(), [&](const Parts<scalar_t>& parts) {
      scratch.forward(parts, result.out.mutable_data_ptr<scalar_t>(), result.potentials<scalar_t>(),
                      result.report<scalar_t>());
    });
  });
  spread_nonfinite(inputs, result.out);
  return std::move(result).tensors();
}

std::tuple<Tensor, Tensor, Tensor, Tensor> sinkhorn_backward(
    const Tensor& grad, const Tensor& x, const Tensor& y, const OptionalTensor& x_lengths,
    const OptionalTensor& y_lengths, const OptionalTensor& x_weights, const OptionalTensor& y_weights, const Tensor& f,
    double epsilon, std::string cost, bool paired, bool need_x, bool need_y, bool, bool) {
  const char* op = "sinkhorn_backward";
  refuse_weights(op, x_weights, y_weights);
  const OnDevice on(x);
  const DeviceInputs inputs = check_device_inputs(op, on, x, y, x_lengths, y_lengths, cost, paired, RowsFor::adjoint);
  check_positive(op, "epsilon", epsilon, inputs.dtype);
  check_saved(op, "f", f, inputs.result_shape({inputs.steps_x()}), inputs.dtype, x.device());
  const Tensor outer = check_grad(op, inputs.result_shape(), inputs.dtype, x.device(), grad);
  const Tensor potentials = to_contiguous(f);
  std::tuple<Tensor, Tensor> result;
  SCAV_DISPATCH(inputs.dtype, [&] {
    SinkhornPlan<scalar_t> plan(epsilon, potentials.const_data_ptr<scalar_t>(), on.device);
    result = gradients<scalar_t>(inputs, on, Order::by_sequence, outer, need_x, need_y,
                                 sinkhorn_plan_needs(inputs.steps_x(), inputs.steps_y(), sizeof(scalar_t)),
                                 plan.adjoint(on.stream));
  });
  return std::tuple_cat(std::move(result), no_gradients(inputs.dtype, on.device));
}

std::tuple<Tensor, Tensor, Tensor, Tensor> sinkhorn_from_cost(
    const Tensor& cost, const OptionalTensor& x_lengths, const OptionalTensor& y_lengths,
    const OptionalTensor& x_weights, const OptionalTensor& y_weights, double epsilon, int64_t max_iterations,
    double tolerance, std::optional<double> scaling, bool save_potentials, bool return_convergence) {
  refuse_weights("sinkhorn_from_cost", x_weights, y_weights, scaling);
  const OnDevice on(cost);
  const DeviceCosts costs = check_device_costs("sinkhorn_from_cost", on, cost, x_lengths, y_lengths, true);
  check_positive("sinkhorn_from_cost", "epsilon", epsilon, costs.cost.scalar_type());
  check_iterations("sinkhorn_from_cost", max_iterations, tolerance);
  const int64_t n = costs.steps_x(), m = costs.steps_y();
  SinkhornResult result(costs.result_shape(), n, costs.dtype(), on.device, save_potentials, return_convergence);
  const SinkhornOptions options{epsilon, max_iterations, tolerance};
  SCAV_DISPATCH(result.out.scalar_type(), [&] {
    SinkhornScratch<scalar_t> scratch(on, n, m, 0, options);
    for_each_tile<scalar_t>(costs, on, scratch.needs(), [&](const Parts<scalar_t>& parts) {
      scratch.forward(parts, result.out.mutable_data_ptr<scalar_t>(), result.potentials<scalar_t>(),
                      result.report<scalar_t>());
    });
  });
  spread_nonfinite(costs, result.out);
  return std::move(result).tensors();
}

std::tuple<Tensor, Tensor, Tensor> sinkhorn_from_cost_backward(
    const Tensor& grad, const Tensor& cost, const OptionalTensor& x_lengths, const OptionalTensor& y_lengths,
    const OptionalTensor& x_weights, const OptionalTensor& y_weights, const Tensor& f, double epsilon, bool, bool) {
  const char* op = "sinkhorn_from_cost_backward";
  refuse_weights(op, x_weights, y_weights);
  const OnDevice on(cost);
  const DeviceCosts costs = check_device_costs(op, on, cost, x_lengths, y_lengths, true);
  check_positive(op, "epsilon", epsilon, costs.cost.scalar_type());
  check_saved(op, "f", f, costs.result_shape({costs.steps_x()}), costs.cost.scalar_type(), cost.device());
  const Tensor outer = check_grad(op, costs.result_shape(), costs.cost.scalar_type(), cost.device(), grad);
  const Tensor potentials = to_contiguous(f);
  Tensor result;
  SCAV_DISPATCH(costs.cost.scalar_type(), [&] {
    SinkhornPlan<scalar_t> plan(epsilon, potentials.const_data_ptr<scalar_t>(), on.device);
    result = gradient<scalar_t>(costs, on, outer, no_needs(), plan.adjoint(on.stream));
  });
  return std::tuple_cat(std::tuple(std::move(result)), no_gradients(costs.dtype(), on.device));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(scav, SCAV_DEVICE_KEY, m) {
  m.impl("sinkhorn", SCAV_BOX(&sinkhorn));
  m.impl("sinkhorn_backward", SCAV_BOX(&sinkhorn_backward));
  m.impl("sinkhorn_from_cost", SCAV_BOX(&sinkhorn_from_cost));
  m.impl("sinkhorn_from_cost_backward", SCAV_BOX(&sinkhorn_from_cost_backward));
}

}  // namespace scav::device
