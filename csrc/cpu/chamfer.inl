// The Chamfer distance on the CPU, at one SIMD level: the mean cost of steps to their nearest step of the other side.

#include "cpu/simd.inl"
#include "cpu/gemm.inl"
#include "cpu/transpose.inl"
#include "cpu/packed.inl"
#include "cpu/difference_costs.inl"
#include "cpu/group_costs.inl"
#include "cpu/pair_costs.inl"
#include "cpu/pairs.inl"
#include "cpu/values.inl"
#include "cpu/sweep.inl"
#include "cpu/squares.inl"
#include "cpu/nearest_steps.inl"

namespace scav::SCAV_LEVEL {

// Where distances go, and the nearest steps unless `nearest` is null.
template <class T>
struct ChamferResults {
  ChamferSides sides;
  T* out;
  int32_t* nearest;
  int64_t steps_x, steps_y;  // of the padded batches

  int32_t* nearest_of_x(int64_t result) const { return nearest + result * sides.saved_steps(steps_x, steps_y); }
  int32_t* nearest_of_y(int64_t result) const { return nearest_of_x(result) + sides.saved_before_y(steps_x); }
};

// Up to `max_sources` x's against one group of y's. A panel of y's stays in cache for all x's.
template <class T>
class ChamferGroup {
 public:
  ChamferGroup(const Packed<T>& packed, const Group& group, const ChamferResults<T>& results)
      : packed_(packed), group_(group), results_(results), columns_(packed, group), tile_(kRows * group.panel) {}

  // `result(i, lane)` is the index of the result of x number i of `sources` against the group's y number `lane`.
  template <class Source, class Result>
  void run(const std::vector<Source>& sources, bool root, const Result& result) {
    const ChamferSides sides = results_.sides;
    std::vector<RowMinima<T>> rows;
    for (const Source& source : sources) {
      rows.emplace_back(sides.x ? source.rows() : 0);
    }
    Buffer<T> sums(static_cast<int64_t>(sources.size()) * group_.lanes);
    std::fill_n(sums.data(), static_cast<int64_t>(sources.size()) * group_.lanes, T(0));
    for (int64_t panel = 0; panel < group_.panels(); ++panel) {
      for (size_t i = 0; i < sources.size(); ++i) {
        scan(sources[i], panel, rows[i]);
        if (sides.y) {
          const auto place = static_cast<int64_t>(i);
          take_columns(panel, root, sums.data() + place * group_.lanes,
                       [&](int64_t lane) { return result(place, lane); });
        }
      }
    }
    for (size_t i = 0; i < sources.size(); ++i) {
      const auto place = static_cast<int64_t>(i);
      take_rows(rows[i], sources[i].rows(), root, sums.data() + place * group_.lanes,
                [&](int64_t lane) { return result(place, lane); });
    }
  }

 private:
  // Rows of x whose costs with a panel are computed at a time.
  static constexpr int64_t kRows = 256;

  template <class Source>
  void scan(const Source& source, int64_t panel, RowMinima<T>& rows) {
    const ChamferSides sides = results_.sides;
    columns_.start();
    for (int64_t row0 = 0; row0 < source.rows(); row0 += kRows) {
      const int64_t row1 = std::min(row0 + kRows, source.rows());
      source.costs(panel, panel + 1, row0, row1, tile_.data() - row0 * group_.panel, group_.panel);
      const CostTile<T> tile{tile_.data(), panel * group_.panel, group_.panel, row0, row1};
      if (results_.nearest != nullptr) {
        sides.x&& sides.y ? find_minima<true, true, true>(tile, rows, columns_)
        : sides.x         ? find_minima<true, false, true>(tile, rows, columns_)
                          : find_minima<false, true, true>(tile, rows, columns_);
      } else {
        sides.x&& sides.y ? find_minima<true, true, false>(tile, rows, columns_)
        : sides.x         ? find_minima<true, false, false>(tile, rows, columns_)
                          : find_minima<false, true, false>(tile, rows, columns_);
      }
    }
  }

  static T distance_of(T cost, bool root) { return root ? std::sqrt(cost) : cost; }

  // Adds the minima of a panel's columns to the sums of their y's.
  template <class Result>
  void take_columns(int64_t panel, bool root, T* sums, const Result& result) const {
    for (int64_t j = 0; j < group_.panel; ++j) {
      const int64_t column = panel * group_.panel + j, step = column / group_.lanes, lane = column % group_.lanes;
      if (step >= packed_.length(group_, lane)) {
        continue;
      }
      sums[lane] += distance_of(columns_.least[j], root);
      if (results_.nearest != nullptr) {
        results_.nearest_of_y(result(lane))[step] = static_cast<int32_t>(columns_.row[j]);
      }
    }
  }

  // Writes the distances of one x, to which the sums over y's are known.
  template <class Result>
  void take_rows(const RowMinima<T>& rows, int64_t n, bool root, const T* sums_of_y, const Result& result) const {
    const ChamferSides sides = results_.sides;
    std::vector<T> sums(static_cast<size_t>(group_.lanes), T(0));
    for (int64_t s = 0; sides.x && s < n; ++s) {
      const typename RowMinima<T>::Lanes found = rows.fold(s, group_.lanes);
      for (int64_t lane = 0; lane < group_.count; ++lane) {
        sums[static_cast<size_t>(lane)] += distance_of(found.least[lane], root);
        if (results_.nearest != nullptr) {
          results_.nearest_of_x(result(lane))[s] = static_cast<int32_t>(found.column[lane] / group_.lanes);
        }
      }
    }
    for (int64_t lane = 0; lane < group_.count; ++lane) {
      const T of_x = sides.x ? sums[static_cast<size_t>(lane)] / static_cast<T>(n) : T(0);
      const T of_y = sides.y ? sums_of_y[lane] / static_cast<T>(packed_.length(group_, lane)) : T(0);
      results_.out[result(lane)] = static_cast<T>(sides.share()) * (of_x + of_y);
    }
  }

  const Packed<T>& packed_;
  const Group& group_;
  const ChamferResults<T>& results_;
  ColumnMinima<T> columns_;
  Buffer<T> tile_;  // (kRows, panel)
};

// Distances of all pairs, of the roots of the least costs if `root`, and their nearest steps unless `nearest` is null,
// zero on entry.
template <class T>
void chamfer_forward(const Inputs& inputs, bool root, const ChamferSides& sides, T* out, int32_t* nearest) {
  const LaneCount lanes = inputs.paired ? LaneCount{1, 1} : choose_lanes<T>(grid_sizes(inputs), false, {0, sizeof(T)});
  const PairBatch<T> batch(inputs, lanes, false);
  const ChamferResults<T> results{sides, out, nearest, inputs.steps_x(), inputs.steps_y()};
  if (inputs.paired) {
    const int64_t pairs = inputs.batch_x(), parts = thread_count();
    run_parts(parts, [&](int64_t part) {
      const auto scratch = std::make_shared<PairScratch<T>>(batch.x, batch.y, batch.in_bfloat16, false);
      for (int64_t i = pairs * part / parts; i < pairs * (part + 1) / parts; ++i) {
        scratch->packed.layout.order[0] = i;
        const Group group = alone(i, batch.y.lengths[i]).groups[0];
        const std::vector<PairCosts<T>> sources{{scratch, inputs, batch.x, batch.y, i}};
        ChamferGroup<T>(scratch->packed, group, results).run(sources, root, [&](int64_t, int64_t) { return i; });
      }
    });
    return;
  }
  for_each_recursion(batch.packed.layout.groups, batch.x_order, batch.x.lengths, batch.count.vectors,
                     [&](const Group& group, int64_t first, int64_t end) {
                       const std::vector<GroupCosts<T>> sources =
                           batch.shared(group, batch.x_order, first, end).sources;
                       ChamferGroup<T>(batch.packed, group, results).run(sources, root, [&](int64_t i, int64_t lane) {
                         return sources[static_cast<size_t>(i)].b * batch.y.batch + batch.packed.index(group, lane);
                       });
                     });
}

// Adds one cell's term of the gradient, `grad` times that of its cost, to the gradients of its two rows, or null.
template <class T, Cost cost>
void add_cell_gradient(const T* x, const T* y, int64_t dim, T grad, T* dx, T* dy) {
  if constexpr (cost == Cost::cosine) {
    for (int64_t k = 0; dx != nullptr && k < dim; ++k) {
      dx[k] -= grad * y[k];
    }
    for (int64_t k = 0; dy != nullptr && k < dim; ++k) {
      dy[k] -= grad * x[k];
    }
  } else {
    T factor = 2 * grad;
    if constexpr (cost == Cost::euclidean) {
      const T square = sum_of_squares<T, true>(x, y, dim);
      factor = square > 0 ? grad / std::sqrt(square) : T(0);
    }
    for (int64_t k = 0; dx != nullptr && k < dim; ++k) {
      dx[k] += factor * (x[k] - y[k]);
    }
    for (int64_t k = 0; dy != nullptr && k < dim; ++k) {
      dy[k] -= factor * (x[k] - y[k]);
    }
  }
}

// Calls f(i, j, part) for all pairs, or those of one index. No two parts at a time have a sequence in common, so that
// neither side's gradient needs a lock or a copy: in round r, part p has its x's and the y's of part p + r.
template <class T, class F>
void for_each_pair_of_parts(const Sequences<T>& x, const Sequences<T>& y, bool paired, const F& f) {
  const int64_t parts = thread_count();
  const auto begin = [&](int64_t batch, int64_t part) { return batch * part / parts; };
  if (paired) {
    run_parts(parts, [&](int64_t part) {
      for (int64_t i = begin(x.batch, part); i < begin(x.batch, part + 1); ++i) {
        f(i, i, i);
      }
    });
    return;
  }
  // x's that stay in cache with their gradients.
  constexpr int64_t kBytes = int64_t(512) << 10;
  const int64_t group = std::max<int64_t>(1, kBytes / (2 * x.steps * x.dim * static_cast<int64_t>(sizeof(T))));
  for (int64_t round = 0; round < parts; ++round) {
    run_parts(parts, [&](int64_t part) {
      const int64_t of_y = (part + round) % parts, end = begin(x.batch, part + 1);
      for (int64_t first = begin(x.batch, part); first < end; first += group) {
        for (int64_t j = begin(y.batch, of_y); j < begin(y.batch, of_y + 1); ++j) {
          for (int64_t i = first; i < std::min(first + group, end); ++i) {
            f(i, j, i * y.batch + j);
          }
        }
      }
    });
  }
}

template <class T, Cost cost>
void chamfer_gradients(const Inputs& inputs, const ChamferSides& sides, const T* grad, const int32_t* nearest, T* dx,
                       T* dy) {
  const Sequences<T> x = inputs.sequences_x<T>(), y = inputs.sequences_y<T>();
  for_each_pair_of_parts(x, y, inputs.paired, [&](int64_t i, int64_t j, int64_t result) {
    const int64_t n = x.lengths[i], m = y.lengths[j];
    poll((n + m) * x.dim);
    if (grad[result] == 0) {
      return;
    }
    const auto cell = [&](int64_t s, int64_t t, T weight) {
      add_cell_gradient<T, cost>(x.row(i, s), y.row(j, t), x.dim, weight, dx ? dx + (i * x.steps + s) * x.dim : nullptr,
                                 dy ? dy + (j * y.steps + t) * x.dim : nullptr);
    };
    const T share = static_cast<T>(sides.share()) * grad[result];
    const int32_t* of_x = nearest + result * sides.saved_steps(x.steps, y.steps);
    const int32_t* of_y = of_x + sides.saved_before_y(x.steps);
    // Steps that no forward saved are limited to the valid ones.
    for (int64_t s = 0; sides.x && s < n; ++s) {
      cell(s, std::clamp<int64_t>(of_x[s], 0, m - 1), share / static_cast<T>(n));
    }
    for (int64_t t = 0; sides.y && t < m; ++t) {
      cell(std::clamp<int64_t>(of_y[t], 0, n - 1), t, share / static_cast<T>(m));
    }
  });
}

// dx, dy: (B1, N, D) and (B2, M, D), zero on entry, or null.
template <class T>
void chamfer_backward(const Inputs& inputs, const ChamferSides& sides, const T* grad, const int32_t* nearest, T* dx,
                      T* dy) {
  switch (inputs.cost) {
    case Cost::euclidean:
      return chamfer_gradients<T, Cost::euclidean>(inputs, sides, grad, nearest, dx, dy);
    case Cost::sqeuclidean:
      return chamfer_gradients<T, Cost::sqeuclidean>(inputs, sides, grad, nearest, dx, dy);
    case Cost::cosine:
      return chamfer_gradients<T, Cost::cosine>(inputs, sides, grad, nearest, dx, dy);
  }
}

}  // namespace scav::SCAV_LEVEL
