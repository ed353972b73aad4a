// The recursion of sweep.inl where costs are computed in it, from the differences of few features
// (difference_costs.inl). Included once per SIMD level (foreach_level.h): no include guard.

namespace scav::SCAV_LEVEL {

// Pairs that share a recursion of whole vectors: some x's against the y's of a group, or a group's x's and y's one by
// one.
template <class T>
struct DifferencePairs {
  std::vector<const T*> x;                    // as DifferenceTile reads them
  const T* y;                                 // (passes, dim, kPassSteps, W)
  std::vector<int64_t> lengths_x, lengths_y;  // of each lane, 0 where there is no pair

  int64_t lanes() const { return static_cast<int64_t>(lengths_x.size()); }
  int64_t rows() const { return *std::max_element(lengths_x.begin(), lengths_x.end()); }
  int64_t steps() const { return *std::max_element(lengths_y.begin(), lengths_y.end()); }
  int64_t rows_of(int64_t lane) const { return lengths_x[static_cast<size_t>(lane)]; }
  int64_t steps_of(int64_t lane) const { return lengths_y[static_cast<size_t>(lane)]; }
};

// Where the pair of a lane ends.
struct LaneEnd {
  int64_t last_step, end_row, lane, result;
};

// In the order in which passes come to them.
template <class T>
std::vector<LaneEnd> lane_ends(const Lanes<T>& lanes, const std::vector<int64_t>& results) {
  std::vector<LaneEnd> ends;
  for (size_t lane = 0; lane < results.size(); ++lane) {
    if (results[lane] >= 0) {
      ends.push_back({lanes.last_step[lane], lanes.last_row[lane] + 1, static_cast<int64_t>(lane), results[lane]});
    }
  }
  std::sort(ends.begin(), ends.end(), [](const LaneEnd& a, const LaneEnd& b) {
    return std::pair(a.last_step / kPassSteps, a.end_row) < std::pair(b.last_step / kPassSteps, b.end_row);
  });
  return ends;
}

// What a pass carries from one row to the next: r[s - 1, t ... t + K - 1], and r[s - 1, t - 1].
template <class T, int W, int V>
struct PassCarry {
  Vec<T, W> up[V][kPassSteps], diagonal[V];
};

// Rows [row0, row1) of one pass. Where `masked`, cells outside their lane's band become unreachable.
template <class T, int W, int V, bool masked, class Tile, class Cell>
SCAV_INLINE void pass_rows(const Tile& tile, const Lanes<T>& lanes, int64_t t, int64_t row0, int64_t row1, T* state,
                           PassCarry<T, W, V>& carry, const Cell& cell) {
  constexpr int K = kPassSteps;
  PassCarry<T, W, V> now = carry;
  for (int64_t s = row0; s < row1; ++s) {
    Vec<T, W> costs[V][K];
    tile.costs(s, costs);
    for (int v = 0; v < V; ++v) {
      T* at = state + (s * V + v) * W;
      const Vec<T, W> before = load<T, W>(at);
      Vec<T, W> left = before, diagonal = now.diagonal[v];
      for (int j = 0; j < K; ++j) {
        Vec<T, W> r = cell(s, t + j, v, costs[v][j], diagonal, now.up[v][j], left);
        if constexpr (masked) {
          r = in_band<T, W>(lanes, v, t + j - s) ? r : splat<T, W>(kUnreachable<T>);
        }
        diagonal = now.up[v][j];
        now.up[v][j] = left = r;
      }
      store<T, W>(at, left);
      now.diagonal[v] = before;
    }
  }
  carry = now;
}

// Advances `state` (rows, lanes) from column t - 1 to column t + K - 1; `cell` is that of sweep(). The pairs
// [end, last_end) end in these columns: their results go to `out`.
template <class T, int W, int V, class Tile, class Cell>
void difference_pass(const Tile& tile, const Lanes<T>& lanes, int64_t t, const LaneEnd* end, const LaneEnd* last_end,
                     T* state, const Cell& cell, T* out) {
  constexpr int K = kPassSteps;
  const int64_t row0 = lanes.first_row(t), row1 = lanes.end_row(t + K - 1);
  // Rows whose cells are in the bands of all lanes.
  const int64_t inner0 = std::clamp(t + K - 1 - lanes.inner_high, row0, row1),
                inner1 = std::clamp(t - lanes.inner_low + 1, inner0, row1);
  PassCarry<T, W, V> carry;
  for (int v = 0; v < V; ++v) {
    // The grid is entered at (0, 0), as if diagonally from a cell of cost 0.
    carry.diagonal[v] =
        row0 > 0 ? load<T, W>(state + ((row0 - 1) * V + v) * W) : splat<T, W>(t == 0 ? T(0) : kUnreachable<T>);
    for (int j = 0; j < K; ++j) {
      carry.up[v][j] = splat<T, W>(kUnreachable<T>);
    }
  }
  int64_t s = row0;
  while (s < row1) {
    const int64_t to = end == last_end ? row1 : end->end_row;
    while (s < to) {
      const bool inner = s >= inner0 && s < inner1;
      const int64_t stop = std::min(to, s < inner0 ? inner0 : (inner ? inner1 : row1));
      if (inner) {
        pass_rows<T, W, V, false>(tile, lanes, t, s, stop, state, carry, cell);
      } else {
        pass_rows<T, W, V, true>(tile, lanes, t, s, stop, state, carry, cell);
      }
      s = stop;
    }
    for (; end != last_end && end->end_row == s; ++end) {
      T steps[K * W];
      for (int v = 0; v < V; ++v) {
        for (int j = 0; j < K && v == end->lane / W; ++j) {
          store<T, W>(steps + j * W, carry.up[v][j]);
        }
      }
      const T r = steps[(end->last_step - t) * W + end->lane % W];
      out[end->result] = r < kReached<T> ? r : std::numeric_limits<T>::infinity();
    }
  }
}

// Advances `state` by steps [step0, step1), whole passes but the last.
template <class T, int W, int V, class Tile, class Cell>
void difference_sweep(Tile tile, const StepRange& range, const Lanes<T>& lanes, const std::vector<LaneEnd>& ends,
                      T* state, const Cell& cell, T* out) {
  const T* y = tile.y;
  const auto by_step = [](const LaneEnd& end, int64_t step) { return end.last_step / kPassSteps < step / kPassSteps; };
  const LaneEnd* end = ends.data() + (std::lower_bound(ends.begin(), ends.end(), range.step0, by_step) - ends.begin());
  const LaneEnd* const last = ends.data() + ends.size();
  for (int64_t t = range.step0; t < range.step1; t += kPassSteps) {
    poll(lanes.rows * W * V * kPassSteps * (tile.dim + 1));
    const LaneEnd* next = end;
    while (next != last && next->last_step < t + kPassSteps) {
      ++next;
    }
    tile.y = y + t * tile.dim * W;
    difference_pass<T, W, V>(tile, lanes, t, end, next, state, cell, out);
    end = next;
  }
}

// Sequences packed for passes, as pairs of every x with every y, or of x number i with y number i. Packed::y points
// into it, so a batch cannot be copied or moved.
template <class T>
struct DifferenceBatch {
  static constexpr int W = kWidth<T>;
  Sequences<T> x, y;
  bool paired;
  int64_t vectors;
  std::vector<int64_t> x_order;  // by length, so that those of one recursion are about equally long
  Packed<T> packed_y, packed_x;  // the x's where they are paired

  DifferenceBatch(const Inputs& inputs, int64_t count)
      : x(inputs.sequences_x<T>()),
        y(inputs.sequences_y<T>()),
        paired(inputs.paired),
        vectors(count),
        x_order(by_length(x.lengths, x.batch)) {
    Layout layout = interleave(y.lengths, y.batch, W, W * kPassSteps);
    if (paired) {
      packed_x = pack<T>(x, same_groups(layout, x.lengths, W), false, false);
    }
    packed_y = pack<T>(y, std::move(layout), false, false);
  }

  DifferenceBatch(const DifferenceBatch&) = delete;

  // The pairs of a recursion, and their result indices: a group's own where paired, else x's number [first, end) of
  // `x_order` with the group.
  std::pair<DifferencePairs<T>, std::vector<int64_t>> recursion(const Group& group, int64_t first, int64_t end) const {
    DifferencePairs<T> pairs{{}, packed_y.panels.data() + group.column * y.dim, {}, {}};
    std::vector<int64_t> results;
    for (int64_t v = 0; v < vectors; ++v) {
      // Vectors past the last x compute it again, for no result.
      const int64_t i = x_order[static_cast<size_t>(std::min(first + v, end - 1))];
      pairs.x.push_back(paired ? packed_x.panels.data() + group_of_x(group).column * x.dim : x.row(i, 0));
      for (int64_t lane = 0; lane < W; ++lane) {
        const bool used = lane < group.count && first + v < end;
        const int64_t j = used ? packed_y.index(group, lane) : -1;
        pairs.lengths_x.push_back(used ? x.lengths[paired ? j : i] : 0);
        pairs.lengths_y.push_back(used ? y.lengths[j] : 0);
        results.push_back(used && !paired ? i * y.batch + j : j);
      }
    }
    return {std::move(pairs), std::move(results)};
  }

 private:
  const Group& group_of_x(const Group& group) const {
    return packed_x.layout.groups[static_cast<size_t>(&group - packed_y.layout.groups.data())];
  }
};

// Calls f(pairs, results) for every recursion.
template <class T, class F>
void for_each_pairs(const DifferenceBatch<T>& batch, const F& f) {
  for_each_recursion(batch.packed_y.layout.groups, batch.paired ? kOwnX : batch.x_order, batch.x.lengths, batch.vectors,
                     [&](const Group& group, int64_t first, int64_t end) {
                       const auto [pairs, results] = batch.recursion(group, first, end);
                       f(pairs, results);
                     });
}

// Vectors of a recursion over few features, or none where the product's way is faster or the state of whole vectors is
// too large.
template <class T>
int64_t difference_vectors(const Inputs& inputs, int64_t bytes_per_cell) {
  const GridSizes sizes = grid_sizes(inputs);
  const int64_t dim = inputs.x.size(2);
  const int64_t most =
      with_difference_cost(inputs.cost, dim, [](auto kind) { return static_cast<int64_t>(kind.kVectors); });
  for (int64_t vectors : {sizes.xs > 1 ? most : 1, int64_t(1)}) {
    const CheckpointPlan plan =
        plan_checkpoints(sizes.rows, sizes.steps, kWidth<T> * vectors, kPassSteps, bytes_per_cell, sizeof(T));
    if (dim <= kFewFeatures && plan.bytes <= kScratch) {
      return vectors;
    }
  }
  return 0;
}

// Calls f(std::integral_constant V, std::bool_constant shared, DifferenceCost) for the vectors and the cost of a batch.
template <class T, class F>
void with_difference_tile(const DifferenceBatch<T>& batch, Cost cost, const F& f) {
  with_difference_cost(cost, batch.x.dim, [&](auto kind) {
    using One = std::integral_constant<int, 1>;
    if (batch.paired) {
      f(One{}, std::false_type{}, kind);
    } else if (batch.vectors == 1) {
      f(One{}, std::true_type{}, kind);
    } else {
      f(std::integral_constant<int, decltype(kind)::kVectors>{}, std::true_type{}, kind);
    }
  });
}

}  // namespace scav::SCAV_LEVEL
