#pragma once
// Checks that every op shares. They throw ValueError, TypeError or RuntimeError, which say what was expected,
// what was received and how to fix it.

#include <algorithm>
#include <optional>
#include <string>

#include "shared/scratch.h"

namespace scav {

enum class Cost { euclidean, sqeuclidean, cosine };

Cost parse_cost(const std::string& name);

// float32, float64, float16 or bfloat16.
void check_floating(const char* op, const char* name, const Tensor& value);

// The dtype in which values of a checked dtype are accumulated.
ScalarType accumulation_dtype(const Tensor& value);

// x (B1, N, D) and y (B2, M, D) of one dtype, D and device, of at least one step and feature, and of equally many
// sequences where `paired`; their lengths' dtype, shape and device.
void check_pairs(const char* op, const Tensor& x, const Tensor& y, const std::optional<Tensor>& x_lengths,
                 const std::optional<Tensor>& y_lengths, bool paired);

// cost (B1, B2, N, M), or (B, N, M) of pairs, of a step at least on each side; its lengths' dtype, shape and device.
void check_grid(const char* op, const Tensor& cost, const std::optional<Tensor>& x_lengths,
                const std::optional<Tensor>& y_lengths);

void check_cpu(const char* op, const char* name, const Tensor& value);

// Valid steps of the sequences of a batch, on the CPU.
class Lengths {
 public:
  Lengths() = default;
  // (B,) int64
  explicit Lengths(const Tensor& given) : given_(to_contiguous(given)), size_(given.size(0)) {}
  // Of sequences without padding.
  Lengths(int64_t batch, int64_t steps) : all_(batch), size_(batch) { std::fill_n(all_.data(), batch, steps); }
  const int64_t* data() const { return given_.defined() ? given_.const_data_ptr<int64_t>() : all_.data(); }
  int64_t size() const { return size_; }

 private:
  Tensor given_;
  Buffer<int64_t> all_;
  int64_t size_ = 0;
};

// Checked lengths, between 1 and `steps`; all steps where there are none.
Lengths check_lengths(const char* op, const char* name, const std::optional<Tensor>& lengths, int64_t batch,
                      int64_t steps);

// `grad` of a result of this shape, of a floating-point dtype: contiguous, in the dtype of accumulation.
Tensor check_grad(const char* op, const Shape& shape, ScalarType dtype, const Device& device, const Tensor& grad);

// `value` has this shape, dtype and device; `name` is the argument's.
void check_saved(const char* op, const char* name, const Tensor& value, const Shape& shape, ScalarType dtype,
                 const Device& device);

// A Sakoe-Chiba radius in steps is at least 0.
void check_band(const char* op, std::optional<int64_t> band);

// A positive number that leaves the range of `dtype` neither itself nor as its inverse, nor in sums along a path.
void check_positive(const char* op, const char* name, double value, ScalarType dtype);

void check_iterations(const char* op, int64_t max_iterations, double tolerance);

}  // namespace scav
