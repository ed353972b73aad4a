// scav::soft_dtw and scav::soft_dtw_from_cost, forward and backward, on the CPU; schemas in scav_kernels/ops.

#if defined(__x86_64__)
#include <immintrin.h>
#endif
#include <numbers>

#include "cpu/float_settings.h"
#include "cpu/op.h"
#include "cpu/pipeline.h"
#include "shared/dtw_options.h"

#define SCAV_KERNELS "cpu/soft_dtw.inl"
#include "cpu/foreach_level.h"

namespace scav {
namespace {

Tensor soft_dtw(const Tensor& x, const Tensor& y, const std::optional<Tensor>& x_lengths,
                const std::optional<Tensor>& y_lengths, double gamma, std::string cost, std::optional<int64_t> band,
                bool open_begin, bool open_end, bool paired) {
  const FlushDenormals flush;
  const Inputs inputs =
      check_inputs("soft_dtw", x, y, x_lengths, y_lengths, cost, paired, RowUse::multiplied, Measuring::by_pair);
  const SoftDtwOptions options =
      check_soft_dtw_options("soft_dtw", gamma, band, open_begin, open_end, inputs.x.scalar_type());
  Tensor out = inputs.new_result();
  if (inputs.empty()) {
    return out;
  }
  SCAV_DISPATCH(out.scalar_type(),
                [&] { SCAV_AT_LEVEL(soft_dtw_forward<scalar_t>)(inputs, options, out.mutable_data_ptr<scalar_t>()); });
  spread_nonfinite(inputs, out);
  return out;
}

std::tuple<Tensor, Tensor> soft_dtw_backward(const Tensor& grad, const Tensor& x, const Tensor& y,
                                             const std::optional<Tensor>& x_lengths,
                                             const std::optional<Tensor>& y_lengths, double gamma, std::string cost,
                                             std::optional<int64_t> band, bool open_begin, bool open_end, bool paired,
                                             bool need_x, bool need_y) {
  const FlushDenormals flush;
  const Inputs inputs = check_inputs("soft_dtw_backward", x, y, x_lengths, y_lengths, cost, paired);
  const SoftDtwOptions options =
      check_soft_dtw_options("soft_dtw_backward", gamma, band, open_begin, open_end, inputs.x.scalar_type());
  const NonfiniteGradients nonfinite_gradients = separate_nonfinite(
      inputs, check_grad("soft_dtw_backward", inputs.result_shape(), inputs.x.scalar_type(), cpu(), grad));
  Tensor dx = new_gradient(inputs.x, need_x);
  Tensor dy = new_gradient(inputs.y, need_y);
  if (!inputs.empty()) {
    SCAV_DISPATCH(inputs.x.scalar_type(), [&] {
      SCAV_AT_LEVEL(soft_dtw_backward<scalar_t>)
      (inputs, options, nonfinite_gradients.grad.const_data_ptr<scalar_t>(), data_or_null<scalar_t>(dx),
       data_or_null<scalar_t>(dy));
    });
  }
  return finish_gradients(inputs, dx, dy, nonfinite_gradients);
}

Tensor soft_dtw_from_cost(const Tensor& cost, const std::optional<Tensor>& x_lengths,
                          const std::optional<Tensor>& y_lengths, double gamma, std::optional<int64_t> band,
                          bool open_begin, bool open_end) {
  const FlushDenormals flush;
  const CostInputs costs = check_costs("soft_dtw_from_cost", cost, x_lengths, y_lengths);
  const SoftDtwOptions options =
      check_soft_dtw_options("soft_dtw_from_cost", gamma, band, open_begin, open_end, costs.cost.scalar_type());
  Tensor out = costs.new_result();
  if (costs.empty()) {
    return out;
  }
  SCAV_DISPATCH(out.scalar_type(), [&] {
    SCAV_AT_LEVEL(soft_dtw_from_cost_forward<scalar_t>)(costs, options, out.mutable_data_ptr<scalar_t>());
  });
  spread_nonfinite(costs, out);
  return out;
}

Tensor soft_dtw_from_cost_backward(const Tensor& grad, const Tensor& cost, const std::optional<Tensor>& x_lengths,
                                   const std::optional<Tensor>& y_lengths, double gamma, std::optional<int64_t> band,
                                   bool open_begin, bool open_end) {
  const FlushDenormals flush;
  const char* op = "soft_dtw_from_cost_backward";
  const CostInputs costs = check_costs(op, cost, x_lengths, y_lengths);
  const SoftDtwOptions options =
      check_soft_dtw_options(op, gamma, band, open_begin, open_end, costs.cost.scalar_type());
  const Tensor outer = check_grad(op, costs.result_shape(), costs.cost.scalar_type(), cpu(), grad);
  const Tensor inner = without_nonfinite(costs, outer);
  Tensor gradient = costs.new_gradient();
  if (!costs.empty()) {
    SCAV_DISPATCH(gradient.scalar_type(), [&] {
      SCAV_AT_LEVEL(soft_dtw_from_cost_backward<scalar_t>)
      (costs, options, inner.const_data_ptr<scalar_t>(), gradient.mutable_data_ptr<scalar_t>());
    });
  }
  return finish_gradient(costs, outer, std::move(gradient));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(scav, CPU, m) {
  m.impl("soft_dtw", SCAV_BOX(&soft_dtw));
  m.impl("soft_dtw_backward", SCAV_BOX(&soft_dtw_backward));
  m.impl("soft_dtw_from_cost", SCAV_BOX(&soft_dtw_from_cost));
  m.impl("soft_dtw_from_cost_backward", SCAV_BOX(&soft_dtw_from_cost_backward));
}

}  // namespace scav
