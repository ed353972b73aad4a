#include "cpu/inputs.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "cpu/library_gemm.h"
#include "cpu/norms.h"
#include "cpu/parallel.h"
#include "cpu/torch_settings.h"
#include "shared/constants.h"

namespace scav {

namespace {
// Lets the system back large memory with pages of 2 MiB: most of the time of writing fresh memory goes into its pages.
void use_huge_pages([[maybe_unused]] void* memory, [[maybe_unused]] size_t bytes) {
#if defined(__linux__)
  constexpr uintptr_t kPage = uintptr_t(2) << 20;
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(memory) + kPage - 1) / kPage * kPage,
                  end = (reinterpret_cast<uintptr_t>(memory) + bytes) / kPage * kPage;
  if (begin < end) {
    // Advice: where it is not taken, nothing is lost.
    madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
  }
#endif
}

// Measures `count` sequences of a batch from number `first` on; `norms` may be undefined.
template <class T>
void measure_sequences(const Tensor& data, const Lengths& lengths, int64_t first, int64_t count, const Scratch& norms,
                       const Scratch& nonfinite) {
  const int64_t steps = data.size(1), dim = data.size(2);
  T* const to_norms = norms.data<T>();
  measure<T>(data.const_data_ptr<T>() + first * steps * dim, lengths.data() + first, count, steps, dim,
             to_norms == nullptr ? nullptr : to_norms + first * steps, nonfinite.data<T>() + first);
}

// In float64: the squares of large float32 features overflow.
template <class T>
double norm_of(const T* row, int64_t dim) {
  // Partial sums are independent of each other, and fill vectors.
  constexpr int64_t kPartial = 8;
  double partial[kPartial] = {};
  int64_t k = 0;
  for (; k + kPartial <= dim; k += kPartial) {
    for (int64_t lane = 0; lane < kPartial; ++lane) {
      const auto value = static_cast<double>(row[k + lane]);
      partial[lane] += value * value;
    }
  }
  for (; k < dim; ++k) {
    partial[0] += static_cast<double>(row[k]) * static_cast<double>(row[k]);
  }
  return std::sqrt(std::accumulate(partial, partial + kPartial, 0.0));
}

// Valid rows divided by their norms; padding zero.
template <class T>
Tensor unit_rows(const Tensor& data, const Lengths& lengths) {
  const int64_t steps = data.size(1), dim = data.size(2);
  Tensor result = zeros_like(data);
  const T* from = data.const_data_ptr<T>();
  T* to = result.mutable_data_ptr<T>();
  const int64_t* valid = lengths.data();
  run_ranges(data.size(0), [&](int64_t begin, int64_t end) {
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
void through_unit_rows(const Tensor& given, const Lengths& lengths, const Scratch& nonfinite, double largest,
                       Tensor& grad) {
  const int64_t steps = given.size(1), dim = given.size(2);
  const T* from = given.const_data_ptr<T>();
  T* g = grad.mutable_data_ptr<T>();
  const int64_t* valid = lengths.data();
  const T* bad = nonfinite.data<T>();
  run_ranges(given.size(0), [&](int64_t begin, int64_t end) {
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
  const int64_t batch_x = inputs.batch_x(), batch_y = inputs.batch_y();
  for (int64_t i = 0; i < batch_x; ++i) {
    if (inputs.paired) {
      f(i, i, i);
      continue;
    }
    for (int64_t j = 0; j < batch_y; ++j) {
      f(i, j, i * batch_y + j);
    }
  }
}

Tensor finish_gradient(const Tensor& given, const Lengths& lengths, const Scratch& nonfinite, Cost cost, Tensor grad,
                       const std::vector<char>& nonfinite_gradients) {
  if (!grad.defined()) {
    return new_nothing(given.scalar_type());
  }
  if (cost == Cost::cosine) {
    const Tensor raw = to_contiguous(to_dtype(given, grad.scalar_type()));
    const double largest = given.scalar_type() == kHalf
                               ? static_cast<double>(std::numeric_limits<torch::headeronly::Half>::max())
                               : std::numeric_limits<double>::infinity();
    SCAV_DISPATCH(grad.scalar_type(), [&] { through_unit_rows<scalar_t>(raw, lengths, nonfinite, largest, grad); });
  }
  const int64_t row = given.size(1) * given.size(2);
  SCAV_DISPATCH(grad.scalar_type(), [&] {
    scalar_t* rows = grad.mutable_data_ptr<scalar_t>();
    for (size_t b = 0; b < nonfinite_gradients.size(); ++b) {
      if (nonfinite_gradients[b]) {
        const auto index = static_cast<int64_t>(b);
        std::fill_n(rows + index * row, lengths.data()[index] * given.size(2),
                    std::numeric_limits<scalar_t>::quiet_NaN());
      }
    }
  });
  return to_dtype(grad, given.scalar_type());
}

}  // namespace

Tensor new_gradient(const Tensor& rows, bool needed) {
  if (!needed) {
    return Tensor();
  }
  Tensor gradient = new_empty(shape_of(rows), rows.scalar_type());
  SCAV_DISPATCH(rows.scalar_type(), [&] {
    scalar_t* numbers = gradient.mutable_data_ptr<scalar_t>();
    const int64_t count = gradient.numel();
    use_huge_pages(numbers, static_cast<size_t>(count) * sizeof(scalar_t));
    // A thread's first write brings memory in: as many do so as will add to it.
    constexpr int64_t kNumbers = int64_t(1) << 18;
    const int64_t ranges = (count + kNumbers - 1) / kNumbers;
    run_ranges(ranges, [&](int64_t begin, int64_t end) {
      std::fill(numbers + begin * kNumbers, numbers + std::min(end * kNumbers, count), scalar_t(0));
    });
  });
  return gradient;
}

std::vector<int64_t> Inputs::result_shape(std::vector<int64_t> tail) const {
  std::vector<int64_t> shape{batch_x()};
  if (!paired) {
    shape.push_back(batch_y());
  }
  shape.insert(shape.end(), tail.begin(), tail.end());
  return shape;
}

Inputs check_inputs(const char* op, const Tensor& x, const Tensor& y, const std::optional<Tensor>& x_lengths,
                    const std::optional<Tensor>& y_lengths, const std::string& cost, bool paired, RowUse use,
                    Measuring measuring) {
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
  const ScalarType dtype = accumulation_dtype(x);
  inputs.x = to_contiguous(to_dtype(x, dtype));
  inputs.y = to_contiguous(to_dtype(y, dtype));
  // Unit rows of bfloat16 rows are not bfloat16 numbers.
  const bool exact = x.scalar_type() == kBFloat16 && inputs.cost != Cost::cosine;
  const bool may_round = !exact && x.scalar_type() != kHalf && dtype == kFloat;
  inputs.in_bfloat16 =
      use == RowUse::multiplied && (exact || may_round) && has_bfloat16_gemm() && (exact || float32_may_be_bfloat16());
  SCAV_DISPATCH(dtype, [&] {
    if (inputs.cost == Cost::cosine) {
      inputs.x = unit_rows<scalar_t>(inputs.x, inputs.x_lengths);
      inputs.y = unit_rows<scalar_t>(inputs.y, inputs.y_lengths);
    }
    if (inputs.in_bfloat16 && !exact) {
      inputs.x = to_dtype(to_dtype(inputs.x, kBFloat16), dtype);
      inputs.y = to_dtype(to_dtype(inputs.y, kBFloat16), dtype);
    }
    inputs.x_nonfinite = Scratch::of<scalar_t>(x.size(0));
    inputs.y_nonfinite = Scratch::of<scalar_t>(y.size(0));
    // Pairs of resampled rows, costs from differences and cosines have no use for norms.
    const bool need_norms = use == RowUse::resampled
                                ? !paired
                                : inputs.cost != Cost::cosine && !has_difference_cells(inputs.cost, x.size(2));
    if (need_norms) {
      inputs.x_norms = Scratch::of<scalar_t>(x.size(0) * x.size(1));
      inputs.y_norms = Scratch::of<scalar_t>(y.size(0) * y.size(1));
    }
  });
  inputs.measured = false;
  if (!paired || measuring == Measuring::at_once) {
    measure_rows(inputs);
    inputs.measured = true;
  }
  return inputs;
}

void measure_rows(const Inputs& inputs) {
  if (inputs.measured) {
    return;
  }
  SCAV_DISPATCH(inputs.x.scalar_type(), [&] {
    measure_sequences<scalar_t>(inputs.x, inputs.x_lengths, 0, inputs.batch_x(), inputs.x_norms, inputs.x_nonfinite);
    measure_sequences<scalar_t>(inputs.y, inputs.y_lengths, 0, inputs.batch_y(), inputs.y_norms, inputs.y_nonfinite);
  });
}

template <class T>
void measure_pair(const Inputs& inputs, int64_t i) {
  measure_sequences<T>(inputs.x, inputs.x_lengths, i, 1, inputs.x_norms, inputs.x_nonfinite);
  measure_sequences<T>(inputs.y, inputs.y_lengths, i, 1, inputs.y_norms, inputs.y_nonfinite);
}

template void measure_pair<float>(const Inputs&, int64_t);
template void measure_pair<double>(const Inputs&, int64_t);

void spread_nonfinite(const Inputs& inputs, Tensor& result) {
  SCAV_DISPATCH(result.scalar_type(), [&] {
    const scalar_t* x = inputs.x_nonfinite.data<scalar_t>();
    const scalar_t* y = inputs.y_nonfinite.data<scalar_t>();
    scalar_t* out = result.mutable_data_ptr<scalar_t>();
    for_each_pair(inputs, [&](int64_t i, int64_t j, int64_t pair) {
      const scalar_t nonfinite = x[i] + y[j];
      if (nonfinite != 0) {
        out[pair] = nonfinite;
      }
    });
  });
}

NonfiniteGradients separate_nonfinite(const Inputs& inputs, Tensor grad) {
  NonfiniteGradients nonfinite_gradients{grad, std::vector<char>(static_cast<size_t>(inputs.batch_x())),
                                         std::vector<char>(static_cast<size_t>(inputs.batch_y()))};
  SCAV_DISPATCH(grad.scalar_type(), [&] {
    const scalar_t* x = inputs.x_nonfinite.data<scalar_t>();
    const scalar_t* y = inputs.y_nonfinite.data<scalar_t>();
    const scalar_t* given = grad.const_data_ptr<scalar_t>();
    scalar_t* cleaned = nullptr;
    for_each_pair(inputs, [&](int64_t i, int64_t j, int64_t pair) {
      if (x[i] + y[j] == 0) {
        return;
      }
      if (cleaned == nullptr) {
        nonfinite_gradients.grad = copy_of(grad);
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

std::tuple<Tensor, Tensor> finish_gradients(const Inputs& inputs, Tensor dx, Tensor dy,
                                            const NonfiniteGradients& nonfinite_gradients) {
  return {finish_gradient(inputs.x_given, inputs.x_lengths, inputs.x_nonfinite, inputs.cost, std::move(dx),
                          nonfinite_gradients.x),
          finish_gradient(inputs.y_given, inputs.y_lengths, inputs.y_nonfinite, inputs.cost, std::move(dy),
                          nonfinite_gradients.y)};
}

}  // namespace scav
