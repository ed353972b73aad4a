// Gradients of the sequences, or of the caller's costs, from the adjoint of a range of strips.
// Included once per SIMD level (foreach_level.h): no include guard.

namespace scav::SCAV_LEVEL {

// Steps whose weights are computed at a time: whole panels of every width.
inline constexpr int64_t kGradientSteps = 256;

// d out / d cost of some steps of one strip, row by row.
template <class T>
struct WeightTile {
  // Beside the steps, copies of whole ticks leave what is no part of the tile.
  static constexpr int64_t kStride = kGradientSteps + 2 * kStripRows<T> + 16;

  int64_t strip, step0, step1;
  T* rows;  // cell (row i of the strip, step0 + j) at rows[i * kStride + j]; 0 past the last step
};

// Parts of the steps: gradients of y need no lock.
inline int64_t gradient_parts(int64_t m) { return std::min(thread_count(), (m + kGradientSteps - 1) / kGradientSteps); }

// Calls f(part, tile) for the tiles of a range of strips. `copy(strip, step0, step1, rows, stride)` writes their
// weights.
template <class T, class Copy, class F>
void for_each_weight_tile(const WavefrontGrid<T>& grid, const StripRange& range, const Copy& copy, const F& f) {
  constexpr int64_t kRows = kStripRows<T>, kStride = WeightTile<T>::kStride;
  const int64_t tiles = (grid.m + kGradientSteps - 1) / kGradientSteps, parts = gradient_parts(grid.m);
  run_parts(parts, [&](int64_t part) {
    const Buffer<T> memory(kRows * kStride);
    for (int64_t strip = range.first; strip < range.end; ++strip) {
      const int64_t end_step = std::min(grid.m, grid.end_tick(strip));
      for (int64_t tile = tiles * part / parts; tile < tiles * (part + 1) / parts; ++tile) {
        const int64_t step0 = tile * kGradientSteps, step1 = std::min(step0 + kGradientSteps, grid.m);
        if (step0 >= end_step || step1 <= grid.first_tick(strip)) {
          continue;
        }
        std::fill_n(memory.data(), kRows * kStride, T(0));
        T* const rows = memory.data() + kRows;
        copy(strip, step0, step1, rows, kStride);
        f(part, WeightTile<T>{strip, step0, step1, rows});
      }
    }
  });
}

// Gradient of the rows of x in a range of strips, to which every part adds: by itself where there are several.
template <class T>
class RowGradients {
 public:
  // `dx` (rows, D), or null.
  RowGradients(T* dx, int64_t rows, int64_t dim, int64_t parts) : dx_(dx), size_(rows * dim), parts_(parts) {
    if (dx_ != nullptr && parts_ > 1) {
      copies_ = Buffer<T>(parts_ * size_);
      std::fill_n(copies_.data(), parts_ * size_, T(0));
    }
  }
  T* of(int64_t part) const { return copies_.data() ? copies_.data() + part * size_ : dx_; }
  void finish() const {
    for (int64_t part = 0; copies_.data() && part < parts_; ++part) {
      for (int64_t k = 0; k < size_; ++k) {
        dx_[k] += copies_[part * size_ + k];
      }
    }
  }

 private:
  T* dx_;
  int64_t size_, parts_;
  Buffer<T> copies_;
};

// Of costs that are computed from products.
template <class T, class Copy>
void add_gradient(const TileCosts<T, GroupCosts<T>>& costs, const StripRange& range, const Copy& copy,
                  const Adjoint<T>& to) {
  constexpr int64_t kRows = kStripRows<T>, kStride = WeightTile<T>::kStride;
  const GroupCosts<T>& source = costs.source;
  const int64_t width = source.columns() / source.panels(), dim = source.x.dim, first = range.first * kRows,
                parts = gradient_parts(costs.grid.m);
  const RowGradients<T> rows(to.dx ? to.dx + first * dim : nullptr, std::min(range.end * kRows, costs.grid.n) - first,
                             dim, parts);
  Buffer<T> memory(parts * kRows * kStride);
  for_each_weight_tile<T>(costs.grid, range, copy, [&](int64_t part, const WeightTile<T>& tile) {
    const int64_t row0 = tile.strip * kRows, row1 = row0 + costs.grid.rows_of(tile.strip), panel0 = tile.step0 / width,
                  panel1 = (tile.step1 + width - 1) / width;
    T* const cells = memory.data() + part * kRows * kStride - row0 * kStride;
    source.costs(panel0, panel1, row0, row1, cells, kStride);
    T* const dx = rows.of(part);
    source.adjoint(panel0, panel1, row0, row1, cells, tile.rows - row0 * kStride, kStride,
                   {dx ? dx - first * dim : nullptr, to.dy, to.dy_weights});
  });
  rows.finish();
}

// Of the caller's costs.
template <class T, class Copy>
void add_gradient(const TileCosts<T, MatrixCosts<T>>& costs, const StripRange& range, const Copy& copy,
                  const MatrixAdjoint<T>& to) {
  for_each_weight_tile<T>(costs.grid, range, copy, [&](int64_t, const WeightTile<T>& tile) {
    const int64_t row0 = tile.strip * kStripRows<T>;
    for (int64_t i = 0; i < costs.grid.rows_of(tile.strip); ++i) {
      std::copy_n(tile.rows + i * WeightTile<T>::kStride, tile.step1 - tile.step0,
                  to.cells + (row0 + i) * to.stride + tile.step0);
    }
  });
}

// Gradients of two sequences of few features.
template <class T>
struct DifferenceGradient {
  static constexpr int W = kWidth<T>;
  T *dx, *dy;  // (n, D), (m, D), or null
  int64_t dim, m, stride;
  Buffer<T> y, sums;  // (D, stride): the steps of y, and the sums of their gradients

  DifferenceGradient(const T* y_rows, int64_t features, int64_t steps, T* to_x, T* to_y)
      : dx(to_x), dy(to_y), dim(features), m(steps), stride((m + W - 1) / W * W), y(dim * stride), sums(dim * stride) {
    std::fill_n(y.data(), dim * stride, T(0));
    std::fill_n(sums.data(), dim * stride, T(0));
    for (int64_t t = 0; t < m; ++t) {
      for (int64_t k = 0; k < dim; ++k) {
        y[k * stride + t] = y_rows[t * dim + k];
      }
    }
  }
  void finish() const {
    for (int64_t t = 0; dy != nullptr && t < m; ++t) {
      for (int64_t k = 0; k < dim; ++k) {
        dy[t * dim + k] += sums[k * stride + t];
      }
    }
  }

  // Of one row of a tile, `x` and its gradient `to` (D,), or null.
  template <Cost kind>
  void add_row(const T* x, const T* weights, int64_t step0, int64_t step1, T* to) const {
    using V = Vec<T, W>;
    V total[kMaxDifferenceFeatures] = {};
    for (int64_t t = step0; t < step1; t += W) {
      V weight = load<T, W>(weights + t - step0), square{};
      V difference[kMaxDifferenceFeatures];
      for (int64_t k = 0; k < dim; ++k) {
        difference[k] = x[k] - load<T, W>(y.data() + k * stride + t);
        square += difference[k] * difference[k];
      }
      if constexpr (kind == Cost::euclidean) {
        const V root = dim == 1 ? vmax(difference[0], -difference[0]) : vsqrt<T, W>(square);
        weight = root > T(0) ? weight / root : V{};
      } else if constexpr (kind == Cost::sqeuclidean) {
        weight = T(2) * weight;
      }
      for (int64_t k = 0; k < dim; ++k) {
        T* const sum = sums.data() + k * stride + t;
        if constexpr (kind == Cost::cosine) {
          total[k] -= weight * load<T, W>(y.data() + k * stride + t);
          store<T, W>(sum, load<T, W>(sum) - weight * x[k]);
        } else {
          total[k] += weight * difference[k];
          store<T, W>(sum, load<T, W>(sum) - weight * difference[k]);
        }
      }
    }
    for (int64_t k = 0; to != nullptr && k < dim; ++k) {
      to[k] += horizontal_sum<T, W>(total[k]);
    }
  }
};

// Of costs from differences.
template <class T, class Copy>
void add_gradient(const DifferenceCosts<T>& costs, const StripRange& range, const Copy& copy,
                  const DifferenceGradient<T>& to) {
  constexpr int64_t kRows = kStripRows<T>;
  const int64_t dim = costs.dim, first = range.first * kRows;
  const RowGradients<T> rows(to.dx ? to.dx + first * dim : nullptr, std::min(range.end * kRows, costs.grid.n) - first,
                             dim, gradient_parts(costs.grid.m));
  for_each_weight_tile<T>(costs.grid, range, copy, [&](int64_t part, const WeightTile<T>& tile) {
    poll(kRows * (tile.step1 - tile.step0) * (4 * dim + 4));
    for (int64_t i = 0; i < costs.grid.rows_of(tile.strip); ++i) {
      T x[kMaxDifferenceFeatures];
      for (int64_t k = 0; k < dim; ++k) {
        x[k] = costs.x[(tile.strip * dim + k) * kRows + i];
      }
      const T* const weights = tile.rows + i * WeightTile<T>::kStride;
      T* const dx = rows.of(part);
      T* const to_row = dx ? dx + (tile.strip * kRows + i - first) * dim : nullptr;
      if (costs.kind == Cost::euclidean) {
        to.template add_row<Cost::euclidean>(x, weights, tile.step0, tile.step1, to_row);
      } else if (costs.kind == Cost::sqeuclidean) {
        to.template add_row<Cost::sqeuclidean>(x, weights, tile.step0, tile.step1, to_row);
      } else {
        to.template add_row<Cost::cosine>(x, weights, tile.step0, tile.step1, to_row);
      }
    }
  });
  rows.finish();
}

}  // namespace scav::SCAV_LEVEL
