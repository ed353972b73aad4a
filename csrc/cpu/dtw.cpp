// scav::dtw and scav::dtw_from_cost, forward and backward, on the CPU; schemas in scav_kernels/ops.

#include "cpu/op.h"
#include "cpu/pipeline.h"
#include "shared/dtw_options.h"

#define SCAV_KERNELS "cpu/dtw.inl"
#include "cpu/foreach_level.h"

namespace scav {
namespace {

std::tuple<Tensor, Tensor> dtw(const Tensor& x, const Tensor& y, const std::optional<Tensor>& x_lengths,
                               const std::optional<Tensor>& y_lengths, std::string cost, std::optional<int64_t> band,
                               double step_penalty, double diagonal_weight, bool open_begin, bool open_end,
                               std::optional<std::string> normalize, bool paired, bool save_path) {
  const Inputs inputs =
      check_inputs("dtw", x, y, x_lengths, y_lengths, cost, paired, RowUse::multiplied, Measuring::by_pair);
  const DtwOptions options = check_dtw_options("dtw", band, step_penalty, diagonal_weight, open_begin, open_end,
                                               normalize, inputs.x.scalar_type());
  Tensor out = inputs.new_result();
  const Shape path_shape = inputs.result_shape({inputs.steps_x() + inputs.steps_y()});
  Tensor path = save_path ? new_full(path_shape, kPathEnd, kByte) : new_nothing(kByte);
  if (inputs.empty()) {
    return {out, path};
  }
  SCAV_DISPATCH(out.scalar_type(), [&] {
    SCAV_AT_LEVEL(dtw_forward<scalar_t>)
    (inputs, options, out.mutable_data_ptr<scalar_t>(), save_path ? path.mutable_data_ptr<uint8_t>() : nullptr);
  });
  spread_nonfinite(inputs, out);
  return {out, path};
}

std::tuple<Tensor, Tensor> dtw_backward(const Tensor& grad, const Tensor& x, const Tensor& y,
                                        const std::optional<Tensor>& x_lengths, const std::optional<Tensor>& y_lengths,
                                        const Tensor& out, const Tensor& path, std::string cost, double diagonal_weight,
                                        std::optional<std::string> normalize, bool paired, bool need_x, bool need_y) {
  const Inputs inputs = check_inputs("dtw_backward", x, y, x_lengths, y_lengths, cost, paired);
  const PathOptions options = check_path_options("dtw_backward", diagonal_weight, normalize, inputs.x.scalar_type());
  check_saved("dtw_backward", "path", path, inputs.result_shape({inputs.steps_x() + inputs.steps_y()}), kByte, cpu());
  check_saved("dtw_backward", "out", out, inputs.result_shape(), inputs.x.scalar_type(), cpu());
  const NonfiniteGradients nonfinite_gradients = separate_nonfinite(
      inputs, check_grad("dtw_backward", inputs.result_shape(), inputs.x.scalar_type(), cpu(), grad));
  Tensor dx = new_gradient(inputs.x, need_x);
  Tensor dy = new_gradient(inputs.y, need_y);
  if (!inputs.empty()) {
    const Tensor paths = to_contiguous(path), values = to_contiguous(out);
    SCAV_DISPATCH(inputs.x.scalar_type(), [&] {
      SCAV_AT_LEVEL(dtw_backward<scalar_t>)
      (inputs, options, nonfinite_gradients.grad.const_data_ptr<scalar_t>(), values.const_data_ptr<scalar_t>(),
       paths.const_data_ptr<uint8_t>(), data_or_null<scalar_t>(dx), data_or_null<scalar_t>(dy));
    });
  }
  return finish_gradients(inputs, dx, dy, nonfinite_gradients);
}

std::tuple<Tensor, Tensor> dtw_from_cost(const Tensor& cost, const std::optional<Tensor>& x_lengths,
                                         const std::optional<Tensor>& y_lengths, std::optional<int64_t> band,
                                         double step_penalty, double diagonal_weight, bool open_begin, bool open_end,
                                         std::optional<std::string> normalize, bool save_path) {
  const char* op = "dtw_from_cost";
  const CostInputs costs = check_costs(op, cost, x_lengths, y_lengths);
  const DtwOptions options = check_dtw_options(op, band, step_penalty, diagonal_weight, open_begin, open_end, normalize,
                                               costs.cost.scalar_type());
  Tensor out = costs.new_result();
  const Shape path_shape = costs.result_shape(costs.steps_x() + costs.steps_y());
  Tensor path = save_path ? new_full(path_shape, kPathEnd, kByte) : new_nothing(kByte);
  if (costs.empty()) {
    return {out, path};
  }
  SCAV_DISPATCH(out.scalar_type(), [&] {
    SCAV_AT_LEVEL(dtw_from_cost_forward<scalar_t>)
    (costs, options, out.mutable_data_ptr<scalar_t>(), save_path ? path.mutable_data_ptr<uint8_t>() : nullptr);
  });
  spread_nonfinite(costs, out);
  return {out, path};
}

// One pair's part of the gradient: `grad` times the weight of each cell on its path.
template <class T>
void add_along_path(const CostInputs& costs, int64_t pair, const PathOptions& options, T grad, const uint8_t* path,
                    T* cells) {
  const int64_t n = costs.length_x(pair), m = costs.length_y(pair);
  const T per_cell = grad / static_cast<T>(path_divisor(options.normalize, n, m, path));
  for_each_path_cell(n, m, path, static_cast<T>(options.diagonal_weight),
                     [&](int64_t s, int64_t t, T weight) { cells[s * costs.steps_y() + t] = weight * per_cell; });
}

Tensor dtw_from_cost_backward(const Tensor& grad, const Tensor& cost, const std::optional<Tensor>& x_lengths,
                              const std::optional<Tensor>& y_lengths, const Tensor& out, const Tensor& path,
                              double diagonal_weight, std::optional<std::string> normalize) {
  const char* op = "dtw_from_cost_backward";
  const CostInputs costs = check_costs(op, cost, x_lengths, y_lengths);
  const PathOptions options = check_path_options(op, diagonal_weight, normalize, costs.cost.scalar_type());
  const int64_t path_stride = costs.steps_x() + costs.steps_y();
  check_saved(op, "path", path, costs.result_shape(path_stride), kByte, cpu());
  check_saved(op, "out", out, costs.result_shape(), costs.cost.scalar_type(), cpu());
  const Tensor outer = check_grad(op, costs.result_shape(), costs.cost.scalar_type(), cpu(), grad);
  const Tensor paths = to_contiguous(path), values = to_contiguous(out);
  Tensor gradient = costs.new_gradient();
  SCAV_DISPATCH(gradient.scalar_type(), [&] {
    const scalar_t *grads = outer.const_data_ptr<scalar_t>(), *distances = values.const_data_ptr<scalar_t>();
    scalar_t* cells = gradient.mutable_data_ptr<scalar_t>();
    const uint8_t* steps = paths.const_data_ptr<uint8_t>();
    const int64_t parts = thread_count();
    run_parts(parts, [&](int64_t part) {
      for (int64_t pair = costs.pairs() * part / parts; pair < costs.pairs() * (part + 1) / parts; ++pair) {
        poll(path_stride);
        // A pair that no path gets through has no gradient.
        if (grads[pair] != 0 && std::isfinite(distances[pair])) {
          add_along_path(costs, pair, options, grads[pair], steps + pair * path_stride,
                         cells + pair * costs.steps_x() * costs.steps_y());
        }
      }
    });
  });
  return finish_gradient(costs, outer, std::move(gradient));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(scav, CPU, m) {
  m.impl("dtw", SCAV_BOX(&dtw));
  m.impl("dtw_backward", SCAV_BOX(&dtw_backward));
  m.impl("dtw_from_cost", SCAV_BOX(&dtw_from_cost));
  m.impl("dtw_from_cost_backward", SCAV_BOX(&dtw_from_cost_backward));
}

}  // namespace scav
