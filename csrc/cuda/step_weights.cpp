#include "cuda/step_weights.h"

#include <torch/csrc/stable/ops.h>

#include "cuda/aten.h"
#include "cuda/rows.h"

namespace scav::device {

namespace {

SideWeights prepare(const char* op, const char* name, const OnDevice& on, const std::optional<Tensor>& weights,
                    const Tensor& lengths, int64_t batch, int64_t steps, ScalarType dtype) {
  SideWeights side;
  if (weights.has_value()) {
    check_floating(op, name, *weights);
    SCAV_CHECK(weights->device() == on.device, op, ": expected ", name, " on ", text_of(on.device), ", got ",
               text_of(weights->device()), "; move them with ", name,
               ".to("
               ", text_of(on.device), "
               ")");
    SCAV_CHECK_VALUE(weights->dim() == 2 && weights->size(0) == batch && weights->size(1) == steps, op, ": expected ",
                     name, " of shape (", batch, ", ", steps, "), one weight per step, got shape ", text_of(*weights),
                     "; pass the weights of every step, in the order of the steps");
    side.given = *weights;
  }
  const Tensor packed = weights.has_value() ? to_contiguous(to_dtype(*weights, kDouble))
                                            : new_full({batch, steps}, 1, kDouble, on.device);
  side.relative = new_empty({batch, steps}, dtype, on.device);
  side.means = new_empty({batch}, kDouble, on.device);
  side.nonfinite = new_empty({batch}, dtype, on.device);
  SCAV_DISPATCH(dtype, [&] {
    prepare_step_weights<scalar_t>({packed.const_data_ptr<double>(), batch, steps, lengths_or_null(lengths)},
                                   side.relative.mutable_data_ptr<scalar_t>(), side.means.mutable_data_ptr<double>(),
                                   side.nonfinite.mutable_data_ptr<scalar_t>(), on.stream);
  });
  return side;
}

// Gradient of one side, from the potentials (results, steps).
Tensor gradient(const WeightsGradient& of, const SideWeights& weights, const Tensor& lengths, const Tensor& potentials,
                const PairsOfSequence& pairs, bool needed) {
  if (!weights.given.defined()) {
    return new_empty({0}, of.grad.scalar_type(), of.grad.device());
  }
  const ScalarType dtype = weights.given.scalar_type();
  if (!needed) {
    return new_empty({0}, dtype, of.grad.device());
  }
  Tensor result = new_empty(shape_of(weights.relative), of.grad.scalar_type(), of.grad.device());
  SCAV_DISPATCH(of.grad.scalar_type(), [&] {
    write_weights_gradient<scalar_t>(
        {nullptr, weights.relative.size(0), weights.relative.size(1), lengths_or_null(lengths)},
        {weights.relative.const_data_ptr<scalar_t>(), potentials.const_data_ptr<scalar_t>(),
         of.grad.const_data_ptr<scalar_t>(), of.nonfinite.const_data_ptr<scalar_t>(),
         weights.means.const_data_ptr<double>(), of.blocked, of.epsilon, pairs},
        result.mutable_data_ptr<scalar_t>(), of.stream);
  });
  return to_dtype(result, dtype);
}

}  // namespace

PairWeights check_step_weights(const char* op, const OnDevice& on, const std::optional<Tensor>& x_weights,
                               const std::optional<Tensor>& y_weights, bool must, DeviceInputs& inputs) {
  if (!must && !x_weights.has_value() && !y_weights.has_value()) {
    return {};
  }
  PairWeights weights{
      prepare(op, "x_weights", on, x_weights, inputs.x_lengths, inputs.batch_x(), inputs.steps_x(), inputs.dtype),
      prepare(op, "y_weights", on, y_weights, inputs.y_lengths, inputs.batch_y(), inputs.steps_y(), inputs.dtype)};
  inputs.x_nonfinite = add(inputs.x_nonfinite, weights.x.nonfinite);
  inputs.y_nonfinite = add(inputs.y_nonfinite, weights.y.nonfinite);
  return weights;
}

PairWeights check_step_weights(const char* op, const OnDevice& on, const std::optional<Tensor>& x_weights,
                               const std::optional<Tensor>& y_weights, bool must, DeviceCosts& costs) {
  if (!must && !x_weights.has_value() && !y_weights.has_value()) {
    return {};
  }
  const int64_t batch_y = costs.paired ? costs.cost.size(0) : costs.cost.size(1);
  PairWeights weights{
      prepare(op, "x_weights", on, x_weights, costs.x_lengths, costs.cost.size(0), costs.steps_x(), costs.dtype()),
      prepare(op, "y_weights", on, y_weights, costs.y_lengths, batch_y, costs.steps_y(), costs.dtype())};
  // Anew: only steps that have weight block a pair.
  SCAV_DISPATCH(costs.dtype(), [&] {
    find_nonfinite<scalar_t>(whole<scalar_t>(costs), true, weights.x.relative.const_data_ptr<scalar_t>(),
                             weights.y.relative.const_data_ptr<scalar_t>(),
                             costs.nonfinite.mutable_data_ptr<scalar_t>(), on.stream);
  });
  const Tensor of_x = costs.paired ? weights.x.nonfinite : torch::stable::unsqueeze(weights.x.nonfinite, 1);
  costs.nonfinite = to_contiguous(add(add(costs.nonfinite, of_x), weights.y.nonfinite));
  return weights;
}

Tensor WeightsGradient::of_x(const SideWeights& weights, const Tensor& lengths, const Tensor& f, bool needed) const {
  const PairsOfSequence pairs = paired ? PairsOfSequence{1, 1, 1} : PairsOfSequence{batch_y, 1, batch_y};
  return gradient(*this, weights, lengths, f, pairs, needed);
}

Tensor WeightsGradient::of_y(const SideWeights& weights, const Tensor& lengths, const Tensor& g, bool needed) const {
  const PairsOfSequence pairs = paired ? PairsOfSequence{1, 1, 1} : PairsOfSequence{1, batch_y, batch_x};
  return gradient(*this, weights, lengths, g, pairs, needed);
}

}  // namespace scav::device
