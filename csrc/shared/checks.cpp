#include "shared/checks.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace scav {

void check_floating(const char* op, const char* name, const Tensor& value) {
  SCAV_CHECK_TYPE(value.scalar_type() == kFloat || value.scalar_type() == kDouble || value.scalar_type() == kHalf ||
                      value.scalar_type() == kBFloat16,
                  op, ": expected ", name, " of dtype float32, float64, float16 or bfloat16, got ", value.scalar_type(),
                  "; convert it, e.g. ", name, ".float()");
}

ScalarType accumulation_dtype(const Tensor& value) { return value.scalar_type() == kDouble ? kDouble : kFloat; }

namespace {

void check_sequences(const char* op, const char* name, const char* shape, const Tensor& value) {
  SCAV_CHECK_VALUE(value.dim() == 3, op, ": expected ", name, " of shape ", shape, ", got shape ", text_of(value),
                   "; for one sequence, add the batch axis with ", name, "[None]");
  check_floating(op, name, value);
  SCAV_CHECK_VALUE(value.size(1) > 0 && value.size(2) > 0, op, ": expected ", name,
                   " with at least one step and one feature, got shape ", text_of(value),
                   "; leave empty sequences out of the batch");
}

void check_lengths_of(const char* op, const char* name, const std::optional<Tensor>& lengths, int64_t batch,
                      const Device& device) {
  if (!lengths.has_value()) {
    return;
  }
  SCAV_CHECK_TYPE(lengths->scalar_type() == kLong, op, ": expected ", name, " of dtype int64, got ",
                  lengths->scalar_type(), "; convert them with ", name, ".long()");
  SCAV_CHECK_VALUE(lengths->dim() == 1 && lengths->size(0) == batch, op, ": expected ", name, " of shape (", batch,
                   ",), one length per sequence, got shape ", text_of(*lengths));
  SCAV_CHECK(lengths->device() == device, op, ": expected ", name, " on ", text_of(device), " like the sequences, got ",
             text_of(lengths->device()), "; move them with ", name, ".to(\"", text_of(device), "\")");
}

}  // namespace

void check_pairs(const char* op, const Tensor& x, const Tensor& y, const std::optional<Tensor>& x_lengths,
                 const std::optional<Tensor>& y_lengths, bool paired) {
  check_sequences(op, "x", "(B1, N, D)", x);
  check_sequences(op, "y", "(B2, M, D)", y);
  SCAV_CHECK(x.device() == y.device(), op, ": expected x and y on one device, got ", text_of(x.device()), " and ",
             text_of(y.device()), "; move one, e.g. y.to(x.device)");
  SCAV_CHECK_TYPE(x.scalar_type() == y.scalar_type(), op, ": expected x and y of one dtype, got ", x.scalar_type(),
                  " and ", y.scalar_type(), "; convert one of them, e.g. y.to(x.dtype)");
  SCAV_CHECK_VALUE(x.size(2) == y.size(2), op, ": expected x and y with the same feature size D, got ", x.size(2),
                   " and ", y.size(2), " (shapes ", text_of(x), " and ", text_of(y), ")");
  SCAV_CHECK_VALUE(!paired || x.size(0) == y.size(0), op, ": paired distances need batches of one size, got ",
                   x.size(0), " and ", y.size(0), "; for all pairs use cdist");
  check_lengths_of(op, "x_lengths", x_lengths, x.size(0), x.device());
  check_lengths_of(op, "y_lengths", y_lengths, y.size(0), x.device());
}

void check_grid(const char* op, const Tensor& cost, const std::optional<Tensor>& x_lengths,
                const std::optional<Tensor>& y_lengths) {
  SCAV_CHECK_VALUE(cost.dim() == 4 || cost.dim() == 3, op,
                   ": expected cost of shape (B1, B2, N, M), or (B, N, M) of pairs, got shape ", text_of(cost));
  check_floating(op, "cost", cost);
  SCAV_CHECK_VALUE(cost.size(-2) > 0 && cost.size(-1) > 0, op,
                   ": expected cost with at least one step on each side, got shape ", text_of(cost),
                   "; leave empty sequences out of the batch");
  check_lengths_of(op, "x_lengths", x_lengths, cost.size(0), cost.device());
  check_lengths_of(op, "y_lengths", y_lengths, cost.size(cost.dim() == 3 ? 0 : 1), cost.device());
}

void check_cpu(const char* op, const char* name, const Tensor& value) {
  SCAV_CHECK(value.device().is_cpu(), op, ": expected ", name, " on the CPU, got ", text_of(value.device()),
             "; move all inputs to one device");
}

Lengths check_lengths(const char* op, const char* name, const std::optional<Tensor>& lengths, int64_t batch,
                      int64_t steps) {
  if (!lengths.has_value()) {
    return {batch, steps};
  }
  Lengths checked(*lengths);
  const int64_t* values = checked.data();
  for (int64_t b = 0; b < batch; ++b) {
    SCAV_CHECK_VALUE(values[b] >= 1 && values[b] <= steps, op, ": expected ", name, " between 1 and ", steps,
                     " (the padded number of steps), got ", values[b], " at index ", b);
  }
  return checked;
}

Tensor check_grad(const char* op, const Shape& shape, ScalarType dtype, const Device& device, const Tensor& grad) {
  SCAV_CHECK_VALUE(shape_of(grad) == shape, op, ": expected grad of the result's shape ", text_of(shape), ", got ",
                   text_of(grad));
  check_floating(op, "grad", grad);
  SCAV_CHECK(grad.device() == device, op, ": expected grad on ", text_of(device), ", got ", text_of(grad.device()),
             "; move all inputs to one device");
  return to_contiguous(to_dtype(grad, dtype));
}

void check_saved(const char* op, const char* name, const Tensor& value, const Shape& shape, ScalarType dtype,
                 const Device& device) {
  SCAV_CHECK_VALUE(shape_of(value) == shape && value.scalar_type() == dtype && value.device() == device, op,
                   ": expected ", name, " of shape ", text_of(shape), " and dtype ", dtype, " on ", text_of(device),
                   ", got ", text_of(value), ", ", value.scalar_type(), ", ", text_of(value.device()),
                   "; pass what the forward op returned");
}

void check_band(const char* op, std::optional<int64_t> band) {
  SCAV_CHECK_VALUE(!band.has_value() || *band >= 0, op, ": expected band >= 0, a radius in steps, or None, got ",
                   band.value_or(0));
}

void check_positive(const char* op, const char* name, double value, ScalarType dtype) {
  SCAV_CHECK_VALUE(std::isfinite(value) && value > 0, op, ": expected ", name, " > 0 and finite, got ", value);
  SCAV_DISPATCH(dtype, [&] {
    // Below `max`, the smoothing keeps sums along a path far from kUnreachable.
    constexpr double min = std::numeric_limits<scalar_t>::min(), max = std::numeric_limits<scalar_t>::max() / 1e8;
    SCAV_CHECK_VALUE(value >= min && value <= max, op, ": expected ", name, " between ", min, " and ", max,
                     ", the range of ", dtype, ", got ", value);
  });
}

void check_iterations(const char* op, int64_t max_iterations, double tolerance) {
  SCAV_CHECK_VALUE(max_iterations >= 1, op, ": expected max_iterations >= 1, got ", max_iterations);
  SCAV_CHECK_VALUE(tolerance >= 0, op, ": expected tolerance >= 0 (0 runs all iterations), got ", tolerance);
}

Cost parse_cost(const std::string& name) {
  if (name == "euclidean") {
    return Cost::euclidean;
  }
  if (name == "sqeuclidean") {
    return Cost::sqeuclidean;
  }
  SCAV_CHECK_VALUE(name == "cosine", "expected cost 'euclidean', 'sqeuclidean' or 'cosine', got '", name, "'");
  return Cost::cosine;
}

}  // namespace scav
