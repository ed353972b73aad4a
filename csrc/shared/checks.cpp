#include "shared/checks.h"

#include <ATen/Dispatch.h>

#include <cmath>
#include <limits>
#include <sstream>

namespace scav {

std::string shape_of(const at::Tensor& tensor) {
  std::ostringstream text;
  text << "(";
  for (int64_t axis = 0; axis < tensor.dim(); ++axis) {
    text << (axis ? ", " : "") << tensor.size(axis);
  }
  text << (tensor.dim() == 1 ? ",)" : ")");
  return text.str();
}

void check_floating(const char* op, const char* name, const at::Tensor& value) {
  TORCH_CHECK_TYPE(value.scalar_type() == at::kFloat || value.scalar_type() == at::kDouble ||
                       value.scalar_type() == at::kHalf || value.scalar_type() == at::kBFloat16,
                   op, ": expected ", name, " of dtype float32, float64, float16 or bfloat16, got ",
                   value.scalar_type(), "; convert it, e.g. ", name, ".float()");
}

at::ScalarType accumulation_dtype(const at::Tensor& value) {
  return value.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

namespace {

void check_sequences(const char* op, const char* name, const char* shape, const at::Tensor& value) {
  TORCH_CHECK_VALUE(value.dim() == 3, op, ": expected ", name, " of shape ", shape, ", got shape ", shape_of(value),
                    "; for one sequence, add the batch axis with ", name, "[None]");
  check_floating(op, name, value);
  TORCH_CHECK_VALUE(value.size(1) > 0 && value.size(2) > 0, op, ": expected ", name,
                    " with at least one step and one feature, got shape ", shape_of(value),
                    "; leave empty sequences out of the batch");
}

void check_lengths_of(const char* op, const char* name, const std::optional<at::Tensor>& lengths, int64_t batch,
                      at::Device device) {
  if (!lengths.has_value()) {
    return;
  }
  TORCH_CHECK_TYPE(lengths->scalar_type() == at::kLong, op, ": expected ", name, " of dtype int64, got ",
                   lengths->scalar_type(), "; convert them with ", name, ".long()");
  TORCH_CHECK_VALUE(lengths->dim() == 1 && lengths->size(0) == batch, op, ": expected ", name, " of shape (", batch,
                    ",), one length per sequence, got shape ", shape_of(*lengths));
  TORCH_CHECK(lengths->device() == device, op, ": expected ", name, " on ", device, " like the sequences, got ",
              lengths->device(), "; move them with ", name, ".to(\"", device, "\")");
}

}  // namespace

void check_pairs(const char* op, const at::Tensor& x, const at::Tensor& y, const std::optional<at::Tensor>& x_lengths,
                 const std::optional<at::Tensor>& y_lengths, bool paired) {
  check_sequences(op, "x", "(B1, N, D)", x);
  check_sequences(op, "y", "(B2, M, D)", y);
  TORCH_CHECK(x.device() == y.device(), op, ": expected x and y on one device, got ", x.device(), " and ", y.device(),
              "; move one, e.g. y.to(x.device)");
  TORCH_CHECK_TYPE(x.scalar_type() == y.scalar_type(), op, ": expected x and y of one dtype, got ", x.scalar_type(),
                   " and ", y.scalar_type(), "; convert one of them, e.g. y.to(x.dtype)");
  TORCH_CHECK_VALUE(x.size(2) == y.size(2), op, ": expected x and y with the same feature size D, got ", x.size(2),
                    " and ", y.size(2), " (shapes ", shape_of(x), " and ", shape_of(y), ")");
  TORCH_CHECK_VALUE(!paired || x.size(0) == y.size(0), op, ": paired distances need batches of one size, got ",
                    x.size(0), " and ", y.size(0), "; for all pairs use cdist");
  check_lengths_of(op, "x_lengths", x_lengths, x.size(0), x.device());
  check_lengths_of(op, "y_lengths", y_lengths, y.size(0), x.device());
}

void check_grid(const char* op, const at::Tensor& cost, const std::optional<at::Tensor>& x_lengths,
                const std::optional<at::Tensor>& y_lengths) {
  TORCH_CHECK_VALUE(cost.dim() == 4, op, ": expected cost of shape (B1, B2, N, M), or (N, M) for one pair, got shape ",
                    shape_of(cost), "; give pairs (B, N, M) a second batch axis with cost[:, None]");
  check_floating(op, "cost", cost);
  TORCH_CHECK_VALUE(cost.size(2) > 0 && cost.size(3) > 0, op,
                    ": expected cost with at least one step on each side, got shape ", shape_of(cost),
                    "; leave empty sequences out of the batch");
  check_lengths_of(op, "x_lengths", x_lengths, cost.size(0), cost.device());
  check_lengths_of(op, "y_lengths", y_lengths, cost.size(1), cost.device());
}

void check_cpu(const char* op, const char* name, const at::Tensor& value) {
  TORCH_CHECK(value.device().is_cpu(), op, ": expected ", name, " on the CPU, got ", value.device(),
              "; move all inputs to one device");
}

at::Tensor check_lengths(const char* op, const char* name, const std::optional<at::Tensor>& lengths, int64_t batch,
                         int64_t steps) {
  if (!lengths.has_value()) {
    return at::full({batch}, steps, at::kLong);
  }
  const at::Tensor packed = lengths->contiguous();
  const int64_t* values = packed.const_data_ptr<int64_t>();
  for (int64_t b = 0; b < batch; ++b) {
    TORCH_CHECK_VALUE(values[b] >= 1 && values[b] <= steps, op, ": expected ", name, " between 1 and ", steps,
                      " (the padded number of steps), got ", values[b], " at index ", b);
  }
  return packed;
}

at::Tensor check_grad(const char* op, at::IntArrayRef shape, at::ScalarType dtype, at::Device device,
                      const at::Tensor& grad) {
  TORCH_CHECK_VALUE(grad.sizes() == shape, op, ": expected grad of the result's shape ", shape, ", got ",
                    shape_of(grad));
  check_floating(op, "grad", grad);
  TORCH_CHECK(grad.device() == device, op, ": expected grad on ", device, ", got ", grad.device(),
              "; move all inputs to one device");
  return grad.detach().to(dtype).contiguous();
}

void check_saved(const char* op, const char* name, const at::Tensor& value, at::IntArrayRef shape, at::ScalarType dtype,
                 at::Device device) {
  TORCH_CHECK_VALUE(value.sizes() == shape && value.scalar_type() == dtype && value.device() == device, op,
                    ": expected ", name, " of shape ", shape, " and dtype ", dtype, " on ", device, ", got ",
                    shape_of(value), ", ", value.scalar_type(), ", ", value.device(),
                    "; pass what the forward op returned");
}

void check_band(const char* op, std::optional<int64_t> band) {
  TORCH_CHECK_VALUE(!band.has_value() || *band >= 0, op, ": expected band >= 0, a radius in steps, or None, got ",
                    band.value_or(0));
}

void check_positive(const char* op, const char* name, double value, at::ScalarType dtype) {
  TORCH_CHECK_VALUE(std::isfinite(value) && value > 0, op, ": expected ", name, " > 0 and finite, got ", value);
  AT_DISPATCH_FLOATING_TYPES(dtype, "check_positive", [&] {
    // Below `max`, the smoothing keeps sums along a path far from kUnreachable.
    constexpr double min = std::numeric_limits<scalar_t>::min(), max = std::numeric_limits<scalar_t>::max() / 1e8;
    TORCH_CHECK_VALUE(value >= min && value <= max, op, ": expected ", name, " between ", min, " and ", max,
                      ", the range of ", dtype, ", got ", value);
  });
}

void check_iterations(const char* op, int64_t max_iterations, double tolerance) {
  TORCH_CHECK_VALUE(max_iterations >= 1, op, ": expected max_iterations >= 1, got ", max_iterations);
  TORCH_CHECK_VALUE(tolerance >= 0, op, ": expected tolerance >= 0 (0 runs all iterations), got ", tolerance);
}

Cost parse_cost(const std::string& name) {
  if (name == "euclidean") {
    return Cost::euclidean;
  }
  if (name == "sqeuclidean") {
    return Cost::sqeuclidean;
  }
  TORCH_CHECK_VALUE(name == "cosine", "expected cost 'euclidean', 'sqeuclidean' or 'cosine', got '", name, "'");
  return Cost::cosine;
}

}  // namespace scav
