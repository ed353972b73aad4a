#pragma once
// Ops of torch that its stable C++ API lacks, through the dispatcher. None waits for the device.

#include "shared/tensor.h"

namespace scav::device {

// out = a b, or of each pair of matrices of two batches; accumulated in out's dtype, which may be wider.
void multiply(Tensor& out, const Tensor& a, const Tensor& b);

Tensor narrow(const Tensor& tensor, int64_t axis, int64_t start, int64_t length);
Tensor add(const Tensor& a, const Tensor& b);
// condition ? a : b, which may be broadcast.
Tensor where(const Tensor& condition, const Tensor& a, const Tensor& b);
// `tensor` where the condition holds, else 0.
Tensor zero_unless(const Tensor& condition, const Tensor& tensor);
Tensor logical_and(const Tensor& a, const Tensor& b);
// True where the value is 0.
Tensor logical_not(const Tensor& tensor);
Tensor is_infinite(const Tensor& tensor);
// True where any value along the axis is.
Tensor any(const Tensor& tensor, int64_t axis);
Tensor clamp(const Tensor& integers, int64_t low, int64_t high);

}  // namespace scav::device
