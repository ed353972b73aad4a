// Ground costs of one x against one group of y's, and their adjoint, which connect products to reducers.
// Included once per SIMD level (foreach_level.h): no include guard.

namespace scav::SCAV_LEVEL {

// Costs of the steps of x number `b` (rows) against the columns of a group.
template <class T>
struct GroupCosts {
  const Sequences<T>& x;
  const Packed<T>& packed;
  const Group& group;
  Cost cost;
  int64_t b;
  const uint32_t* x_words;  // (batch, steps, words_of(D)), or null where the products are of T

  // True if a cost may be infinite, which forbids paths through its cell.
  static constexpr bool kForbids = false;

  int64_t rows() const { return x.lengths[b]; }
  int64_t steps() const { return group.steps; }
  int64_t panels() const { return group.panels(); }
  int64_t columns() const { return group.columns; }
  // True if x or the group's first y holds inf or NaN.
  bool is_nonfinite() const { return x.nonfinite[b] + packed.y->nonfinite[packed.index(group, 0)] != 0; }

  // Costs of rows [row0, row1) against panels [panel0, panel1): row s goes to out + s * stride.
  void costs(int64_t panel0, int64_t panel1, int64_t row0, int64_t row1, T* out, int64_t stride) const {
    const int64_t width = group.panel;
    for (int64_t panel = panel0; panel < panel1; ++panel, out += width) {
      const int64_t column = group.column + panel * width;
      poll(width * (row1 - row0) * (x.dim + 1));
      if (has_difference_cells(cost, x.dim)) {
        difference_cells<T>(x.row(b, row0), packed.panels.data() + column * x.dim, row1 - row0, x.dim, width,
                            cost == Cost::euclidean, out + row0 * stride, stride);
        continue;
      }
      products(column, row0, row1, out + row0 * stride, stride);
      for (int64_t s = row0; s < row1; ++s) {
        if (cost == Cost::euclidean) {
          finish_row<Cost::euclidean>(s, column, out + s * stride);
        } else if (cost == Cost::sqeuclidean) {
          finish_row<Cost::sqeuclidean>(s, column, out + s * stride);
        } else {
          finish_row<Cost::cosine>(s, column, out + s * stride);
        }
      }
    }
  }

  // Adds the gradients of x and the y's from `weights` = d out / d cost, of rows [row0, row1) and panels [panel0,
  // panel1).
  // `costs` are those of the forward; `weights` is overwritten.
  void adjoint(int64_t panel0, int64_t panel1, int64_t row0, int64_t row1, const T* costs, T* weights, int64_t stride,
               const Adjoint<T>& to) const {
    const int64_t width = group.panel, dim = x.dim, count = row1 - row0;
    Buffer<T> transposed(to.dy ? width * count : 0);
    for (int64_t panel = panel0; panel < panel1; ++panel) {
      const int64_t at = (panel - panel0) * width, column = group.column + panel * width;
      poll(2 * width * count * (dim + 1));
      if (has_difference_cells(cost, dim)) {
        difference_adjoint<T>(x.row(b, row0), packed.panels.data() + column * dim, count, dim, width,
                              cost == Cost::euclidean, costs + row0 * stride + at, weights + row0 * stride + at, stride,
                              to.dx ? to.dx + row0 * dim : nullptr, to.dy ? to.dy + column * dim : nullptr);
        continue;
      }
      for (int64_t s = row0; s < row1; ++s) {
        row_weights(s, panel, costs + s * stride + at, weights + s * stride + at, to);
      }
      if (to.dy != nullptr) {
        transpose<T>(
            count, width, [&](int64_t s) { return weights + (row0 + s) * stride + at; },
            [&](int64_t j) { return transposed.data() + j * count; });
        gemm<T>(width, dim, count, count, dim, dim, true, transposed.data(), x.row(b, row0), to.dy + column * dim);
      }
      // A panel at a time: gemm() expects operands that fit in cache.
      if (to.dx != nullptr) {
        gemm<T>(count, dim, width, stride, dim, dim, true, weights + row0 * stride + at,
                packed.rows.data() + column * dim, to.dx + row0 * dim);
      }
    }
  }

 private:
  // <x, y> of rows [row0, row1) against the panel at `column`: row s goes to out + (s - row0) * stride.
  void products(int64_t column, int64_t row0, int64_t row1, T* out, int64_t stride) const {
    const int64_t width = group.panel, dim = x.dim, count = row1 - row0;
    if constexpr (std::is_same_v<T, float>) {
      if (x_words != nullptr) {
        const int64_t words = words_of(dim);
        if (count > 0) {
          bfloat16_gemm(count, width, words, words, width, stride, x_words + (b * x.steps + row0) * words,
                        packed.words.data() + column * words, out);
        }
        return;
      }
    }
    gemm<T>(count, width, dim, dim, width, stride, false, x.row(b, row0), packed.panels.data() + column * dim, out);
  }

  // Feature k of the y's from number `j` of the panel at `column`.
  template <int W>
  Vec<T, W> feature(int64_t column, int64_t j, int64_t k) const {
    if constexpr (std::is_same_v<T, float>) {
      if (x_words != nullptr) {
        const uint32_t* words = packed.words.data() + column * words_of(x.dim) + k / 2 * group.panel + j;
        const Vec<uint32_t, W> both = load<uint32_t, W>(words);
        return bits_as<Vec<T, W>>(k % 2 == 0 ? both << 16 : both >> 16 << 16);
      }
    }
    return load<T, W>(packed.panels.data() + column * x.dim + k * group.panel + j);
  }

  // Products of one row to costs, in place.
  template <Cost kind>
  void finish_row(int64_t s, int64_t column, T* out) const {
    constexpr int w = kWidth<T>;
    const T* y_norms = packed.norms.data() + column;
    if constexpr (kind == Cost::cosine) {
      for (int64_t j = 0; j < group.panel; j += w) {
        store<T, w>(out + j, T(1) - load<T, w>(out + j));
      }
    } else {
      const T x_norm = *x.norm(b, s);
      Vec<T, w> slack{};
      for (int64_t j = 0; j < group.panel; j += w) {
        const Vec<T, w> sum = load<T, w>(y_norms + j) + x_norm;
        const Vec<T, w> square = sum - T(2) * load<T, w>(out + j);
        slack = vmin(slack, square - kNear<T> * sum);
        store<T, w>(out + j, kind == Cost::euclidean ? vsqrt<T, w>(square) : square);
      }
      if (any_negative<T, w>(slack)) {
        recompute_near(s, column, out, kind == Cost::euclidean);
      }
    }
  }

  __attribute__((noinline)) void recompute_near(int64_t s, int64_t column, T* out, bool root) const {
    constexpr int w = kWidth<T>;
    const T *row = x.row(b, s), *y_norms = packed.norms.data() + column;
    const T x_norm = *x.norm(b, s);
    for (int64_t j = 0; j < group.panel; j += w) {
      const Vec<T, w> sum = load<T, w>(y_norms + j) + x_norm;
      const Vec<T, w> old = load<T, w>(out + j);
      const Vec<T, w> square = root ? old * old : old;
      // The root of a negative square is NaN, which no comparison holds for.
      const auto far = square >= kNear<T> * sum;
      bool any = false;
      for (int lane = 0; lane < w; ++lane) {
        any |= far[lane] == 0;
      }
      if (!any) {
        continue;
      }
      Vec<T, w> direct{};
      for (int64_t k = 0; k < x.dim; ++k) {
        const Vec<T, w> difference = row[k] - feature<w>(column, j, k);
        direct += difference * difference;
      }
      store<T, w>(out + j, far ? old : (root ? vsqrt<T, w>(direct) : direct));
    }
  }

  // Weights of one row to the factors of the two products, in place: -w, where dx = x sum(w) - sum(w y).
  void row_weights(int64_t s, int64_t panel, const T* costs, T* weights, const Adjoint<T>& to) const {
    constexpr int w = kWidth<T>;
    const int64_t column = group.column + panel * group.panel;
    if (cost == Cost::cosine) {
      for (int64_t j = 0; j < group.panel; j += w) {
        store<T, w>(weights + j, -load<T, w>(weights + j));
      }
      return;
    }
    const bool root = cost == Cost::euclidean;
    const T x_norm = *x.norm(b, s);
    const T* y_norms = packed.norms.data() + column;
    Vec<T, w> slack{};
    for (int64_t j = 0; j < group.panel; j += w) {
      const Vec<T, w> c = load<T, w>(costs + j), weight = load<T, w>(weights + j);
      const Vec<T, w> sum = load<T, w>(y_norms + j) + x_norm;
      slack = vmin(slack, (root ? c * c : c) - kNear<T> * sum);
      store<T, w>(weights + j, root ? (c > T(0) ? weight / c : Vec<T, w>{}) : T(2) * weight);
    }
    if (any_negative<T, w>(slack)) {
      adjoint_near(s, column, costs, weights, to);
    }
    Vec<T, w> total{};
    for (int64_t j = 0; j < group.panel; j += w) {
      const Vec<T, w> factor = load<T, w>(weights + j);
      total += factor;
      if (to.dy != nullptr) {
        store<T, w>(to.dy_weights + column + j, load<T, w>(to.dy_weights + column + j) + factor);
      }
      store<T, w>(weights + j, -factor);
    }
    if (to.dx == nullptr) {
      return;
    }
    const T along = horizontal_sum<T, w>(total);
    const T* row = x.row(b, s);
    T* dx = to.dx + s * x.dim;
    for (int64_t k = 0; k < x.dim; ++k) {
      dx[k] += along * row[k];
    }
  }

  // Near cells' gradients from the difference of the rows; their weights become zero.
  __attribute__((noinline)) void adjoint_near(int64_t s, int64_t column, const T* costs, T* weights,
                                              const Adjoint<T>& to) const {
    const T* row = x.row(b, s);
    for (int64_t j = 0; j < group.panel; ++j) {
      const T sum = packed.norms[column + j] + *x.norm(b, s);
      const T square = cost == Cost::euclidean ? costs[j] * costs[j] : costs[j];
      if (square >= kNear<T> * sum) {
        continue;
      }
      const T factor = weights[j];
      weights[j] = 0;
      if (factor == 0) {
        continue;
      }
      const T* y_row = packed.rows.data() + (column + j) * x.dim;
      for (int64_t k = 0; to.dx != nullptr && k < x.dim; ++k) {
        to.dx[s * x.dim + k] += factor * (row[k] - y_row[k]);
      }
      for (int64_t k = 0; to.dy != nullptr && k < x.dim; ++k) {
        to.dy[(column + j) * x.dim + k] -= factor * (row[k] - y_row[k]);
      }
    }
  }
};

}  // namespace scav::SCAV_LEVEL
