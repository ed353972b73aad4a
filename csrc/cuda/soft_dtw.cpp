// scav::soft_dtw and scav::soft_dtw_from_cost, forward and backward, on a GPU; schemas in scav_kernels/ops.

#include "cuda/op.h"
#include "cuda/soft_dtw_scratch.h"

namespace scav::device {
namespace {

Tensor soft_dtw(const Tensor& x, const Tensor& y, const std::optional<Tensor>& x_lengths,
                const std::optional<Tensor>& y_lengths, double gamma, std::string cost, std::optional<int64_t> band,
                bool open_begin, bool open_end, bool paired) {
  const OnDevice on(x);
  // Check the shapes first; the choice of kernel depends on them.
  check_pairs("soft_dtw", x, y, x_lengths, y_lengths, paired);
  const SoftDtwOptions options =
      check_soft_dtw_options("soft_dtw", gamma, band, open_begin, open_end, accumulation_dtype(x));
  const Sweep sweep = choose_forward(on, x, y, paired, 0, has_closed_ends(options));
  const DeviceInputs inputs =
      check_device_inputs("soft_dtw", on, x, y, x_lengths, y_lengths, cost, paired, rows_for(sweep));
  const int64_t n = inputs.steps_x(), m = inputs.steps_y();
  Tensor out = inputs.new_empty(inputs.result_shape());
  if (inputs.empty()) {
    return out;
  }
  if (sweep == Sweep::fused) {
    const FusedShape fused(n, m, inputs.dim(), on.shared_bytes);
    Scratch<float> carry(on.device);
    for_each_fused_tile(inputs, on, fused.carried(1) * int64_t(sizeof(float)),
                        [&](const Costs<float>& costs, int64_t blocks) {
                          launch_soft_dtw_fused(costs, fused, gamma, band.value_or(-1), carry.of(fused.carried(blocks)),
                                                out.mutable_data_ptr<float>(), on.stream);
                        });
    spread_nonfinite(inputs, out);
    return out;
  }
  SCAV_DISPATCH(inputs.dtype, [&] {
    SoftDtwScratch<scalar_t> scratch(sweep, n, m, options, on.device);
    for_each_tile<scalar_t>(
        inputs, on, order_of(sweep), soft_dtw_needs(sweep, n, m, sizeof(scalar_t)),
        [&](const Parts<scalar_t>& parts) { scratch.forward(parts, out.mutable_data_ptr<scalar_t>(), on.stream); });
  });
  spread_nonfinite(inputs, out);
  return out;
}

// `Word`: of the softmin's weights, see kKeptWords.
template <class T, class Word>
std::tuple<Tensor, Tensor> backward(const OnDevice& on, const DeviceInputs& inputs, const Tensor& grad,
                                    const SoftDtwOptions& options, bool need_x, bool need_y) {
  const int64_t n = inputs.steps_x(), m = inputs.steps_y();
  // The product, the softmin's weights, and the weight.
  const int64_t cell_bytes = int64_t(sizeof(T)) + kKeptBytes<T, Word> + inputs.x.element_size();
  const Sweep sweep = choose_backward(inputs, on, cell_bytes);
  SoftDtwScratch<T, Word> scratch(sweep, n, m, options, on.device);
  Tensor out = inputs.new_empty(inputs.result_shape());
  return gradients<T>(inputs, on, order_of(sweep), grad, need_x, need_y,
                      soft_dtw_adjoint_needs(sweep, n, m, sizeof(T), kKeptBytes<T, Word>, options.open.end),
                      scratch.adjoint(out.mutable_data_ptr<T>(), on.stream));
}

std::tuple<Tensor, Tensor> soft_dtw_backward(const Tensor& grad, const Tensor& x, const Tensor& y,
                                             const std::optional<Tensor>& x_lengths,
                                             const std::optional<Tensor>& y_lengths, double gamma, std::string cost,
                                             std::optional<int64_t> band, bool open_begin, bool open_end, bool paired,
                                             bool need_x, bool need_y) {
  const char* op = "soft_dtw_backward";
  const OnDevice on(x);
  const DeviceInputs inputs = check_device_inputs(op, on, x, y, x_lengths, y_lengths, cost, paired, RowsFor::adjoint);
  const SoftDtwOptions options = check_soft_dtw_options(op, gamma, band, open_begin, open_end, inputs.dtype);
  const Tensor outer = check_grad(op, inputs.result_shape(), inputs.dtype, x.device(), grad);
  if (inputs.x_given.element_size() == 2) {
    return backward<float, PackedWeights>(on, inputs, outer, options, need_x, need_y);
  }
  std::tuple<Tensor, Tensor> result;
  SCAV_DISPATCH(inputs.dtype,
                [&] { result = backward<scalar_t, scalar_t>(on, inputs, outer, options, need_x, need_y); });
  return result;
}

Tensor soft_dtw_from_cost(const Tensor& cost, const std::optional<Tensor>& x_lengths,
                          const std::optional<Tensor>& y_lengths, double gamma, std::optional<int64_t> band,
                          bool open_begin, bool open_end) {
  const OnDevice on(cost);
  const DeviceCosts costs = check_device_costs("soft_dtw_from_cost", on, cost, x_lengths, y_lengths, false);
  const SoftDtwOptions options =
      check_soft_dtw_options("soft_dtw_from_cost", gamma, band, open_begin, open_end, costs.dtype());
  const int64_t n = costs.steps_x(), m = costs.steps_y();
  Tensor out = costs.new_result();
  SCAV_DISPATCH(out.scalar_type(), [&] {
    SoftDtwScratch<scalar_t> scratch(Sweep::wavefront, n, m, options, on.device);
    for_each_tile<scalar_t>(
        costs, on, soft_dtw_needs(Sweep::wavefront, n, m, sizeof(scalar_t)),
        [&](const Parts<scalar_t>& parts) { scratch.forward(parts, out.mutable_data_ptr<scalar_t>(), on.stream); });
  });
  spread_nonfinite(costs, out);
  return out;
}

Tensor soft_dtw_from_cost_backward(const Tensor& grad, const Tensor& cost, const std::optional<Tensor>& x_lengths,
                                   const std::optional<Tensor>& y_lengths, double gamma, std::optional<int64_t> band,
                                   bool open_begin, bool open_end) {
  const char* op = "soft_dtw_from_cost_backward";
  const OnDevice on(cost);
  const DeviceCosts costs = check_device_costs(op, on, cost, x_lengths, y_lengths, false);
  const SoftDtwOptions options = check_soft_dtw_options(op, gamma, band, open_begin, open_end, costs.dtype());
  const Tensor outer = check_grad(op, costs.result_shape(), costs.cost.scalar_type(), cost.device(), grad);
  const int64_t n = costs.steps_x(), m = costs.steps_y();
  Tensor out = costs.new_result(), result;
  SCAV_DISPATCH(costs.cost.scalar_type(), [&] {
    SoftDtwScratch<scalar_t> scratch(Sweep::wavefront, n, m, options, on.device);
    const Needs needs = soft_dtw_adjoint_needs(Sweep::wavefront, n, m, sizeof(scalar_t), kKeptBytes<scalar_t, scalar_t>,
                                               options.open.end);
    result = gradient<scalar_t>(costs, on, outer, needs, scratch.adjoint(out.mutable_data_ptr<scalar_t>(), on.stream));
  });
  return result;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(scav, SCAV_DEVICE_KEY, m) {
  m.impl("soft_dtw", SCAV_BOX(&soft_dtw));
  m.impl("soft_dtw_backward", SCAV_BOX(&soft_dtw_backward));
  m.impl("soft_dtw_from_cost", SCAV_BOX(&soft_dtw_from_cost));
  m.impl("soft_dtw_from_cost_backward", SCAV_BOX(&soft_dtw_from_cost_backward));
}

}  // namespace scav::device
