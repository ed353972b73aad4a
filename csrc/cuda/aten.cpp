#include "cuda/aten.h"

#include <torch/csrc/stable/ops.h>

namespace scav::device {

namespace {

// The result of an op, given all of its arguments.
template <class... Arguments>
Tensor call(const char* op, const char* overload, const Arguments&... arguments) {
  std::array<StableIValue, sizeof...(Arguments)> stack{torch::stable::detail::from(arguments)...};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher(op, overload, stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}

}  // namespace

void multiply(Tensor& out, const Tensor& a, const Tensor& b) {
  const char* const op = a.dim() == 3 ? "aten::bmm" : "aten::mm";
  const ScalarType dtype = out.scalar_type();
  if (a.scalar_type() == dtype) {
    call(op, "out", a, b, out);
    return;
  }
#if defined(SCAV_SIMT)
  // A CPU has no products that widen.
  call(op, "out", to_dtype(a, dtype), to_dtype(b, dtype), out);
#else
  call(op, "dtype_out", a, b, dtype, out);
#endif
}

Tensor narrow(const Tensor& tensor, int64_t axis, int64_t start, int64_t length) {
  return call("aten::narrow", "", tensor, axis, start, length);
}

Tensor add(const Tensor& a, const Tensor& b) { return torch::stable::subtract(a, b, -1); }

Tensor where(const Tensor& condition, const Tensor& a, const Tensor& b) {
  return call("aten::where", "self", condition, a, b);
}

Tensor zero_unless(const Tensor& condition, const Tensor& tensor) {
  return where(condition, tensor, new_zeros({}, tensor.scalar_type(), tensor.device()));
}

Tensor logical_and(const Tensor& a, const Tensor& b) { return call("aten::logical_and", "", a, b); }

Tensor logical_not(const Tensor& tensor) { return call("aten::logical_not", "", tensor); }

Tensor is_infinite(const Tensor& tensor) { return call("aten::isinf", "", tensor); }

Tensor any(const Tensor& tensor, int64_t axis) { return call("aten::any", "dim", tensor, axis, false); }

Tensor clamp(const Tensor& integers, int64_t low, int64_t high) {
  const auto bound = [&](int64_t value) {
    return std::optional(new_full({}, static_cast<double>(value), integers.scalar_type(), integers.device()));
  };
  return call("aten::clamp", "Tensor", integers, bound(low), bound(high));
}

}  // namespace scav::device
