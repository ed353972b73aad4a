#include "cpu/inputs.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/library_gemm.h"
#include "cpu/parallel.h"
#include "shared/constants.h"

namespace scav {

namespace {
template <class T>
void measure(const at::Tensor& data, const at::Tensor& lengths, at::Tensor& norms, at::Tensor& nonfinite) {
  const int64_t batch = data.size(0), steps = data.size(1), dim = data.size(2);
  norms = at::empty({batch, steps}, data.options());
  nonfinite = at::zeros({batch}, data.options());
  const T* from = data.const_data_ptr<T>();
  const int64_t* valid = lengths.const_data_ptr<int64_t>();
  T* norm = norms.mutable_data_ptr<T>();
  T* bad = nonfinite.mutable_data_ptr<T>();
  at::parallel_for(0, batch, 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      for (int64_t s = 0; s < valid[b]; ++s) {
        // Sixteen partial sums: the order that vector units take, whatever their width.
        constexpr int64_t kLanes = 16;
        const T* row = from + (b * steps + s) * dim;
        T partial[kLanes] = {};
        int64_t k = 0;
        for (; k + kLanes <= dim; k += kLanes) {
          for (int64_t lane = 0; lane < kLanes; ++lane) {
            partial[lane] += row[k + lane] * row[k + lane];
          }
        }
        T sum = 0;
        for (; k < dim; ++k) {
          sum += row[k] * row[k];
        }
        for (T part : partial) {
          sum += part;
        }
        norm[b * steps + s] = sum;
        if (!std::isfinite(sum) && !std::isnan(bad[b])) {
          bad[b] = sum;
        }
      }
    }
  });
}

// In float64: the squares of large float32 features overflow.
template <class T>
double norm_of(const T* row, int64_t dim) {
  double sum = 0;
  for (int64_t k = 0; k < dim; ++k) {
    sum += static_cast<double>(row[k]) * static_cast<double>(row[k]);
  }
  return std::sqrt(sum);
}

// Valid rows divided by their norms; padding zero.
template <class T>
at::Tensor unit_rows(const at::Tensor& data, const at::Tensor& lengths) {
  const int64_t steps = data.size(1), dim = data.size(2);
  at::Tensor result = at::zeros_like(data);
  const T* from = data.const_data_ptr<T>();
  T* to = result.mutable_data_ptr<T>();
  const int64_t* valid = lengths.const_data_ptr<int64_t>();
  at::parallel_for(0, data.size(0), 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      for (int64_t row = b * steps; row < b * steps + valid[b]; ++row) {
        const T scale = static_cast<T>(1 / std::max(norm_of(from + row * dim, dim), kSmallestNorm));
        for (int64_t k = 0; k < dim; ++k) {
          to[row * dim + k] = from[row * dim + k] * scale;
        }
      }
    }
  });
  return result;
}

// d/dx of <g, x / |x|>: the part of g across x, over |x|; 0 where |x| is below kSmallestNorm, or is so small that the
// caller's dtype, whose largest number is `largest`, does not hold it. In place on valid rows; nonfinite sequences,
// whose gradients finish_gradient sets, are left alone.
template <class T>
void through_unit_rows(const at::Tensor& given, const at::Tensor& lengths, const at::Tensor& nonfinite, double largest,
                       at::Tensor& grad) {
  const int64_t steps = given.size(1), dim = given.size(2);
  const T* from = given.const_data_ptr<T>();
  T* g = grad.mutable_data_ptr<T>();
  const int64_t* valid = lengths.const_data_ptr<int64_t>();
  const T* bad = nonfinite.const_data_ptr<T>();
  at::parallel_for(0, given.size(0), 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      if (bad[b] != 0) {
        continue;
      }
      for (int64_t row = b * steps; row < b * steps + valid[b]; ++row) {
        T* const out = g + row * dim;
        const double norm = norm_of(from + row * dim, dim);
        if (norm < kSmallestNorm) {
          std::fill_n(out, dim, T(0));
          continue;
        }
        const T scale = static_cast<T>(1 / norm);
        const auto unit = [&](int64_t k) { return from[row * dim + k] * scale; };
        T along = 0;
        for (int64_t k = 0; k < dim; ++k) {
          along += out[k] * unit(k);
        }
        for (int64_t k = 0; k < dim; ++k) {
          out[k] = (out[k] - along * unit(k)) * scale;
        }
        // Only gradients that the division made large: others overflow as they do everywhere.
        if (norm * largest < 1 && std::any_of(out, out + dim, [&](T value) { return std::abs(value) > largest; })) {
          std::fill_n(out, dim, T(0));
        }
      }
    }
  });
}

// Calls f(index of x, index of y, index of the result).
template <class F>
void for_each_pair(const Inputs& inputs, const F& f) {
  for (int64_t i = 0; i < inputs.batch_x(); ++i) {
    if (inputs.paired) {
      f(i, i, i);
      continue;
    }
    for (int64_t j = 0; j < inputs.batch_y(); ++j) {
      f(i, j, i * inputs.batch_y() + j);
    }
  }
}

at::Tensor finish_gradient(const at::Tensor& given, const at::Tensor& lengths, const at::Tensor& nonfinite, Cost cost,
                           at::Tensor grad, const std::vector<char>& nonfinite_gradients) {
  if (!grad.defined()) {
    return at::empty({0}, given.options());
  }
  if (cost == Cost::cosine) {
    const at::Tensor raw = given.detach().to(grad.scalar_type()).contiguous();
    const double largest = given.scalar_type() == at::kHalf ? static_cast<double>(std::numeric_limits<at::Half>::max())
                                                            : std::numeric_limits<double>::infinity();
    AT_DISPATCH_FLOATING_TYPES(grad.scalar_type(), "finish_gradient",
                               [&] { through_unit_rows<scalar_t>(raw, lengths, nonfinite, largest, grad); });
  }
  for (size_t b = 0; b < nonfinite_gradients.size(); ++b) {
    if (nonfinite_gradients[b]) {
      const auto index = static_cast<int64_t>(b);
      grad.select(0, index)
          .narrow(0, 0, lengths.const_data_ptr<int64_t>()[index])
          .fill_(std::numeric_limits<double>::quiet_NaN());
    }
  }
  return grad.to(given.scalar_type());
}

// Set by torch.set_float32_matmul_precision("medium") and torch.backends.mkldnn.matmul.fp32_precision = "bf16".
bool float32_may_be_bfloat16() {
  return at::globalContext().float32Precision(at::Float32Backend::MKLDNN, at::Float32Op::MATMUL) ==
         at::Float32Precision::BF16;
}

}  // namespace

std::vector<int64_t> Inputs::result_shape(std::vector<int64_t> tail) const {
  std::vector<int64_t> shape{batch_x()};
  if (!paired) {
    shape.push_back(batch_y());
  }
  shape.insert(shape.end(), tail.begin(), tail.end());
  return shape;
}

Inputs check_inputs(const char* op, const at::Tensor& x, const at::Tensor& y,
                    const std::optional<at::Tensor>& x_lengths, const std::optional<at::Tensor>& y_lengths,
                    const std::string& cost, bool paired, bool resampled) {
  leave_threads_behind_after_fork();
  check_pairs(op, x, y, x_lengths, y_lengths, paired);
  check_cpu(op, "x", x);
  Inputs inputs;
  inputs.cost = parse_cost(cost);
  inputs.paired = paired;
  inputs.x_given = x;
  inputs.y_given = y;
  inputs.x_lengths = check_lengths(op, "x_lengths", x_lengths, x.size(0), x.size(1));
  inputs.y_lengths = check_lengths(op, "y_lengths", y_lengths, y.size(0), y.size(1));
  const at::ScalarType dtype = accumulation_dtype(x);
  inputs.x = x.detach().to(dtype).contiguous();
  inputs.y = y.detach().to(dtype).contiguous();
  // Unit rows of bfloat16 rows are not bfloat16 numbers.
  const bool exact = x.scalar_type() == at::kBFloat16 && inputs.cost != Cost::cosine;
  const bool rounded = !exact && dtype == at::kFloat && x.scalar_type() != at::kHalf && float32_may_be_bfloat16();
  inputs.in_bfloat16 = !resampled && (exact || rounded) && has_bfloat16_gemm();
  AT_DISPATCH_FLOATING_TYPES(dtype, "check_inputs", [&] {
    if (inputs.cost == Cost::cosine) {
      inputs.x = unit_rows<scalar_t>(inputs.x, inputs.x_lengths);
      inputs.y = unit_rows<scalar_t>(inputs.y, inputs.y_lengths);
    }
    if (inputs.in_bfloat16 && rounded) {
      inputs.x = inputs.x.to(at::kBFloat16).to(dtype);
      inputs.y = inputs.y.to(at::kBFloat16).to(dtype);
    }
    measure<scalar_t>(inputs.x, inputs.x_lengths, inputs.x_norms, inputs.x_nonfinite);
    measure<scalar_t>(inputs.y, inputs.y_lengths, inputs.y_norms, inputs.y_nonfinite);
  });
  return inputs;
}

void spread_nonfinite(const Inputs& inputs, at::Tensor& result) {
  AT_DISPATCH_FLOATING_TYPES(result.scalar_type(), "spread_nonfinite", [&] {
    const scalar_t* x = inputs.x_nonfinite.const_data_ptr<scalar_t>();
    const scalar_t* y = inputs.y_nonfinite.const_data_ptr<scalar_t>();
    scalar_t* out = result.mutable_data_ptr<scalar_t>();
    for_each_pair(inputs, [&](int64_t i, int64_t j, int64_t pair) {
      const scalar_t nonfinite = x[i] + y[j];
      if (nonfinite != 0) {
        out[pair] = nonfinite;
      }
    });
  });
}

NonfiniteGradients separate_nonfinite(const Inputs& inputs, at::Tensor grad) {
  NonfiniteGradients nonfinite_gradients{grad, std::vector<char>(static_cast<size_t>(inputs.batch_x())),
                                         std::vector<char>(static_cast<size_t>(inputs.batch_y()))};
  AT_DISPATCH_FLOATING_TYPES(grad.scalar_type(), "separate_nonfinite", [&] {
    const scalar_t* x = inputs.x_nonfinite.const_data_ptr<scalar_t>();
    const scalar_t* y = inputs.y_nonfinite.const_data_ptr<scalar_t>();
    const scalar_t* given = grad.const_data_ptr<scalar_t>();
    scalar_t* cleaned = nullptr;
    for_each_pair(inputs, [&](int64_t i, int64_t j, int64_t pair) {
      if (x[i] + y[j] == 0) {
        return;
      }
      if (cleaned == nullptr) {
        nonfinite_gradients.grad = grad.clone();
        cleaned = nonfinite_gradients.grad.mutable_data_ptr<scalar_t>();
      }
      if (given[pair] != 0) {
        nonfinite_gradients.x[static_cast<size_t>(i)] = nonfinite_gradients.y[static_cast<size_t>(j)] = 1;
      }
      cleaned[pair] = 0;
    });
  });
  return nonfinite_gradients;
}

std::tuple<at::Tensor, at::Tensor> finish_gradients(const Inputs& inputs, at::Tensor dx, at::Tensor dy,
                                                    const NonfiniteGradients& nonfinite_gradients) {
  return {finish_gradient(inputs.x_given, inputs.x_lengths, inputs.x_nonfinite, inputs.cost, std::move(dx),
                          nonfinite_gradients.x),
          finish_gradient(inputs.y_given, inputs.y_lengths, inputs.y_nonfinite, inputs.cost, std::move(dy),
                          nonfinite_gradients.y)};
}

}  // namespace scav
