// scav::sinkhorn and scav::sinkhorn_backward on the CPU; schemas in scav_kernels/ops/sinkhorn.py.

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
  spread_poison(inputs, result.out);
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
  const Spoilt spoilt = separate_poison(
      inputs, check_grad("sinkhorn_backward", inputs.result_shape(), inputs.x.scalar_type(), at::kCPU, grad));
  at::Tensor dx = need_x ? at::zeros_like(inputs.x) : at::Tensor();
  at::Tensor dy = need_y ? at::zeros_like(inputs.y) : at::Tensor();
  if (!inputs.empty()) {
    const at::Tensor potentials = f.contiguous();
    AT_DISPATCH_FLOATING_TYPES(inputs.x.scalar_type(), "sinkhorn_backward", [&] {
      SCAV_AT_LEVEL(sinkhorn_backward<scalar_t>)
      (inputs, epsilon, spoilt.grad.const_data_ptr<scalar_t>(), potentials.const_data_ptr<scalar_t>(),
       data_or_null<scalar_t>(dx), data_or_null<scalar_t>(dy));
    });
  }
  return finish_gradients(inputs, dx, dy, spoilt);
}

}  // namespace

TORCH_LIBRARY_IMPL(scav, CPU, m) {
  m.impl("sinkhorn", &sinkhorn);
  m.impl("sinkhorn_backward", &sinkhorn_backward);
}

}  // namespace scav
