// scav::sinkhorn and scav::sinkhorn_from_cost, forward and backward, on the CPU; schemas in scav_kernels/ops.

#include "cpu/float_settings.h"
#include "cpu/op.h"
#include "cpu/step_weights.h"
#include "shared/sinkhorn_result.h"

#define SCAV_KERNELS "cpu/sinkhorn.inl"
#include "cpu/foreach_level.h"

namespace scav {
namespace {

using OptionalTensor = std::optional<Tensor>;

StepWeights weights_of_x(const char* op, const OptionalTensor& weights, const Inputs& inputs) {
  return check_weights(op, "x_weights", weights, inputs.x_lengths, inputs.steps_x(), inputs.x.scalar_type());
}

StepWeights weights_of_y(const char* op, const OptionalTensor& weights, const Inputs& inputs) {
  return check_weights(op, "y_weights", weights, inputs.y_lengths, inputs.steps_y(), inputs.x.scalar_type());
}

StepWeights weights_of_x(const char* op, const OptionalTensor& weights, const CostInputs& costs) {
  return check_weights(op, "x_weights", weights, costs.x_lengths, costs.steps_x(), costs.cost.scalar_type());
}

StepWeights weights_of_y(const char* op, const OptionalTensor& weights, const CostInputs& costs) {
  return check_weights(op, "y_weights", weights, costs.y_lengths, costs.steps_y(), costs.cost.scalar_type());
}

// Zeros for the potentials G of all pairs, if the gradient in y's weights is needed.
Tensor potentials_of_y(bool needed, Shape shape, int64_t steps, ScalarType dtype) {
  shape.push_back(steps);
  return needed ? new_zeros(shape, dtype) : Tensor();
}

// Gradients that are not needed are empty, like the weights or, where there are none, in `dtype`.
Tensor no_gradient(const StepWeights& weights, ScalarType dtype) {
  return new_nothing(weights.given.defined() ? weights.given.scalar_type() : dtype);
}

// Gradients of x's and of y's weights, from the potentials `f` and `g` of a result's pairs.
std::tuple<Tensor, Tensor> weights_gradients(const PairWeights& weights, int64_t batch_x, const Lengths& x_lengths,
                                             const Lengths& y_lengths, double epsilon, const Tensor& grad,
                                             const Tensor& f, const Tensor& g, const std::vector<char>& nonfinite_x,
                                             const std::vector<char>& nonfinite_y, bool need_x, bool need_y) {
  const PairsOfSequence own{1, 1, 1};
  const PairsOfSequence of_x = weights.paired ? own : PairsOfSequence{weights.batch_y, 1, weights.batch_y};
  const PairsOfSequence of_y = weights.paired ? own : PairsOfSequence{1, weights.batch_y, batch_x};
  const ScalarType dtype = grad.scalar_type();
  return {need_x ? weights_gradient(weights.x, x_lengths, of_x, epsilon, grad, f, nonfinite_x)
                 : no_gradient(weights.x, dtype),
          need_y ? weights_gradient(weights.y, y_lengths, of_y, epsilon, grad, g, nonfinite_y)
                 : no_gradient(weights.y, dtype)};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> sinkhorn(const Tensor& x, const Tensor& y, const OptionalTensor& x_lengths,
                                                    const OptionalTensor& y_lengths, const OptionalTensor& x_weights,
                                                    const OptionalTensor& y_weights, double epsilon,
                                                    int64_t max_iterations, double tolerance,
                                                    std::optional<double> scaling, std::string cost, bool paired,
                                                    bool save_potentials, bool return_convergence) {
  const FlushDenormals flush;
  const char* op = "sinkhorn";
  const Inputs inputs = check_inputs(op, x, y, x_lengths, y_lengths, cost, paired);
  const SinkhornOptions options =
      check_sinkhorn_options(op, epsilon, max_iterations, tolerance, scaling, inputs.x.scalar_type());
  const StepWeights a = weights_of_x(op, x_weights, inputs), b = weights_of_y(op, y_weights, inputs);
  SinkhornResult result(inputs.result_shape(), inputs.steps_x(), inputs.x.scalar_type(), cpu(), save_potentials,
                        return_convergence);
  if (inputs.empty()) {
    return std::move(result).tensors();
  }
  SCAV_DISPATCH(result.out.scalar_type(), [&] {
    SCAV_AT_LEVEL(sinkhorn_forward<scalar_t>)
    (inputs, PairWeights{a, b, inputs.batch_y(), paired}, options, result.out.mutable_data_ptr<scalar_t>(),
     result.potentials<scalar_t>(), result.report<scalar_t>());
  });
  spread_nonfinite(inputs, result.out);
  return std::move(result).tensors();
}

std::tuple<Tensor, Tensor, Tensor, Tensor> sinkhorn_backward(
    const Tensor& grad, const Tensor& x, const Tensor& y, const OptionalTensor& x_lengths,
    const OptionalTensor& y_lengths, const OptionalTensor& x_weights, const OptionalTensor& y_weights, const Tensor& f,
    double epsilon, std::string cost, bool paired, bool need_x, bool need_y, bool need_x_weights, bool need_y_weights) {
  const FlushDenormals flush;
  const char* op = "sinkhorn_backward";
  const Inputs inputs = check_inputs(op, x, y, x_lengths, y_lengths, cost, paired);
  const ScalarType dtype = inputs.x.scalar_type();
  check_positive(op, "epsilon", epsilon, dtype);
  const StepWeights a = weights_of_x(op, x_weights, inputs), b = weights_of_y(op, y_weights, inputs);
  const PairWeights weights{a, b, inputs.batch_y(), paired};
  check_saved(op, "f", f, inputs.result_shape({inputs.steps_x()}), dtype, cpu());
  const NonfiniteGradients nonfinite =
      separate_nonfinite(inputs, check_grad(op, inputs.result_shape(), dtype, cpu(), grad));
  need_x_weights &= a.given.defined(), need_y_weights &= b.given.defined();
  Tensor dx = new_gradient(inputs.x, need_x);
  Tensor dy = new_gradient(inputs.y, need_y);
  Tensor g = potentials_of_y(need_y_weights, inputs.result_shape(), inputs.steps_y(), dtype);
  const Tensor potentials = to_contiguous(f);
  if (!inputs.empty() && (need_x || need_y || need_y_weights)) {
    SCAV_DISPATCH(dtype, [&] {
      SCAV_AT_LEVEL(sinkhorn_backward<scalar_t>)
      (inputs, weights, epsilon, nonfinite.grad.const_data_ptr<scalar_t>(), potentials.const_data_ptr<scalar_t>(),
       data_or_null<scalar_t>(dx), data_or_null<scalar_t>(dy), data_or_null<scalar_t>(g));
    });
  }
  return std::tuple_cat(
      finish_gradients(inputs, dx, dy, nonfinite),
      weights_gradients(weights, inputs.batch_x(), inputs.x_lengths, inputs.y_lengths, epsilon, nonfinite.grad,
                        potentials, g, nonfinite.x, nonfinite.y, need_x_weights, need_y_weights));
}

std::tuple<Tensor, Tensor, Tensor, Tensor> sinkhorn_from_cost(
    const Tensor& cost, const OptionalTensor& x_lengths, const OptionalTensor& y_lengths,
    const OptionalTensor& x_weights, const OptionalTensor& y_weights, double epsilon, int64_t max_iterations,
    double tolerance, std::optional<double> scaling, bool save_potentials, bool return_convergence) {
  const FlushDenormals flush;
  const char* op = "sinkhorn_from_cost";
  CostInputs costs = check_costs(op, cost, x_lengths, y_lengths);
  const SinkhornOptions options =
      check_sinkhorn_options(op, epsilon, max_iterations, tolerance, scaling, costs.cost.scalar_type());
  const StepWeights a = weights_of_x(op, x_weights, costs), b = weights_of_y(op, y_weights, costs);
  const PairWeights weights{a, b, costs.batch_y(), costs.paired};
  mark_blocked_steps(costs, weights);
  SinkhornResult result(costs.result_shape(), costs.steps_x(), costs.cost.scalar_type(), cpu(), save_potentials,
                        return_convergence);
  if (costs.empty()) {
    return std::move(result).tensors();
  }
  SCAV_DISPATCH(result.out.scalar_type(), [&] {
    SCAV_AT_LEVEL(sinkhorn_from_cost_forward<scalar_t>)
    (costs, weights, options, result.out.mutable_data_ptr<scalar_t>(), result.potentials<scalar_t>(),
     result.report<scalar_t>());
  });
  spread_nonfinite(costs, result.out);
  return std::move(result).tensors();
}

std::tuple<Tensor, Tensor, Tensor> sinkhorn_from_cost_backward(
    const Tensor& grad, const Tensor& cost, const OptionalTensor& x_lengths, const OptionalTensor& y_lengths,
    const OptionalTensor& x_weights, const OptionalTensor& y_weights, const Tensor& f, double epsilon,
    bool need_x_weights, bool need_y_weights) {
  const FlushDenormals flush;
  const char* op = "sinkhorn_from_cost_backward";
  CostInputs costs = check_costs(op, cost, x_lengths, y_lengths);
  const ScalarType dtype = costs.cost.scalar_type();
  check_positive(op, "epsilon", epsilon, dtype);
  const StepWeights a = weights_of_x(op, x_weights, costs), b = weights_of_y(op, y_weights, costs);
  const PairWeights weights{a, b, costs.batch_y(), costs.paired};
  check_saved(op, "f", f, costs.result_shape(costs.steps_x()), dtype, cpu());
  mark_blocked_steps(costs, weights);
  const Tensor outer = check_grad(op, costs.result_shape(), dtype, cpu(), grad);
  need_x_weights &= a.given.defined(), need_y_weights &= b.given.defined();
  Tensor gradient = costs.new_gradient();
  Tensor g = potentials_of_y(need_y_weights, costs.result_shape(), costs.steps_y(), dtype);
  const NonfiniteGradients nonfinite = separate_nonfinite(costs, outer);
  const Tensor potentials = to_contiguous(f);
  if (!costs.empty()) {
    SCAV_DISPATCH(dtype, [&] {
      SCAV_AT_LEVEL(sinkhorn_from_cost_backward<scalar_t>)
      (costs, weights, epsilon, nonfinite.grad.const_data_ptr<scalar_t>(), potentials.const_data_ptr<scalar_t>(),
       gradient.mutable_data_ptr<scalar_t>(), data_or_null<scalar_t>(g));
    });
  }
  return std::tuple_cat(
      std::tuple(finish_gradient(costs, outer, std::move(gradient))),
      weights_gradients(weights, costs.batch_x(), costs.x_lengths, costs.y_lengths, epsilon, nonfinite.grad, potentials,
                        g, nonfinite.x, nonfinite.y, need_x_weights, need_y_weights));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(scav, CPU, m) {
  m.impl("sinkhorn", SCAV_BOX(&sinkhorn));
  m.impl("sinkhorn_backward", SCAV_BOX(&sinkhorn_backward));
  m.impl("sinkhorn_from_cost", SCAV_BOX(&sinkhorn_from_cost));
  m.impl("sinkhorn_from_cost_backward", SCAV_BOX(&sinkhorn_from_cost_backward));
}

}  // namespace scav
