// The recursion of sweep.inl where costs are computed in it, from the differences of few features
// (difference_costs.inl). Included once per SIMD level (foreach_level.h): no include guard.

namespace scav::SCAV_LEVEL {

// Pairs that share a recursion of whole vectors: some x's against the y's of a group, or a group's x's and y's one by
// one.
template <class T>
struct DifferencePairs {
  std::vector<const T*> x;                    // as DifferenceTile reads them
  const T* y;                                 // (steps, dim, W), whole passes
  std::vector<int64_t> lengths_x, lengths_y;  // of each lane, 0 where there is no pair
  Buffer<T> packed_x, packed_y;               // of pairs of their own

  int64_t lanes() const { return static_cast<int64_t>(lengths_x.size()); }
  int64_t rows() const { return *std::max_element(lengths_x.begin(), lengths_x.end()); }
  int64_t steps() const { return *std::max_element(lengths_y.begin(), lengths_y.end()); }
  int64_t rows_of(int64_t lane) const { return lengths_x[static_cast<size_t>(lane)]; }
  int64_t steps_of(int64_t lane) const { return lengths_y[static_cast<size_t>(lane)]; }
};

// Least values of cells by their offset t - s from the diagonal: unreachable outside a lane's band.
template <class T, int W, int V>
class BandWalls {
 public:
  explicit BandWalls(const Lanes<T>& lanes) {
    if (!lanes.banded) {
      return;
    }
    const int64_t last_step = *std::max_element(lanes.last_step.begin(), lanes.last_step.end());
    first_ = std::max(lanes.lowest - kPassSteps + 1, 1 - lanes.rows);
    const int64_t end = std::min(lanes.highest, last_step) + kPassSteps;
    walls_ = Buffer<T>((end - first_) * W * V);
    for (int64_t offset = first_; offset < end; ++offset) {
      for (int v = 0; v < V; ++v) {
        store<T, W>(walls_.data() + ((offset - first_) * V + v) * W, in_band<T, W>(lanes, v, offset)
                                                                         ? splat<T, W>(std::numeric_limits<T>::lowest())
                                                                         : splat<T, W>(kUnreachable<T>));
      }
    }
  }
  SCAV_INLINE Vec<T, W> at(int64_t offset, int v) const {
    return load<T, W>(walls_.data() + ((offset - first_) * V + v) * W);
  }

 private:
  int64_t first_ = 0;
  Buffer<T> walls_;  // (offsets, V, W)
};

// The row after the last one of some lanes of a vector, and the last pass that comes to it.
struct LaneEnd {
  int64_t last_pass, end_row, vector;

  auto operator<=>(const LaneEnd&) const = default;
};

// In the order in which passes come to them. Every pass comes to the ends of open paths: they have pass 0.
template <class T, int W>
std::vector<LaneEnd> lane_ends(const Lanes<T>& lanes, bool open) {
  std::vector<LaneEnd> ends;
  for (size_t lane = 0; lane < lanes.last_row.size(); ++lane) {
    if (lanes.last_step[lane] < 0) {
      continue;
    }
    const LaneEnd end{open ? 0 : lanes.last_step[lane] / kPassSteps, lanes.last_row[lane] + 1,
                      static_cast<int64_t>(lane) / W};
    // Sequences of one length, as most are, end together.
    if (ends.empty() || ends.back() != end) {
      ends.push_back(end);
    }
  }
  std::sort(ends.begin(), ends.end());
  ends.erase(std::unique(ends.begin(), ends.end()), ends.end());
  return ends;
}

// What a pass carries from one row to the next: r[s - 1, t ... t + K - 1], and r[s - 1, t - 1].
template <class T, int W, int V>
struct PassCarry {
  Vec<T, W> up[V][kPassSteps], diagonal[V];
};

// Rows [row0, row1) of one pass; cells outside their lane's band become unreachable where `walled`.
template <class T, int W, int V, bool walled, class Tile, class Cell>
SCAV_INLINE void pass_rows(const Tile& tile, const BandWalls<T, W, V>& walls, int64_t t, int64_t row0, int64_t row1,
                           T* state, PassCarry<T, W, V>& carry, const Cell& cell) {
  constexpr int K = kPassSteps;
  // Copied number by number, which leaves them in registers.
  Vec<T, W> up[V][K], above[V];
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) {
    above[v] = carry.diagonal[v];
#pragma GCC unroll 4
    for (int j = 0; j < K; ++j) {
      up[v][j] = carry.up[v][j];
    }
  }
  for (int64_t s = row0; s < row1; ++s) {
    Vec<T, W> costs[V][K];
    tile.costs(s, costs);
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      T* at = state + (s * V + v) * W;
      const Vec<T, W> before = load<T, W>(at);
      Vec<T, W> left = before, diagonal = above[v];
#pragma GCC unroll 4
      for (int j = 0; j < K; ++j) {
        Vec<T, W> r = cell(s, t + j, v, costs[v][j], diagonal, up[v][j], left);
        if constexpr (walled) {
          r = vmax(walls.at(t + j - s, v), r);
        }
        diagonal = up[v][j];
        up[v][j] = left = r;
      }
      store<T, W>(at, left);
      above[v] = before;
    }
  }
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) {
    carry.diagonal[v] = above[v];
#pragma GCC unroll 4
    for (int j = 0; j < K; ++j) {
      carry.up[v][j] = up[v][j];
    }
  }
}

// Advances `state` (rows, lanes) from column t - 1 to column t + K - 1; `cell` is that of sweep(). Paths can end in
// these columns of the rows before [end, last_end): `results` takes those cells.
template <class T, int W, int V, class Tile, class Cell>
void difference_pass(const Tile& tile, const Lanes<T>& lanes, const BandWalls<T, W, V>& walls, int64_t t,
                     const LaneEnd* end, const LaneEnd* last_end, T* state, Cell cell, PathEnds<T>& results) {
  constexpr int K = kPassSteps;
  const int64_t row0 = lanes.first_row(t), row1 = lanes.end_row(t + K - 1);
  // Rows whose cells are in the bands of all lanes.
  const int64_t inner0 = std::clamp(t + K - 1 - lanes.inner_high, row0, row1),
                inner1 = std::clamp(t - lanes.inner_low + 1, inner0, row1);
  PassCarry<T, W, V> carry;
  for (int v = 0; v < V; ++v) {
    // Paths enter the grid diagonally, from a cell of cost 0. Where all of the row above is 0, s - 1 is no better.
    carry.diagonal[v] =
        row0 > 0 ? load<T, W>(state + ((row0 - 1) * V + v) * W) : splat<T, W>(t == 0 ? T(0) : lanes.above());
    for (int j = 0; j < K; ++j) {
      carry.up[v][j] = splat<T, W>(row0 > 0 ? kUnreachable<T> : lanes.above());
    }
  }
  int64_t s = row0;
  while (end != last_end && end->end_row <= row0) {
    ++end;
  }
  while (s < row1) {
    const int64_t to = end == last_end ? row1 : std::min(end->end_row, row1);
    while (s < to) {
      const bool inner = s >= inner0 && s < inner1;
      const int64_t stop = std::min(to, s < inner0 ? inner0 : (inner ? inner1 : row1));
      if (inner) {
        pass_rows<T, W, V, false>(tile, walls, t, s, stop, state, carry, cell);
      } else {
        pass_rows<T, W, V, true>(tile, walls, t, s, stop, state, carry, cell);
      }
      s = stop;
    }
    for (; end != last_end && end->end_row == s; ++end) {
      results.template take_cells<W>(end->vector, s, t, carry.up[end->vector], K);
    }
  }
}

// Advances `state` by steps [step0, step1), whole passes but the last.
template <class T, int W, int V, class Tile, class Cell>
void difference_sweep(Tile tile, const StepRange& range, const Lanes<T>& lanes, const BandWalls<T, W, V>& walls,
                      const std::vector<LaneEnd>& ends, T* state, const Cell& cell, PathEnds<T>& results) {
  const T* y = tile.y;
  const auto by_pass = [](const LaneEnd& end, int64_t pass) { return end.last_pass < pass; };
  const int64_t first_pass = results.open ? 0 : range.step0 / kPassSteps;
  const LaneEnd* end = ends.data() + (std::lower_bound(ends.begin(), ends.end(), first_pass, by_pass) - ends.begin());
  const LaneEnd* const last = ends.data() + ends.size();
  for (int64_t t = range.step0; t < range.step1; t += kPassSteps) {
    poll(lanes.rows * W * V * kPassSteps * (tile.dim + 1));
    const LaneEnd* next = end;
    while (next != last && next->last_pass <= t / kPassSteps) {
      ++next;
    }
    tile.y = y + t * tile.dim * W;
    difference_pass<T, W, V>(tile, lanes, walls, t, end, next, state, cell, results);
    end = results.open ? end : next;
  }
}

// Writes (steps, D, lanes) of a group's sequences, zero where there is no step, or a sequence has inf or NaN.
template <class T>
void pack_lanes(const Sequences<T>& sequences, const Layout& layout, const Group& group, int64_t steps, T* to) {
  const int64_t dim = sequences.dim, lanes = group.lanes;
  std::vector<const T*> rows(static_cast<size_t>(lanes));
  std::vector<int64_t> sizes(static_cast<size_t>(lanes));
  int64_t common = steps * dim;  // numbers that all sequences have
  for (int64_t lane = 0; lane < group.count; ++lane) {
    const int64_t b = layout.order[static_cast<size_t>(group.first + lane)];
    if (sequences.nonfinite[b] == 0) {
      rows[static_cast<size_t>(lane)] = sequences.row(b, 0);
      sizes[static_cast<size_t>(lane)] = sequences.lengths[b] * dim;
      common = std::min(common, sequences.lengths[b] * dim);
    }
  }
  const auto finite = std::find_if(rows.begin(), rows.end(), [](const T* row) { return row != nullptr; });
  if (finite == rows.end()) {
    common = 0;
  }
  transpose<T>(
      lanes, common,
      [&](int64_t lane) {
        const T* row = rows[static_cast<size_t>(lane)];
        return row ? row : *finite;
      },
      [&](int64_t k) { return to + k * lanes; });
  for (int64_t lane = 0; lane < lanes; ++lane) {
    const T* row = rows[static_cast<size_t>(lane)];
    const int64_t size = sizes[static_cast<size_t>(lane)];
    for (int64_t k = row ? common : 0; k < steps * dim; ++k) {
      to[k * lanes + lane] = k < size ? row[k] : T(0);
    }
  }
}

// Steps of the longest of a group's sequences.
template <class T>
int64_t longest_of(const Sequences<T>& sequences, const Layout& layout, const Group& group) {
  int64_t longest = 0;
  for (int64_t lane = 0; lane < group.count; ++lane) {
    longest = std::max(longest, sequences.lengths[layout.order[static_cast<size_t>(group.first + lane)]]);
  }
  return longest;
}

inline int64_t whole_passes(int64_t steps) { return (steps + kPassSteps - 1) / kPassSteps * kPassSteps; }

// The groups of a batch, packed.
template <class T>
struct PassGroups {
  std::vector<int64_t> starts;  // of each group
  Buffer<T> steps;              // for each group (steps, D, lanes), whole passes

  PassGroups() = default;
  PassGroups(const Sequences<T>& sequences, const Layout& layout) {
    int64_t size = 0;
    std::vector<double> weights;
    for (const Group& group : layout.groups) {
      starts.push_back(size);
      const int64_t of_group = whole_passes(group.steps) * sequences.dim * group.lanes;
      size += of_group;
      weights.push_back(static_cast<double>(of_group));
    }
    steps = Buffer<T>(size);
    const int64_t parts = thread_count();
    const auto bounds = split_by_weight(weights, parts);
    run_parts(parts, [&](int64_t part) {
      for (int64_t g = bounds[static_cast<size_t>(part)]; g < bounds[static_cast<size_t>(part) + 1]; ++g) {
        const Group& group = layout.groups[static_cast<size_t>(g)];
        poll(group.steps * sequences.dim * group.lanes);
        pack_lanes(sequences, layout, group, whole_passes(group.steps), steps.data() + starts[static_cast<size_t>(g)]);
      }
    });
  }
};

// Sequences in the order of passes, as pairs of every x with every y, packed as one batch, or of x number i with y
// number i, packed when their recursion begins.
template <class T>
struct DifferenceBatch {
  static constexpr int W = kWidth<T>;
  Sequences<T> x, y;
  bool paired;
  int64_t vectors;
  Layout layout;                 // of the y's, and of the x's where they are paired
  std::vector<int64_t> x_order;  // by length, so that those of one recursion are about equally long
  PassGroups<T> groups;          // of the y's, unless paired

  DifferenceBatch(const Inputs& inputs, int64_t count)
      : x(inputs.sequences_x<T>()),
        y(inputs.sequences_y<T>()),
        paired(inputs.paired),
        vectors(count),
        layout(paired ? interleave_pairs(x.lengths, y.lengths, y.batch, W) : interleave(y.lengths, y.batch, W)),
        x_order(by_length(x.lengths, x.batch)) {
    if (!paired) {
      groups = PassGroups<T>(y, layout);
    }
  }

  // The pairs of a recursion, and their result indices: a group's own where paired, else x's number [first, end) of
  // `x_order` with the group.
  std::pair<DifferencePairs<T>, std::vector<int64_t>> recursion(const Group& group, int64_t first, int64_t end) const {
    DifferencePairs<T> pairs{{}, nullptr, {}, {}, {}, {}};
    if (paired) {
      const int64_t rows = longest_of(x, layout, group), steps = whole_passes(group.steps);
      pairs.packed_x = Buffer<T>(rows * x.dim * W);
      pairs.packed_y = Buffer<T>(steps * y.dim * W);
      pack_lanes(x, layout, group, rows, pairs.packed_x.data());
      pack_lanes(y, layout, group, steps, pairs.packed_y.data());
      pairs.y = pairs.packed_y.data();
    } else {
      pairs.y = groups.steps.data() + groups.starts[static_cast<size_t>(&group - layout.groups.data())];
    }
    const auto lanes = static_cast<size_t>(vectors * W);
    std::vector<int64_t> results;
    results.reserve(lanes);
    pairs.lengths_x.reserve(lanes);
    pairs.lengths_y.reserve(lanes);
    for (int64_t v = 0; v < vectors; ++v) {
      // Vectors past the last x compute it again, for no result.
      const int64_t i = x_order[static_cast<size_t>(std::min(first + v, end - 1))];
      pairs.x.push_back(paired ? pairs.packed_x.data() : x.row(i, 0));
      for (int64_t lane = 0; lane < W; ++lane) {
        const bool used = lane < group.count && first + v < end;
        const int64_t j = used ? layout.order[static_cast<size_t>(group.first + lane)] : -1;
        pairs.lengths_x.push_back(used ? x.lengths[paired ? j : i] : 0);
        pairs.lengths_y.push_back(used ? y.lengths[j] : 0);
        results.push_back(used && !paired ? i * y.batch + j : j);
      }
    }
    return {std::move(pairs), std::move(results)};
  }
};

// Calls f(pairs, results) for every recursion.
template <class T, class F>
void for_each_pairs(const DifferenceBatch<T>& batch, const F& f) {
  for_each_recursion(batch.layout.groups, batch.paired ? kOwnX : batch.x_order, batch.x.lengths, batch.vectors,
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
        plan_checkpoints(sizes.rows, sizes.steps, kWidth<T> * vectors, kPassSteps, {bytes_per_cell, sizeof(T)});
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
