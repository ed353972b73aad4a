#pragma once
// Inputs of every op, checked once, in the form that the kernels read.

#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "shared/checks.h"

namespace scav {

// Up to so many features, differences cost less than the product of the rows.
inline constexpr int64_t kFewFeatures = 16;

// True if a cost's cells are computed from differences where they are stored. A cosine has no near cells, and is as
// good from products.
inline bool has_difference_cells(Cost cost, int64_t dim) { return cost != Cost::cosine && dim <= kFewFeatures; }

// A padded batch of sequences as the kernels see it: (batch, steps, dim), contiguous, in the dtype of accumulation.
template <class T>
struct Sequences {
  const T* data;
  const int64_t* lengths;  // (batch,) valid steps
  int64_t batch, steps, dim;
  const T* norms;      // (batch, steps) squared Euclidean norms of the valid steps; null where no kernel reads them
  const T* nonfinite;  // (batch,) 0, or the inf or NaN in a valid step, which all distances of the sequence become

  const T* row(int64_t b, int64_t step) const { return data + (b * steps + step) * dim; }
  const T* norm(int64_t b, int64_t step) const { return norms + b * steps + step; }
};

struct Inputs {
  Tensor x, y;                   // (B1, N, D), (B2, M, D): contiguous, float32 or float64; unit rows for cosine
  Lengths x_lengths, y_lengths;  // (B1,), (B2,) int64
  Scratch x_norms, y_norms, x_nonfinite, y_nonfinite;
  Tensor x_given, y_given;  // as the caller passed them
  Cost cost;
  bool paired;
  bool in_bfloat16;  // whether the rows of x and y are bfloat16 numbers, to be multiplied as such
  bool measured;     // whether the norms and x_nonfinite, y_nonfinite are written

  int64_t batch_x() const { return x.size(0); }
  int64_t batch_y() const { return y.size(0); }
  int64_t steps_x() const { return x.size(1); }
  int64_t steps_y() const { return y.size(1); }
  // (B1, B2), or (B,) when paired, followed by `tail`.
  std::vector<int64_t> result_shape(std::vector<int64_t> tail = {}) const;
  Tensor new_result() const { return new_empty(result_shape(), x.scalar_type()); }
  bool empty() const { return batch_x() == 0 || batch_y() == 0; }

  template <class T>
  Sequences<T> sequences_x() const {
    return view<T>(x, x_lengths, x_norms, x_nonfinite);
  }
  template <class T>
  Sequences<T> sequences_y() const {
    return view<T>(y, y_lengths, y_norms, y_nonfinite);
  }

 private:
  template <class T>
  static Sequences<T> view(const Tensor& data, const Lengths& lengths, const Scratch& norms, const Scratch& nonfinite) {
    return {data.const_data_ptr<T>(), lengths.data(),     data.size(0), data.size(1), data.size(2),
            norms.data<T>(),          nonfinite.data<T>()};
  }
};

// What an op does with the rows.
enum class RowUse {
  multiplied,  // computes costs of all steps
  resampled,   // compares or multiplies them once they are resampled
};

// When rows are measured.
enum class Measuring {
  at_once,
  by_pair,  // pairs of their own each before it is computed, so that its rows are read from memory once
};

// Where the CPU multiplies bfloat16 and the user lets float32 products use it (float32_matmul_precision "medium"), rows
// are rounded to bfloat16 here, and all that follows is that of the rounded rows. Not where the rows are resampled
// before they are multiplied.
Inputs check_inputs(const char* op, const Tensor& x, const Tensor& y, const std::optional<Tensor>& x_lengths,
                    const std::optional<Tensor>& y_lengths, const std::string& cost, bool paired,
                    RowUse use = RowUse::multiplied, Measuring measuring = Measuring::at_once);

// Measure all rows of inputs that are not measured, or those of pair number i.
void measure_rows(const Inputs& inputs);
template <class T>
void measure_pair(const Inputs& inputs, int64_t i);

// Results of pairs that hold inf or NaN become that inf or NaN.
void spread_nonfinite(const Inputs& inputs, Tensor& result);

// Zeros like the rows that the kernels read, for a gradient to be added to; undefined unless needed.
Tensor new_gradient(const Tensor& rows, bool needed);

// Sequences that receive NaN gradients: those of nonfinite pairs whose gradient is not zero. Such pairs' gradients are
// zero in `grad`, so that they touch nothing else.
struct NonfiniteGradients {
  Tensor grad;
  std::vector<char> x, y;
};
NonfiniteGradients separate_nonfinite(const Inputs& inputs, Tensor grad);

// Gradients with respect to the rows that the kernels read become gradients with respect to the caller's tensors:
// through the normalization of the cosine, NaN for sequences marked in `nonfinite_gradients`, in the caller's dtype.
// An undefined gradient, which is not needed, becomes an empty tensor.
std::tuple<Tensor, Tensor> finish_gradients(const Inputs& inputs, Tensor dx, Tensor dy,
                                            const NonfiniteGradients& nonfinite_gradients);

}  // namespace scav
