// scav::dtw and scav::dtw_from_cost, forward and backward, on the CPU; schemas in scav_kernels/ops.

#include "cpu/op.h"
#include "cpu/pipeline.h"
#include "shared/dtw.h"

#define SCAV_KERNELS "cpu/dtw.inl"
#include "cpu/foreach_level.h"

namespace scav {
namespace {

std::tuple<at::Tensor, at::Tensor> dtw(const at::Tensor& x, const at::Tensor& y,
                                       const std::optional<at::Tensor>& x_lengths,
                                       const std::optional<at::Tensor>& y_lengths, std::string cost,
                                       std::optional<int64_t> band, bool paired, bool save_path) {
  const Inputs inputs = check_inputs("dtw", x, y, x_lengths, y_lengths, cost, paired);
  check_band("dtw", band);
  at::Tensor out = inputs.new_result();
  at::Tensor path =
      at::full(save_path ? inputs.result_shape({inputs.steps_x() + inputs.steps_y()}) : std::vector<int64_t>{0},
               kPathEnd, at::kByte);
  if (inputs.empty()) {
    return {out, path};
  }
  AT_DISPATCH_FLOATING_TYPES(out.scalar_type(), "dtw", [&] {
    SCAV_AT_LEVEL(dtw_forward<scalar_t>)
    (inputs, band, out.mutable_data_ptr<scalar_t>(), save_path ? path.mutable_data_ptr<uint8_t>() : nullptr);
  });
  spread_nonfinite(inputs, out);
  return {out, path};
}

std::tuple<at::Tensor, at::Tensor> dtw_backward(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& y,
                                                const std::optional<at::Tensor>& x_lengths,
                                                const std::optional<at::Tensor>& y_lengths, const at::Tensor& out,
                                                const at::Tensor& path, std::string cost, bool paired, bool need_x,
                                                bool need_y) {
  const Inputs inputs = check_inputs("dtw_backward", x, y, x_lengths, y_lengths, cost, paired);
  check_saved("dtw_backward", "path", path, inputs.result_shape({inputs.steps_x() + inputs.steps_y()}), at::kByte,
              at::kCPU);
  check_saved("dtw_backward", "out", out, inputs.result_shape(), inputs.x.scalar_type(), at::kCPU);
  const NonfiniteGradients nonfinite_gradients = separate_nonfinite(
      inputs, check_grad("dtw_backward", inputs.result_shape(), inputs.x.scalar_type(), at::kCPU, grad));
  at::Tensor dx = need_x ? at::zeros_like(inputs.x) : at::Tensor();
  at::Tensor dy = need_y ? at::zeros_like(inputs.y) : at::Tensor();
  if (!inputs.empty()) {
    const at::Tensor paths = path.contiguous(), values = out.contiguous();
    AT_DISPATCH_FLOATING_TYPES(inputs.x.scalar_type(), "dtw_backward", [&] {
      SCAV_AT_LEVEL(dtw_backward<scalar_t>)
      (inputs, nonfinite_gradients.grad.const_data_ptr<scalar_t>(), values.const_data_ptr<scalar_t>(),
       paths.const_data_ptr<uint8_t>(), data_or_null<scalar_t>(dx), data_or_null<scalar_t>(dy));
    });
  }
  return finish_gradients(inputs, dx, dy, nonfinite_gradients);
}

std::tuple<at::Tensor, at::Tensor> dtw_from_cost(const at::Tensor& cost, const std::optional<at::Tensor>& x_lengths,
                                                 const std::optional<at::Tensor>& y_lengths,
                                                 std::optional<int64_t> band, bool save_path) {
  const CostInputs costs = check_costs("dtw_from_cost", cost, x_lengths, y_lengths);
  check_band("dtw_from_cost", band);
  at::Tensor out = costs.new_result();
  at::Tensor path = at::full(
      save_path ? costs.result_shape(costs.steps_x() + costs.steps_y()) : std::vector<int64_t>{0}, kPathEnd, at::kByte);
  if (costs.empty()) {
    return {out, path};
  }
  AT_DISPATCH_FLOATING_TYPES(out.scalar_type(), "dtw_from_cost", [&] {
    SCAV_AT_LEVEL(dtw_from_cost_forward<scalar_t>)
    (costs, band, out.mutable_data_ptr<scalar_t>(), save_path ? path.mutable_data_ptr<uint8_t>() : nullptr);
  });
  spread_nonfinite(costs, out);
  return {out, path};
}

// One pair's part of the gradient: `grad` for each cell of its path.
template <class T>
void add_along_path(const CostInputs& costs, int64_t pair, T grad, const uint8_t* path, T* cells) {
  int64_t s = costs.length_x(pair) - 1, t = costs.length_y(pair) - 1;
  for (; s >= 0 && t >= 0; ++path) {
    cells[s * costs.steps_y() + t] = grad;
    if (*path >= kPathEnd) {
      break;
    }
    s -= *path != kLeft;
    t -= *path != kUp;
  }
}

at::Tensor dtw_from_cost_backward(const at::Tensor& grad, const at::Tensor& cost,
                                  const std::optional<at::Tensor>& x_lengths,
                                  const std::optional<at::Tensor>& y_lengths, const at::Tensor& out,
                                  const at::Tensor& path) {
  const char* op = "dtw_from_cost_backward";
  const CostInputs costs = check_costs(op, cost, x_lengths, y_lengths);
  const int64_t path_stride = costs.steps_x() + costs.steps_y();
  check_saved(op, "path", path, costs.result_shape(path_stride), at::kByte, at::kCPU);
  check_saved(op, "out", out, costs.result_shape(), costs.cost.scalar_type(), at::kCPU);
  const at::Tensor outer = check_grad(op, costs.result_shape(), costs.cost.scalar_type(), at::kCPU, grad);
  // A pair that no path gets through has no gradient.
  const at::Tensor inner = outer.masked_fill(out.isfinite().logical_not(), 0), paths = path.contiguous();
  at::Tensor gradient = costs.new_gradient();
  AT_DISPATCH_FLOATING_TYPES(gradient.scalar_type(), "dtw_from_cost_backward", [&] {
    const scalar_t* grads = inner.const_data_ptr<scalar_t>();
    scalar_t* cells = gradient.mutable_data_ptr<scalar_t>();
    const uint8_t* steps = paths.const_data_ptr<uint8_t>();
    const int64_t parts = thread_count();
    run_parts(parts, [&](int64_t part) {
      for (int64_t pair = costs.pairs() * part / parts; pair < costs.pairs() * (part + 1) / parts; ++pair) {
        poll(path_stride);
        if (grads[pair] != 0) {
          add_along_path(costs, pair, grads[pair], steps + pair * path_stride,
                         cells + pair * costs.steps_x() * costs.steps_y());
        }
      }
    });
  });
  return finish_gradient(costs, outer, std::move(gradient));
}

}  // namespace

TORCH_LIBRARY_IMPL(scav, CPU, m) {
  m.impl("dtw", &dtw);
  m.impl("dtw_backward", &dtw_backward);
  m.impl("dtw_from_cost", &dtw_from_cost);
  m.impl("dtw_from_cost_backward", &dtw_from_cost_backward);
}

}  // namespace scav
