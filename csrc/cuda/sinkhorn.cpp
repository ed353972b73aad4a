// scav::sinkhorn and scav::sinkhorn_from_cost, forward and backward, on a GPU; schemas in scav_kernels/ops.

#include "cuda/op.h"
#include "shared/sinkhorn_result.h"
#include "cuda/sinkhorn_scratch.h"

namespace scav::device {
namespace {

using OptionalTensor = std::optional<Tensor>;

// As kernels of weighted steps read them; null where there are none.
template <class T>
StepWeights<T> step_weights(const PairWeights& weights) {
  return weights.defined() ? weights.of<T>() : StepWeights<T>{nullptr, nullptr};
}

// Zeros for the potentials G of all pairs, if the gradient in y's weights is needed.
Tensor potentials_of_y(bool needed, const Shape& shape, ScalarType dtype, const Device& device) {
  return needed ? new_zeros(shape, dtype, device) : Tensor();
}

template <class T>
T* data_or_null(Tensor& tensor) {
  return tensor.defined() ? tensor.mutable_data_ptr<T>() : nullptr;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> sinkhorn(const Tensor& x, const Tensor& y, const OptionalTensor& x_lengths,
                                                    const OptionalTensor& y_lengths, const OptionalTensor& x_weights,
                                                    const OptionalTensor& y_weights, double epsilon,
                                                    int64_t max_iterations, double tolerance,
                                                    std::optional<double> scaling, std::string cost, bool paired,
                                                    bool save_potentials, bool return_convergence) {
  const char* op = "sinkhorn";
  const OnDevice on(x);
  DeviceInputs inputs = check_device_inputs(op, on, x, y, x_lengths, y_lengths, cost, paired, RowsFor::products);
  const SinkhornOptions options = check_sinkhorn_options(op, epsilon, max_iterations, tolerance, scaling, inputs.dtype);
  const PairWeights weights = check_step_weights(op, on, x_weights, y_weights, scaling.has_value(), inputs);
  const int64_t n = inputs.steps_x(), m = inputs.steps_y();
  SinkhornResult result(inputs.result_shape(), n, inputs.dtype, on.device, save_potentials, return_convergence);
  if (inputs.empty()) {
    return std::move(result).tensors();
  }
  SCAV_DISPATCH(inputs.dtype, [&] {
    SinkhornScratch<scalar_t> scratch(on, n, m, sizeof(scalar_t), options, step_weights<scalar_t>(weights));
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
    double epsilon, std::string cost, bool paired, bool need_x, bool need_y, bool need_x_weights, bool need_y_weights) {
  const char* op = "sinkhorn_backward";
  const OnDevice on(x);
  DeviceInputs inputs = check_device_inputs(op, on, x, y, x_lengths, y_lengths, cost, paired, RowsFor::adjoint);
  check_positive(op, "epsilon", epsilon, inputs.dtype);
  const PairWeights weights = check_step_weights(op, on, x_weights, y_weights, false, inputs);
  check_saved(op, "f", f, inputs.result_shape({inputs.steps_x()}), inputs.dtype, x.device());
  const Tensor outer = check_grad(op, inputs.result_shape(), inputs.dtype, x.device(), grad);
  const Tensor potentials = to_contiguous(f);
  need_x_weights &= x_weights.has_value(), need_y_weights &= y_weights.has_value();
  Tensor g = potentials_of_y(need_y_weights, inputs.result_shape({inputs.steps_y()}), inputs.dtype, on.device);
  std::tuple<Tensor, Tensor> result;
  SCAV_DISPATCH(inputs.dtype, [&] {
    SinkhornPlan<scalar_t> plan(epsilon, potentials.const_data_ptr<scalar_t>(), step_weights<scalar_t>(weights),
                                data_or_null<scalar_t>(g), on.device);
    result = gradients<scalar_t>(
        inputs, on, Order::by_sequence, outer, need_x, need_y,
        sinkhorn_plan_needs(inputs.steps_x(), inputs.steps_y(), sizeof(scalar_t), weights.defined()),
        plan.adjoint(on.stream));
  });
  const WeightsGradient of_weights{epsilon,
                                   to_contiguous(outer),
                                   to_contiguous(inputs.nonfinite()),
                                   false,
                                   paired,
                                   inputs.batch_x(),
                                   inputs.batch_y(),
                                   on.stream};
  return std::tuple_cat(std::move(result),
                        std::tuple(of_weights.of_x(weights.x, inputs.x_lengths, potentials, need_x_weights),
                                   of_weights.of_y(weights.y, inputs.y_lengths, g, need_y_weights)));
}

std::tuple<Tensor, Tensor, Tensor, Tensor> sinkhorn_from_cost(
    const Tensor& cost, const OptionalTensor& x_lengths, const OptionalTensor& y_lengths,
    const OptionalTensor& x_weights, const OptionalTensor& y_weights, double epsilon, int64_t max_iterations,
    double tolerance, std::optional<double> scaling, bool save_potentials, bool return_convergence) {
  const char* op = "sinkhorn_from_cost";
  const OnDevice on(cost);
  DeviceCosts costs = check_device_costs(op, on, cost, x_lengths, y_lengths, true);
  const SinkhornOptions options =
      check_sinkhorn_options(op, epsilon, max_iterations, tolerance, scaling, costs.dtype());
  const PairWeights weights = check_step_weights(op, on, x_weights, y_weights, scaling.has_value(), costs);
  const int64_t n = costs.steps_x(), m = costs.steps_y();
  SinkhornResult result(costs.result_shape(), n, costs.dtype(), on.device, save_potentials, return_convergence);
  SCAV_DISPATCH(result.out.scalar_type(), [&] {
    SinkhornScratch<scalar_t> scratch(on, n, m, 0, options, step_weights<scalar_t>(weights));
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
    const OptionalTensor& x_weights, const OptionalTensor& y_weights, const Tensor& f, double epsilon,
    bool need_x_weights, bool need_y_weights) {
  const char* op = "sinkhorn_from_cost_backward";
  const OnDevice on(cost);
  DeviceCosts costs = check_device_costs(op, on, cost, x_lengths, y_lengths, true);
  check_positive(op, "epsilon", epsilon, costs.cost.scalar_type());
  const PairWeights weights = check_step_weights(op, on, x_weights, y_weights, false, costs);
  check_saved(op, "f", f, costs.result_shape({costs.steps_x()}), costs.cost.scalar_type(), cost.device());
  const Tensor outer = check_grad(op, costs.result_shape(), costs.cost.scalar_type(), cost.device(), grad);
  const Tensor potentials = to_contiguous(f);
  need_x_weights &= x_weights.has_value(), need_y_weights &= y_weights.has_value();
  Tensor g = potentials_of_y(need_y_weights, costs.result_shape({costs.steps_y()}), costs.dtype(), on.device);
  Tensor result;
  SCAV_DISPATCH(costs.cost.scalar_type(), [&] {
    SinkhornPlan<scalar_t> plan(epsilon, potentials.const_data_ptr<scalar_t>(), step_weights<scalar_t>(weights),
                                data_or_null<scalar_t>(g), on.device);
    // Costs that are given are in memory whole, and so are pairs.
    const int64_t n = costs.steps_x();
    const Needs needs{
        [&](int64_t pairs, int64_t) { return weights.defined() ? pairs * n * int64_t(sizeof(scalar_t)) : 0; }, n};
    result = gradient<scalar_t>(costs, on, outer, needs, plan.adjoint(on.stream));
  });
  const WeightsGradient of_weights{epsilon,      to_contiguous(outer), costs.nonfinite,    true,
                                   costs.paired, costs.cost.size(0),   costs.cost.size(1), on.stream};
  return std::tuple_cat(std::tuple(std::move(result)),
                        std::tuple(of_weights.of_x(weights.x, costs.x_lengths, potentials, need_x_weights),
                                   of_weights.of_y(weights.y, costs.y_lengths, g, need_y_weights)));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(scav, SCAV_DEVICE_KEY, m) {
  m.impl("sinkhorn", SCAV_BOX(&sinkhorn));
  m.impl("sinkhorn_backward", SCAV_BOX(&sinkhorn_backward));
  m.impl("sinkhorn_from_cost", SCAV_BOX(&sinkhorn_from_cost));
  m.impl("sinkhorn_from_cost_backward", SCAV_BOX(&sinkhorn_from_cost_backward));
}

}  // namespace scav::device
