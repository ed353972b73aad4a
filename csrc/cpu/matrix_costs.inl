// Pairs of a recursion whose costs are matrices from the caller, in place of the products of group_costs.inl.
// Included once per SIMD level (foreach_level.h): no include guard.

namespace scav::SCAV_LEVEL {

// Destination of the gradient of one pair's costs.
template <class T>
struct MatrixAdjoint {
  T* cells;
  int64_t stride;  // between rows
};

// The costs of one pair. An infinite one forbids its cell.
template <class T>
struct MatrixCosts {
  static constexpr bool kForbids = true;
  const T* cells;
  int64_t stride;  // between rows
  int64_t n, m;
  bool bad;

  int64_t rows() const { return n; }
  int64_t steps() const { return m; }
  int64_t panels() const { return (m + kNarrowPanel - 1) / kNarrowPanel; }
  int64_t columns() const { return panels() * kNarrowPanel; }
  bool is_nonfinite() const { return bad; }

  // As GroupCosts::costs, with zeros for what is past the last step, or nonfinite.
  void costs(int64_t panel0, int64_t panel1, int64_t row0, int64_t row1, T* out, int64_t out_stride) const {
    const int64_t step0 = panel0 * kNarrowPanel, end = panel1 * kNarrowPanel, step1 = bad ? step0 : std::min(m, end);
    poll((end - step0) * (row1 - row0));
    for (int64_t s = row0; s < row1; ++s) {
      T* to = out + s * out_stride - step0;
      for (int64_t t = step0; t < step1; ++t) {
        to[t] = std::min(cells[s * stride + t], kUnreachable<T>);
      }
      std::fill(to + step1, to + end, T(0));
    }
  }

  void adjoint(int64_t panel0, int64_t panel1, int64_t row0, int64_t row1, const T*, const T* weights,
               int64_t weights_stride, const MatrixAdjoint<T>& to) const {
    const int64_t step0 = panel0 * kNarrowPanel, step1 = std::min(m, panel1 * kNarrowPanel);
    for (int64_t s = row0; s < row1; ++s) {
      std::copy_n(weights + s * weights_stride, step1 - step0, to.cells + s * to.stride + step0);
    }
  }
};

template <class T>
MatrixCosts<T> matrix_costs(const CostInputs& costs, int64_t pair) {
  return {costs.rows<T>(pair), costs.cost.stride(2), costs.length_x(pair), costs.length_y(pair),
          costs.nonfinite.data<T>()[pair] != 0};
}

// Every pair of the caller's costs, those of about equal size in the same recursion.
template <class T>
struct MatrixBatch {
  const CostInputs& costs;
  LaneCount count;
  std::vector<int64_t> order;

  MatrixBatch(const CostInputs& given, LaneCount lane_count)
      : costs(given), count(lane_count), order(static_cast<size_t>(given.pairs())) {
    std::iota(order.begin(), order.end(), 0);
    const auto place = [&](int64_t pair) { return std::tuple(costs.length_y(pair), costs.length_x(pair), pair); };
    std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return place(a) < place(b); });
  }

  int64_t groups() const { return (costs.pairs() + count.lanes() - 1) / count.lanes(); }

  SeparatePairs<T, MatrixCosts<T>> separate(const std::vector<int64_t>& results) const {
    SeparatePairs<T, MatrixCosts<T>> pairs{{}, count};
    for (int64_t pair : results) {
      if (pair >= 0) {
        pairs.sources.push_back(matrix_costs<T>(costs, pair));
      }
    }
    return pairs;
  }

  // Result index of each lane's pair; lanes without one hold -1.
  std::vector<int64_t> results_of(int64_t group) const {
    std::vector<int64_t> results(static_cast<size_t>(count.lanes()), -1);
    const int64_t first = group * count.lanes();
    std::copy_n(order.begin() + first, std::min(count.lanes(), costs.pairs() - first), results.begin());
    return results;
  }

  // Destination of each lane's gradient in d_cost (B1, B2, N, M).
  std::vector<MatrixAdjoint<T>> adjoints(const std::vector<int64_t>& results, T* d_cost) const {
    std::vector<MatrixAdjoint<T>> to;
    for (int64_t pair : results) {
      to.push_back({d_cost + std::max<int64_t>(pair, 0) * costs.steps_x() * costs.steps_y(), costs.steps_y()});
    }
    return to;
  }
};

inline GridSizes grid_sizes(const CostInputs& costs) {
  return {1, costs.pairs(), false, costs.steps_x(), costs.steps_y()};
}

// Calls f(pairs, results) for every set of pairs that share a recursion.
template <class T, class F>
void for_each_pairs(const MatrixBatch<T>& batch, const F& f) {
  const int64_t parts = std::min(thread_count(), batch.groups());
  run_parts(parts, [&](int64_t part) {
    // In turn, as groups are sorted by size.
    for (int64_t group = part; group < batch.groups(); group += parts) {
      const std::vector<int64_t> results = batch.results_of(group);
      f(batch.separate(results), results);
    }
  });
}

}  // namespace scav::SCAV_LEVEL
