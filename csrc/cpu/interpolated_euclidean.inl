// Interpolated Euclidean on the CPU at one SIMD level (foreach_level.h): no include guard.
//
// `source` is resampled to the lengths of `target`. Only aligned cells (t, t) are computed: for each step t, the
// resampled rows of a group of sources against the targets of one length, as products where there are enough targets,
// else in registers. A thread owns a part of the steps, so that gradients of targets need no lock. Two threads may add
// to the same row of a source: the later one adds to a copy, which is added when all threads are done.

#include "cpu/simd.inl"
#include "cpu/gemm.inl"
#include "cpu/squares.inl"
#include "cpu/transpose.inl"
#include "cpu/interpolation.inl"

namespace scav::SCAV_LEVEL {

// One direction of resampling, and the strides of its pairs in the result.
template <class T>
struct Resampling {
  Sequences<T> source, target;
  PairFilter takes;
  bool squared;
  int64_t source_stride, target_stride;  // of the result, in elements

  bool takes_pair(int64_t source_length, int64_t target_length) const {
    return scav::SCAV_LEVEL::takes_pair(takes, source_length, target_length);
  }
};

template <class T>
struct ResamplingGrads {
  const T* result;
  T *source, *target;  // (batch, steps, D), zero on entry, or null
};

// Factor of (x - y) in the gradient of the mean distance at one cell, from the cell's squared distance.
template <class T>
T cell_factor(bool squared, T grad, int64_t m, T square) {
  const T weight = grad / static_cast<T>(m);
  return squared ? 2 * weight : (square > 0 ? weight / std::sqrt(square) : T(0));
}

// Adds a cell's gradient from the difference of its rows; the gradient of a side that needs none is null.
template <class T>
void pull_rows(T factor, const T* x, const T* y, int64_t dim, T* dx, T* dy) {
  for (int64_t k = 0; dx != nullptr && k < dim; ++k) {
    dx[k] += factor * (x[k] - y[k]);
  }
  for (int64_t k = 0; dy != nullptr && k < dim; ++k) {
    dy[k] -= factor * (x[k] - y[k]);
  }
}

// Targets whose step t is a panel of columns, of which `width` >= `count` are computed.
struct TargetPanel {
  const int64_t* targets;
  int64_t count, width;
};

// Targets of one length: in panels, each of which is one product a step, and the rest, too few for another panel.
struct TargetGroup {
  int64_t length;
  std::vector<TargetPanel> panels;
  const int64_t* rest;
  int64_t rest_count;
};

// Groups of the targets in `order`, which is by length.
inline std::vector<TargetGroup> groups_of_one_length(const std::vector<int64_t>& order, const int64_t* lengths) {
  // For more columns a product is faster than the cells in registers.
  constexpr int64_t kMaxRest = 16;
  std::vector<TargetGroup> groups;
  const int64_t *first = order.data(), *last = first + order.size();
  while (first != last) {
    const int64_t* end = first;
    while (end != last && lengths[*end] == lengths[*first]) {
      ++end;
    }
    TargetGroup group{lengths[*first], {}, nullptr, 0};
    for (; end - first > kMaxRest; first += group.panels.back().count) {
      const int64_t count = std::min<int64_t>(kPanel, end - first);
      int64_t width = kNarrowPanel;
      while (width < count) {
        width *= 2;
      }
      group.panels.push_back({first, count, width});
    }
    group.rest = first;
    group.rest_count = end - first;
    groups.push_back(std::move(group));
    first = end;
  }
  return groups;
}

// Gradients of a group of sources, to which one part of the steps adds: directly, or to a copy of the rows to which an
// earlier part may add as well. Copies are added when all parts are done.
template <class T>
class SourceGrads {
 public:
  // `copy` (group, steps, D) is this part's alone.
  SourceGrads(const Sequences<T>& source, const std::vector<TargetGroup>& target_groups, const int64_t* sources,
              int64_t count, int64_t part, int64_t parts, T* result, T* copy)
      : source_(source), sources_(sources), result_(result), copy_(copy), shared_(static_cast<size_t>(count)) {
    for (int64_t i = 0; i < count; ++i) {
      const int64_t n = source.lengths[sources[i]];
      Rows& shared = shared_[static_cast<size_t>(i)];
      shared = {n, 0};
      for (const TargetGroup& group : target_groups) {
        const int64_t first = group.length * part / parts;
        shared.first = std::min(shared.first, interpolation_at(first, n, group.length).left);
        if (first > 0) {
          shared.end = std::max(shared.end, interpolation_at(first - 1, n, group.length).right + 1);
        }
      }
      shared.end = std::max(shared.first, shared.end);
      std::fill_n(copied(i, shared.first), (shared.end - shared.first) * source.dim, T(0));
    }
  }

  // Gradient of row `row` of source i of the group.
  T* row(int64_t i, int64_t row) const {
    return row < shared_[static_cast<size_t>(i)].end ? copied(i, row) : result(i, row);
  }

  void add_copies(int64_t i) const {
    const Rows& shared = shared_[static_cast<size_t>(i)];
    const T* from = copied(i, shared.first);
    T* to = result(i, shared.first);
    for (int64_t k = 0; k < (shared.end - shared.first) * source_.dim; ++k) {
      to[k] += from[k];
    }
  }

 private:
  struct Rows {
    int64_t first, end;
  };

  T* copied(int64_t i, int64_t row) const { return copy_ + (i * source_.steps + row) * source_.dim; }
  T* result(int64_t i, int64_t row) const { return result_ + (sources_[i] * source_.steps + row) * source_.dim; }

  const Sequences<T>& source_;
  const int64_t* sources_;
  T *result_, *copy_;
  std::vector<Rows> shared_;
};

// Sources against targets of one length, step by step, from differences of rows in tiles of registers.
template <class T>
class DirectCells {
  static constexpr int w = kWidth<T>;

 public:
  // Sources whose cells with four targets fit into the registers.
  static constexpr int kSources = SCAV_VECTOR_BYTES == 64 ? 4 : 2;

  DirectCells(const Resampling<T>& direction, bool backward)
      : direction_(direction), dim_(direction.source.dim), zeros_(static_cast<size_t>(dim_), T(0)) {
    if (backward) {
      rows_ = Buffer<T>(kSources * dim_);
      drows_ = Buffer<T>(kSources * dim_);
      unused_ = Buffer<T>(dim_);
    }
  }

  // Adds the distances of at most kSources sources and of `count` targets of length m, at steps [begin, end), to
  // `sums`, one row to a source, rows `stride` apart.
  void add_distances(const int64_t* sources, int64_t source_count, const int64_t* targets, int64_t count, int64_t m,
                     int64_t begin, int64_t end, T* sums, int64_t stride) {
    for (int64_t t = begin; t < end; ++t) {
      find_rows(sources, source_count, t, m);
      for_each_tile(source_count, count, [&]<int S, int C>(Size<S>, Size<C>, int64_t i0, int64_t j0) {
        T cells[S * C];
        measure<false, S, C>(i0, targets + j0, t, cells);
        for (int cell = 0; cell < S * C && !direction_.squared; ++cell) {
          cells[cell] = std::sqrt(cells[cell]);
        }
        for (int i = 0; i < S; ++i) {
          for (int j = 0; j < C; ++j) {
            sums[(i0 + i) * stride + j0 + j] += cells[i * C + j];
          }
        }
      });
    }
  }

  // Adds to the gradients; that of row `row` of source i is at dsource(i, row).
  template <class RowGrad>
  void add_gradients(const int64_t* sources, int64_t source_count, const int64_t* targets, int64_t count, int64_t m,
                     int64_t begin, int64_t end, const ResamplingGrads<T>& grads, const RowGrad& dsource) {
    for (int64_t t = begin; t < end; ++t) {
      find_rows(sources, source_count, t, m);
      for_each_tile(source_count, count, [&]<int S, int C>(Size<S>, Size<C>, int64_t i0, int64_t j0) {
        T cells[S * C], weights[S * C];
        for (int i = 0; i < S; ++i) {
          for (int j = 0; j < C; ++j) {
            weights[i * C + j] =
                grads.result[sources[i0 + i] * direction_.source_stride + targets[j0 + j] * direction_.target_stride];
          }
        }
        measure<true, S, C>(i0, targets + j0, t, cells);
        for (int cell = 0; cell < S * C; ++cell) {
          const T weight = weights[cell] / static_cast<T>(m);
          const T far = cells[cell] > 0 ? weight / std::sqrt(cells[cell]) : T(0);
          cells[cell] = direction_.squared ? 2 * weight : far;
        }
        pull<S, C>(i0, targets + j0, j0 > 0, t, cells, grads.target);
      });
      for (int64_t i = 0; grads.source != nullptr && i < source_count; ++i) {
        spread_row(drows_.data() + i * dim_, at_[i], dim_, dsource(i, at_[i].left), dsource(i, at_[i].right));
      }
    }
  }

 private:
  template <int N>
  using Size = std::integral_constant<int, N>;

  // Calls f(sources, targets, first source, first target) for tiles of cells.
  template <class F>
  static void for_each_tile(int64_t sources, int64_t targets, const F& f) {
    if (sources == kSources) {
      return for_each_target_tile(Size<kSources>{}, 0, targets, f);
    }
    for (int64_t i = 0; i < sources; ++i) {
      for_each_target_tile(Size<1>{}, i, targets, f);
    }
  }

  template <class S, class F>
  static void for_each_target_tile(S sources, int64_t i, int64_t targets, const F& f) {
    int64_t j = 0;
    for (; j + 4 <= targets; j += 4) {
      f(sources, Size<4>{}, i, j);
    }
    switch (targets - j) {
      case 3:
        return f(sources, Size<3>{}, i, j);
      case 2:
        return f(sources, Size<2>{}, i, j);
      case 1:
        return f(sources, Size<1>{}, i, j);
    }
  }

  // Finds the rows from which step t of the sources is resampled; nonfinite sequences have zeros.
  void find_rows(const int64_t* sources, int64_t count, int64_t t, int64_t m) {
    for (int64_t i = 0; i < count; ++i) {
      const int64_t b = sources[i];
      const bool valid = direction_.source.nonfinite[b] == 0;
      at_[i] = interpolation_at(t, direction_.source.lengths[b], m);
      left_[i] = valid ? direction_.source.row(b, at_[i].left) : zeros_.data();
      right_[i] = valid ? direction_.source.row(b, at_[i].right) : zeros_.data();
    }
  }

  const T* target_row(int64_t b, int64_t t) const {
    return direction_.target.nonfinite[b] == 0 ? direction_.target.row(b, t) : zeros_.data();
  }

  // Computes squared distances (S, C), and keeps the resampled rows where `keep`.
  template <bool keep, int S, int C>
  void measure(int64_t i0, const int64_t* targets, int64_t t, T* squares) const {
    std::fill_n(squares, S * C, T(0));
    measure_features<w, keep, S, C>(0, dim_ / w * w, i0, targets, t, squares);
    measure_features<1, keep, S, C>(dim_ / w * w, dim_, i0, targets, t, squares);
  }

  template <int W, bool keep, int S, int C>
  SCAV_INLINE void measure_features(int64_t begin, int64_t end, int64_t i0, const int64_t* targets, int64_t t,
                                    T* squares) const {
    const T *left[S], *right[S], *target[C];
    T weight[S];
    for (int i = 0; i < S; ++i) {
      left[i] = left_[i0 + i];
      right[i] = right_[i0 + i];
      weight[i] = static_cast<T>(at_[i0 + i].weight);
    }
    for (int j = 0; j < C; ++j) {
      target[j] = target_row(targets[j], t);
    }
    Vec<T, W> sum[S][C] = {};
    for (int64_t k = begin; k < end; k += W) {
      Vec<T, W> y[C];
      for (int j = 0; j < C; ++j) {
        y[j] = load<T, W>(target[j] + k);
      }
      for (int i = 0; i < S; ++i) {
        const Vec<T, W> from = load<T, W>(left[i] + k);
        const Vec<T, W> x = from + weight[i] * (load<T, W>(right[i] + k) - from);
        if constexpr (keep) {
          store<T, W>(rows_.data() + (i0 + i) * dim_ + k, x);
        }
        for (int j = 0; j < C; ++j) {
          const Vec<T, W> difference = x - y[j];
          sum[i][j] += difference * difference;
        }
      }
    }
    for (int i = 0; i < S; ++i) {
      // Sums of a power of two of vectors are made together.
      constexpr int R = C == 3 ? 4 : C;
      if constexpr (R <= W) {
        Vec<T, W> rows[R] = {};
        std::copy_n(sum[i], C, rows);
        const Vec<T, R> sums = horizontal_sums<T, W, R>(rows);
        for (int j = 0; j < C; ++j) {
          squares[i * C + j] += sums[j];
        }
      } else {
        for (int j = 0; j < C; ++j) {
          squares[i * C + j] += horizontal_sum<T, W>(sum[i][j]);
        }
      }
    }
  }

  // Adds each cell's factor times its difference to the gradients of the resampled rows and of the targets.
  template <int S, int C>
  void pull(int64_t i0, const int64_t* targets, bool accumulate, int64_t t, const T* factors, T* dtarget) const {
    pull_features<w, S, C>(0, dim_ / w * w, i0, targets, accumulate, t, factors, dtarget);
    pull_features<1, S, C>(dim_ / w * w, dim_, i0, targets, accumulate, t, factors, dtarget);
  }

  template <int W, int S, int C>
  SCAV_INLINE void pull_features(int64_t begin, int64_t end, int64_t i0, const int64_t* targets, bool accumulate,
                                 int64_t t, const T* factors, T* dtarget) const {
    const T *rows = rows_.data() + i0 * dim_, *target[C];
    T *drows = drows_.data() + i0 * dim_, *dy[C];
    Vec<T, W> factor[S][C];
    for (int j = 0; j < C; ++j) {
      target[j] = target_row(targets[j], t);
      dy[j] = dtarget ? dtarget + (direction_.target.row(targets[j], t) - direction_.target.data) : unused_.data();
      for (int i = 0; i < S; ++i) {
        factor[i][j] = splat<T, W>(factors[i * C + j]);
      }
    }
    for (int64_t k = begin; k < end; k += W) {
      Vec<T, W> y[C], pulled[C];
      for (int j = 0; j < C; ++j) {
        y[j] = load<T, W>(target[j] + k);
        pulled[j] = load<T, W>(dy[j] + k);
      }
      for (int i = 0; i < S; ++i) {
        const Vec<T, W> x = load<T, W>(rows + i * dim_ + k);
        Vec<T, W> sum = accumulate ? load<T, W>(drows + i * dim_ + k) : Vec<T, W>{};
        for (int j = 0; j < C; ++j) {
          const Vec<T, W> difference = x - y[j];
          sum += factor[i][j] * difference;
          pulled[j] -= factor[i][j] * difference;
        }
        store<T, W>(drows + i * dim_ + k, sum);
      }
      for (int j = 0; j < C; ++j) {
        store<T, W>(dy[j] + k, pulled[j]);
      }
    }
  }

  const Resampling<T>& direction_;
  int64_t dim_;
  // Rows of the current step.
  Interpolation at_[kSources];
  const T *left_[kSources], *right_[kSources];
  std::vector<T> zeros_;
  Buffer<T> rows_, drows_;  // backward: (kSources, D)
  Buffer<T> unused_;        // (D,): the gradient of a target that needs none
};

// Step t of a group of sources against panels of targets of length m.
template <class T>
class ResampledStep {
  static constexpr int w = kWidth<T>;

 public:
  ResampledStep(const Resampling<T>& direction, int64_t group_size, bool backward)
      : direction_(direction),
        dim_(direction.source.dim),
        zeros_(static_cast<size_t>(dim_), T(0)),
        rows_(group_size * dim_),
        norms_(group_size),
        squares_(group_size * kPanel),
        targets_(kPanel * dim_),
        target_norms_(kPanel) {
    if (backward) {
      drows_ = Buffer<T>(group_size * dim_);
      transposed_ = Buffer<T>(kPanel * group_size);
      target_rows_ = Buffer<T>(kPanel * dim_);
      weights_ = Buffer<T>(kPanel);
    }
  }

  void resample(const int64_t* sources, int64_t count, int64_t t, int64_t m) {
    count_ = count;
    t_ = t;
    m_ = m;
    for (int64_t i = 0; i < count; ++i) {
      T* row = rows_.data() + i * dim_;
      if (direction_.source.nonfinite[sources[i]] != 0) {
        std::fill_n(row, dim_, T(0));
      } else {
        resample_row(direction_.source, sources[i], interpolation_at(t, direction_.source.lengths[sources[i]], m), row);
      }
      norms_[i] = sum_of_squares<T, false>(row, nullptr, dim_);
    }
    if (drows_.data() != nullptr) {
      std::fill_n(drows_.data(), count * dim_, T(0));
    }
  }

  // Adds the distances to `sums`, one row to a source, rows `stride` apart.
  void add_distances(const TargetPanel& panel, T* sums, int64_t stride) {
    measure(panel);
    for (int64_t i = 0; i < count_; ++i) {
      const T* squares = squares_.data() + i * panel.width;
      for (int64_t column = 0; column < panel.count; ++column) {
        sums[i * stride + column] += direction_.squared ? squares[column] : std::sqrt(squares[column]);
      }
    }
  }

  // Adds to the gradients of the resampled rows, and to `dtarget` unless it is null. `grads` (count, width) are those
  // of the results, 0 in empty columns.
  void add_gradients(const TargetPanel& panel, const T* grads, bool of_source, T* dtarget) {
    measure(panel);
    std::fill_n(weights_.data(), kPanel, T(0));
    for (int64_t i = 0; i < count_; ++i) {
      row_factors(panel, i, grads + i * panel.width, of_source, dtarget);
    }
    const int64_t width = panel.width;
    if (of_source) {
      gemm<T>(count_, dim_, width, width, dim_, dim_, true, squares_.data(), target_rows_.data(), drows_.data());
    }
    if (dtarget != nullptr) {
      add_to_targets(panel, dtarget);
    }
  }

  // Spreads the gradients of the resampled rows over the steps from which they were resampled.
  void spread(const int64_t* sources, const SourceGrads<T>& to) const {
    for (int64_t i = 0; i < count_; ++i) {
      const Interpolation at = interpolation_at(t_, direction_.source.lengths[sources[i]], m_);
      spread_row(drows_.data() + i * dim_, at, dim_, to.row(i, at.left), to.row(i, at.right));
    }
  }

 private:
  const T* target_row(const TargetPanel& panel, int64_t column) const {
    return direction_.target.row(panel.targets[column], t_);
  }

  bool near(int64_t square_at, int64_t i, int64_t column) const {
    return !(squares_[square_at] >= kNear<T> * (target_norms_[column] + norms_[i]));
  }

  // Loads step t of the targets as (D, width), and backward as (width, D); empty and nonfinite columns are zero.
  void load_targets(const TargetPanel& panel) {
    const int64_t width = panel.width;
    const T* sources[kPanel];
    for (int64_t column = 0; column < width; ++column) {
      const bool valid = column < panel.count && direction_.target.nonfinite[panel.targets[column]] == 0;
      sources[column] = valid ? target_row(panel, column) : zeros_.data();
      target_norms_[column] = valid ? *direction_.target.norm(panel.targets[column], t_) : T(0);
      if (target_rows_.data() != nullptr) {
        std::copy_n(sources[column], dim_, target_rows_.data() + column * dim_);
        sources[column] = target_rows_.data() + column * dim_;
      }
    }
    transpose<T>(
        width, dim_, [&](int64_t column) { return sources[column]; },
        [&](int64_t k) { return targets_.data() + k * width; });
  }

  // Computes squares_ (count, width): squared distances.
  void measure(const TargetPanel& panel) {
    const int64_t width = panel.width;
    load_targets(panel);
    gemm<T>(count_, width, dim_, dim_, width, width, false, rows_.data(), targets_.data(), squares_.data());
    for (int64_t i = 0; i < count_; ++i) {
      squares_of_products(norms_[i], target_norms_.data(), width, panel.count, squares_.data() + i * width,
                          [&](int64_t column) {
                            return sum_of_squares<T, true>(rows_.data() + i * dim_, target_row(panel, column), dim_);
                          });
    }
  }

  // Adds one cell's gradient from the difference of its rows. Its square becomes 0, its factor in the products.
  void pull(const TargetPanel& panel, int64_t i, int64_t column, T grad, bool of_source, T* dtarget) {
    T& cell = squares_[i * panel.width + column];
    const T factor = grad == 0 ? T(0) : cell_factor(direction_.squared, grad, m_, cell);
    cell = 0;
    if (factor != 0) {
      const T* target = target_row(panel, column);
      pull_rows(factor, rows_.data() + i * dim_, target, dim_, of_source ? drows_.data() + i * dim_ : nullptr,
                dtarget ? dtarget + (target - direction_.target.data) : nullptr);
    }
  }

  // Turns squares of row i into the factors of the products: -f, where drow = row sum(f) - sum(f target).
  void row_factors(const TargetPanel& panel, int64_t i, const T* grads, bool of_source, T* dtarget) {
    T* cells = squares_.data() + i * panel.width;
    Vec<T, w> slack{};
    for (int64_t j = 0; j < panel.width; j += w) {
      slack = vmin(slack, load<T, w>(cells + j) - kNear<T> * (load<T, w>(target_norms_.data() + j) + norms_[i]));
    }
    if (any_negative<T, w>(slack)) {
      for (int64_t column = 0; column < panel.count; ++column) {
        if (near(i * panel.width + column, i, column)) {
          pull(panel, i, column, grads[column], of_source, dtarget);
        }
      }
    }
    Vec<T, w> total{};
    for (int64_t j = 0; j < panel.width; j += w) {
      const Vec<T, w> square = load<T, w>(cells + j), weight = load<T, w>(grads + j) / static_cast<T>(m_);
      const Vec<T, w> far = direction_.squared ? T(2) * weight : weight / vsqrt<T, w>(square);
      const Vec<T, w> factor = square > T(0) ? far : Vec<T, w>{};
      total += factor;
      store<T, w>(weights_.data() + j, load<T, w>(weights_.data() + j) + factor);
      store<T, w>(cells + j, -factor);
    }
    const T along = horizontal_sum<T, w>(total);
    for (int64_t k = 0; of_source && k < dim_; ++k) {
      drows_[i * dim_ + k] += along * rows_[i * dim_ + k];
    }
  }

  // Adds the product's term of the targets' gradients, and the term along the targets themselves.
  void add_to_targets(const TargetPanel& panel, T* dtarget) {
    const int64_t width = panel.width;
    transpose<T>(
        count_, width, [&](int64_t i) { return squares_.data() + i * width; },
        [&](int64_t column) { return transposed_.data() + column * count_; });
    // The transposed targets are not needed any more.
    T* products = targets_.data();
    gemm<T>(width, dim_, count_, count_, dim_, dim_, false, transposed_.data(), rows_.data(), products);
    for (int64_t column = 0; column < panel.count; ++column) {
      T* to = dtarget + (target_row(panel, column) - direction_.target.data);
      const T *product = products + column * dim_, *target = target_rows_.data() + column * dim_;
      for (int64_t k = 0; k < dim_; ++k) {
        to[k] += product[k] + weights_[column] * target[k];
      }
    }
  }

  const Resampling<T>& direction_;
  int64_t dim_, count_ = 0, t_ = 0, m_ = 0;
  std::vector<T> zeros_;
  Buffer<T> rows_, norms_;            // (group, D), (group,): the sources, resampled
  Buffer<T> squares_;                 // (group, width)
  Buffer<T> targets_, target_norms_;  // (D, width), (width,)
  Buffer<T> drows_, transposed_;      // backward: (group, D), (width, group)
  Buffer<T> target_rows_, weights_;   // backward: (width, D), (width,)
};

// Gathers the gradients of the results of sources with `panels`: each (count, width), 0 in empty columns.
template <class T>
void gather(const Resampling<T>& direction, const std::vector<TargetPanel>& panels, const int64_t* sources,
            int64_t count, const T* result, std::vector<T>& out) {
  out.clear();
  for (const TargetPanel& panel : panels) {
    for (int64_t i = 0; i < count; ++i) {
      for (int64_t column = 0; column < panel.count; ++column) {
        out.push_back(result[sources[i] * direction.source_stride + panel.targets[column] * direction.target_stride]);
      }
      out.resize(out.size() + static_cast<size_t>(panel.width - panel.count));
    }
  }
}

// All pairs of one direction of resampling, a group of sources at a time. Forward where `grads` is null: writes means
// to `out`. Else backward: adds to the gradients.
template <class T>
class ResamplingPass {
 public:
  ResamplingPass(const Resampling<T>& direction, T* out, const ResamplingGrads<T>* grads)
      : direction_(direction),
        source_(direction.source),
        target_(direction.target),
        out_(out),
        grads_(grads),
        parts_(thread_count()),
        source_order_(by_length(source_.lengths, source_.batch)),
        target_order_(by_length(target_.lengths, target_.batch)),
        target_groups_(groups_of_one_length(target_order_, target_.lengths)),
        scratch_row_(grads == nullptr ? target_.batch : (adds_to_sources() ? source_.steps * source_.dim : 0)),
        group_size_(choose_group_size()),
        scratch_(parts_ * group_size_ * scratch_row_),
        source_grads_(static_cast<size_t>(parts_)) {}

  void run() {
    for (int64_t first = 0; first < source_.batch; first += group_size_) {
      sources_ = source_order_.data() + first;
      count_ = std::min(group_size_, source_.batch - first);
      run_parts(parts_, [&](int64_t part) { compute_part(part); });
      run_parts(parts_, [&](int64_t part) {
        for (int64_t i = count_ * part / parts_; i < count_ * (part + 1) / parts_; ++i) {
          collect(i);
        }
      });
    }
  }

 private:
  // Number of sources whose scratch fits the budget.
  int64_t choose_group_size() const {
    constexpr int64_t kScratchBytes = int64_t(16) << 20, kMaxSources = 128;
    const int64_t row_bytes = scratch_row_ * static_cast<int64_t>(sizeof(T));
    return std::clamp<int64_t>(kScratchBytes / std::max<int64_t>(row_bytes, 1), 1,
                               std::min(kMaxSources, source_.batch));
  }

  bool adds_to_sources() const { return grads_ != nullptr && grads_->source != nullptr; }

  // Number of sources that pair with targets of length m: by length, they come first in the group.
  int64_t sources_for(int64_t m) const {
    const auto takes = [&](int64_t b) { return direction_.takes_pair(source_.lengths[b], m); };
    return std::partition_point(sources_, sources_ + count_, takes) - sources_;
  }

  // Scratch of a part for source i of the group: forward the sums (targets,), backward a copy of the gradient.
  T* scratch_of(int64_t part, int64_t i) const { return scratch_.data() + (part * group_size_ + i) * scratch_row_; }

  // Place of the first of `targets` in target_order_, which is the order of the sums.
  int64_t place_of(const int64_t* targets) const { return targets - target_order_.data(); }

  // Computes the steps of one part for all targets. The functions of a part are always inlined: the compiler chooses
  // fused multiply-adds by what surrounds a loop, and with them the last bits of gradients.
  SCAV_INLINE void compute_part(int64_t part) {
    if (adds_to_sources()) {
      source_grads_[static_cast<size_t>(part)].emplace(source_, target_groups_, sources_, count_, part, parts_,
                                                       grads_->source, scratch_of(part, 0));
    } else {
      std::fill_n(scratch_of(part, 0), count_ * scratch_row_, T(0));
    }
    compute_panels(part);
    compute_rest(part);
  }

  // Computes the panels of all target groups by products, step by step.
  SCAV_INLINE void compute_panels(int64_t part) {
    ResampledStep<T> step(direction_, group_size_, grads_ != nullptr);
    std::vector<T> result_grads;
    for (const TargetGroup& group : target_groups_) {
      const int64_t m = group.length, count = sources_for(m);
      if (count == 0 || group.panels.empty()) {
        continue;
      }
      if (grads_ != nullptr) {
        gather(direction_, group.panels, sources_, count, grads_->result, result_grads);
      }
      for (int64_t t = m * part / parts_; t < m * (part + 1) / parts_; ++t) {
        step.resample(sources_, count, t, m);
        if (grads_ != nullptr) {
          add_step_gradients(step, group, count, result_grads.data(), part);
        } else {
          add_step_distances(step, group, count, part);
        }
      }
    }
  }

  void add_step_distances(ResampledStep<T>& step, const TargetGroup& group, int64_t count, int64_t part) const {
    for (const TargetPanel& panel : group.panels) {
      poll(count * panel.width * source_.dim);
      step.add_distances(panel, scratch_of(part, 0) + place_of(panel.targets), target_.batch);
    }
  }

  // `result_grads` come from gather().
  void add_step_gradients(ResampledStep<T>& step, const TargetGroup& group, int64_t count, const T* result_grads,
                          int64_t part) const {
    for (const TargetPanel& panel : group.panels) {
      poll(count * panel.width * source_.dim);
      step.add_gradients(panel, result_grads, adds_to_sources(), grads_->target);
      result_grads += count * panel.width;
    }
    if (adds_to_sources()) {
      step.spread(sources_, *source_grads_[static_cast<size_t>(part)]);
    }
  }

  // Computes the targets that are in no panel, a few steps at a time, so that what they touch stays in cache.
  SCAV_INLINE void compute_rest(int64_t part) {
    constexpr int64_t kSteps = 4, kSources = DirectCells<T>::kSources;
    const int64_t step_parts = parts_ * std::max<int64_t>(target_.steps / parts_ / kSteps, 1);
    DirectCells<T> cells(direction_, grads_ != nullptr);
    for (int64_t step_part = step_parts * part / parts_; step_part < step_parts * (part + 1) / parts_; ++step_part) {
      for (int64_t i = 0; i < count_; i += kSources) {
        for (const TargetGroup& group : target_groups_) {
          const int64_t m = group.length, count = std::min(sources_for(m) - i, kSources);
          if (count > 0 && group.rest_count > 0) {
            add_rest(cells, group, i, count, m * step_part / step_parts, m * (step_part + 1) / step_parts, part);
          }
        }
      }
    }
  }

  // Adds steps [begin, end) of the group's rest for sources [i, i + count).
  SCAV_INLINE void add_rest(DirectCells<T>& cells, const TargetGroup& group, int64_t i, int64_t count, int64_t begin,
                            int64_t end, int64_t part) const {
    poll(count * group.rest_count * (end - begin) * source_.dim);
    if (grads_ != nullptr) {
      const std::optional<SourceGrads<T>>& to = source_grads_[static_cast<size_t>(part)];
      cells.add_gradients(sources_ + i, count, group.rest, group.rest_count, group.length, begin, end, *grads_,
                          [&](int64_t k, int64_t row) { return to->row(i + k, row); });
    } else {
      cells.add_distances(sources_ + i, count, group.rest, group.rest_count, group.length, begin, end,
                          scratch_of(part, i) + place_of(group.rest), target_.batch);
    }
  }

  // Adds up what the parts hold for source i of the group.
  void collect(int64_t i) const {
    for (int64_t part = 0; part < parts_; ++part) {
      if (grads_ == nullptr) {
        add_means(i, part);
      } else if (adds_to_sources()) {
        source_grads_[static_cast<size_t>(part)]->add_copies(i);
      }
    }
  }

  void add_means(int64_t i, int64_t part) const {
    const T* sums = scratch_of(part, i);
    for (int64_t j = 0; j < target_.batch; ++j) {
      const int64_t index = target_order_[static_cast<size_t>(j)], m = target_.lengths[index];
      if (direction_.takes_pair(source_.lengths[sources_[i]], m)) {
        T& mean = out_[sources_[i] * direction_.source_stride + index * direction_.target_stride];
        mean = (part == 0 ? T(0) : mean) + sums[j] / static_cast<T>(m);
      }
    }
  }

  const Resampling<T>& direction_;
  const Sequences<T>&source_, &target_;
  T* out_;
  const ResamplingGrads<T>* grads_;
  int64_t parts_;
  std::vector<int64_t> source_order_, target_order_;
  std::vector<TargetGroup> target_groups_;
  int64_t scratch_row_;                                      // elements that a part needs for a source
  int64_t group_size_;                                       // sources of a group; the last may have fewer
  Buffer<T> scratch_;                                        // (parts, group_size, scratch_row)
  std::vector<std::optional<SourceGrads<T>>> source_grads_;  // (parts,)
  const int64_t* sources_ = nullptr;                         // of the current group
  int64_t count_ = 0;
};

}  // namespace scav::SCAV_LEVEL

#include "cpu/interpolated_pairs.inl"

namespace scav::SCAV_LEVEL {

// Forward where `grad` is null: writes `out`. Else backward: adds to dx (B1, N, D) and dy (B2, M, D), zero on entry, or
// null. `resample` is one of "x", "y" and "shorter".
template <class T>
void interpolated_euclidean(const Inputs& inputs, bool squared, const std::string& resample, T* out, const T* grad,
                            T* dx, T* dy) {
  T *x_nonfinite = inputs.x_nonfinite.data<T>(), *y_nonfinite = inputs.y_nonfinite.data<T>();
  auto pass = [&](bool of_x, PairFilter takes) {
    // Strides in the results: (B1, B2), or (B,) when paired.
    const int64_t stride_x = inputs.paired ? 0 : inputs.batch_y(), stride_y = 1;
    const Resampling<T> direction =
        of_x ? Resampling<T>{inputs.sequences_x<T>(), inputs.sequences_y<T>(), takes, squared, stride_x, stride_y}
             : Resampling<T>{inputs.sequences_y<T>(), inputs.sequences_x<T>(), takes, squared, stride_y, stride_x};
    const ResamplingGrads<T> grads{grad, of_x ? dx : dy, of_x ? dy : dx};
    if (inputs.paired) {
      const ResamplingNonfinite<T> nonfinite{of_x ? x_nonfinite : y_nonfinite, of_x ? y_nonfinite : x_nonfinite};
      resampling_pairs(direction, nonfinite, out, grad ? &grads : nullptr);
    } else {
      ResamplingPass<T>(direction, out, grad ? &grads : nullptr).run();
    }
  };
  if (resample == "shorter") {
    pass(true, PairFilter::not_longer);
    pass(false, PairFilter::shorter);
  } else {
    pass(resample == "x", PairFilter::all);
  }
}

}  // namespace scav::SCAV_LEVEL
