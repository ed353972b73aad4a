#pragma once
// Checks that every op shares. They throw ValueError, TypeError or RuntimeError, saying what was expected, what came
// and how to fix it.

#include <ATen/ATen.h>

#include <optional>
#include <string>

namespace scav {

// "(2, 3)"
std::string shape_of(const at::Tensor& tensor);

// float32, float64, float16 or bfloat16.
void check_floating(const char* op, const char* name, const at::Tensor& value);

// The dtype in which values of a checked dtype are accumulated.
at::ScalarType accumulation_dtype(const at::Tensor& value);

void check_cpu(const char* op, const char* name, const at::Tensor& value);

// (batch,) int64 valid steps between 1 and `steps`, contiguous; all steps where there are none.
at::Tensor check_lengths(const char* op, const char* name, const std::optional<at::Tensor>& lengths, int64_t batch,
                         int64_t steps);

// `grad` of a result of this shape, of a floating-point dtype: contiguous, in the dtype of accumulation.
at::Tensor check_grad(const char* op, at::IntArrayRef shape, at::ScalarType dtype, const at::Tensor& grad);

// `value` has this shape, dtype and sits on the CPU; `name` is the argument's.
void check_saved(const char* op, const char* name, const at::Tensor& value, at::IntArrayRef shape,
                 at::ScalarType dtype);

// A Sakoe-Chiba radius in steps is at least 0.
void check_band(const char* op, std::optional<int64_t> band);

// A positive number that leaves the range of `dtype` neither itself nor as its inverse, nor in sums along a path.
void check_positive(const char* op, const char* name, double value, at::ScalarType dtype);

void check_iterations(const char* op, int64_t max_iterations, double tolerance);

}  // namespace scav
