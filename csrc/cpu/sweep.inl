// Recursions over an alignment grid, r[s, t] = cell(cost[s, t], r[s-1, t-1], r[s-1, t], r[s, t-1]), for many pairs side
// by side: one SIMD lane to a pair. Steps t of y are the outer loop, rows s of x the inner one, and the state is the
// one column r[:, t] of every lane. Included once per SIMD level (foreach_level.h): no include guard.

namespace scav::SCAV_LEVEL {

// Per-lane ends and bands of a set of pairs. A Sakoe-Chiba band of radius r lets t - s lie in
// [-r - max(n - m, 0), r + max(m - n, 0)], as tslearn.metrics builds it for lengths n and m.
template <class T>
struct Lanes {
  bool banded;
  Buffer<T> low, high;                       // (lanes,) bounds of t - s
  std::vector<int64_t> last_row, last_step;  // (lanes,) of a pair; -1 where there is none
  int64_t lowest = 0, highest = 0;           // over the lanes
  // Bounds of the offsets that are in the bands of all lanes.
  int64_t inner_low = std::numeric_limits<int64_t>::min() / 2, inner_high = std::numeric_limits<int64_t>::max() / 2;
  int64_t rows;
  bool open_begin;  // paths may start anywhere in the first row

  template <class Pairs>
  Lanes(const Pairs& pairs, std::optional<int64_t> band, bool open)
      : banded(band.has_value()), low(pairs.lanes()), high(pairs.lanes()), rows(pairs.rows()), open_begin(open) {
    const int64_t reach = rows + pairs.steps();
    const int64_t radius = banded ? std::min(*band, reach) : reach;
    last_row.reserve(static_cast<size_t>(pairs.lanes()));
    last_step.reserve(static_cast<size_t>(pairs.lanes()));
    for (int64_t lane = 0; lane < pairs.lanes(); ++lane) {
      const int64_t n = pairs.rows_of(lane), m = pairs.steps_of(lane);
      last_row.push_back(n - 1);
      last_step.push_back(m - 1);
      const int64_t from = -radius - std::max<int64_t>(n - m, 0), to = radius + std::max<int64_t>(m - n, 0);
      low[lane] = static_cast<T>(from);
      high[lane] = static_cast<T>(to);
      if (m > 0) {
        lowest = std::min(lowest, from);
        highest = std::max(highest, to);
        if (banded) {
          inner_low = std::max(inner_low, from);
          inner_high = std::min(inner_high, to);
        }
      }
    }
  }
  int64_t first_row(int64_t t) const { return std::clamp<int64_t>(t - highest, 0, rows); }
  int64_t end_row(int64_t t) const { return std::clamp<int64_t>(t - lowest + 1, 0, rows); }
  // r above the first row, after its first step.
  T above() const { return open_begin ? T(0) : kUnreachable<T>; }
};

// True in the lanes of vector v whose band has the cells `offset` = t - s off the diagonal.
template <class T, int W>
SCAV_INLINE auto in_band(const Lanes<T>& lanes, int v, int64_t offset) {
  const T at = static_cast<T>(offset);
  return (load<T, W>(lanes.low.data() + v * W) <= at) & (load<T, W>(lanes.high.data() + v * W) >= at);
}

// Steps [step0, step1), with their costs laid out as Pairs::costs leaves them.
struct StepRange {
  int64_t step0, step1;
};

// sweep(), with or without bands. No parameter depends on the kind of pairs, and `cell` is copied, so that it stays in
// registers: one function serves all.
template <class Values, int V, bool banded, class T, class Cell, class Ends>
__attribute__((noinline)) void sweep_steps(const StepRange& range, const Lanes<T>& lanes, const T* costs,
                                           int64_t stride, int64_t vector_stride, T* state, Cell cell, Ends& ends) {
  using Value = typename Values::Value;
  constexpr int W = Values::kLanes, size = W * Values::kParts;
  for (int64_t t = range.step0; t < range.step1; ++t) {
    const int64_t row0 = lanes.first_row(t), row1 = lanes.end_row(t);
    Value diagonal[V], up[V];
    for (int v = 0; v < V; ++v) {
      up[v] = Values::unreachable();
      // Paths enter the grid diagonally, from a cell of cost 0.
      diagonal[v] = row0 > 0                     ? load_value<Values>(state + ((row0 - 1) * V + v) * size)
                    : t == 0 || lanes.open_begin ? Values::zero()
                                                 : Values::unreachable();
    }
    for (int64_t s = row0; s < row1; ++s) {
      T* at = state + s * V * size;
      const T* cost = costs + s * stride + (t - range.step0) * W;
      for (int v = 0; v < V; ++v) {
        const Value left = load_value<Values>(at + v * size);
        Value r = cell(s, t, v, load<T, W>(cost + v * vector_stride), diagonal[v], up[v], left);
        if constexpr (banded) {
          r = Values::reachable_where(in_band<T, W>(lanes, v, t - s), r);
        }
        store_value<Values>(at + v * size, r);
        diagonal[v] = left;
        up[v] = r;
      }
    }
    ends.take(t, state);
  }
}

// Advances `state` (rows, V) of Values from column step0 - 1 to column step1 - 1; `cell` is called as
// cell(s, t, vector, cost, diagonal, up, left) for the vectors of every cell, and `ends.take(t, state)` after each
// column.
template <class Values, int V, class T, class Cell, class Ends>
void sweep(const StepRange& range, const Lanes<T>& lanes, const T* costs, int64_t stride, int64_t vector_stride,
           T* state, const Cell& cell, Ends& ends) {
  if (lanes.banded) {
    sweep_steps<Values, V, true>(range, lanes, costs, stride, vector_stride, state, cell, ends);
  } else {
    sweep_steps<Values, V, false>(range, lanes, costs, stride, vector_stride, state, cell, ends);
  }
}

// Numbers of sequences that fill vectors and lanes, whether lanes share their x, and the size of the longest grid.
struct GridSizes {
  int64_t xs, ys;
  bool shared;
  int64_t rows, steps;
};

inline GridSizes grid_sizes(const Inputs& inputs) {
  return {inputs.paired ? 1 : inputs.batch_x(), inputs.batch_y(), !inputs.paired, inputs.steps_x(), inputs.steps_y()};
}

// Largest number of x's in a recursion: independent chains along s hide each other's latency.
inline constexpr int kMaxVectors = 4;
// The same of pairs that share no x, and whole vectors only.
inline constexpr int kMaxSeparateVectors = 2;

// Lanes of the narrowest vector of several y's; vectors are as wide as a register, or half, and so on. A single y has
// one lane.
template <class T>
inline constexpr int kMinLanes = std::min(kWidth<T>, 4);

// Most bytes of the states and cells of a recursion.
inline constexpr int64_t kScratch = int64_t(24) << 20;

// Chooses the lanes of a recursion. A vector's lanes are y's of one x; narrow vectors leave fewer lanes empty, and
// keep the scratch of long sequences small. The choice takes the least time over the threads. They divide the
// recursions or, where `by_group`, whole groups of y's; a recursion keeps cells until it is walked
// backwards. Pairs that share no x are compiled for one vector of several lanes, and several whole vectors.
template <class T>
LaneCount choose_lanes(const GridSizes& sizes, bool by_group, const KeptBytes& kept) {
  constexpr int64_t kSecondLevelCache = int64_t(1) << 20;
  LaneCount best{kMinLanes<T>, 1};
  double best_time = std::numeric_limits<double>::infinity();
  const int64_t parts = thread_count(), narrowest = sizes.shared ? 1 : kMinLanes<T>;
  for (int64_t width = kWidth<T>; width >= narrowest; width /= width > kMinLanes<T> ? 2 : kMinLanes<T>) {
    const bool whole = width == kWidth<T> && sizes.ys > width;
    const int64_t most = sizes.shared ? (sizes.xs > 1 ? kMaxVectors : 1) : (whole ? kMaxSeparateVectors : 1);
    for (int64_t vectors = most; vectors >= 1; vectors /= 2) {
      const int64_t of_group = sizes.shared ? width : width * vectors, groups = (sizes.ys + of_group - 1) / of_group;
      const int64_t recursions = sizes.shared ? (sizes.xs + vectors - 1) / vectors : 1;  // of one group
      const int64_t tasks = by_group ? groups : groups * recursions,
                    lanes = width * vectors * (by_group ? recursions : 1);
      const CheckpointPlan plan = plan_checkpoints(sizes.rows, sizes.steps, width * vectors, kNarrowPanel, kept);
      // Factors of the time of a lane: a narrow vector, few vectors, cells that leave the cache. A vector of the
      // recursion takes the same time at every width, and products hide that; of few features there are none.
      const auto halvings = static_cast<double>(kWidth<T> / width - 1);
      const double narrow = 1 + (kept.few_features ? 1 : 0.12) * halvings;
      const double few = 1 + 0.12 * static_cast<double>(kMaxVectors / vectors - 1);
      const int64_t read_back = kept.few_features ? plan.steps * sizes.rows * width * vectors * kept.cell : plan.bytes;
      const double spilled = read_back > kSecondLevelCache ? 1.35 : 1;
      const double time = static_cast<double>((tasks + parts - 1) / parts * lanes) * narrow * few * spilled;
      if (time < best_time && plan.bytes <= kScratch) {
        best_time = time;
        best = {width, vectors};
      }
    }
  }
  return best;
}

// Calls f(std::integral_constant W, std::integral_constant V) for the lanes of a recursion, V vectors of W.
template <class T, int W = kWidth<T>, class Pairs, class F>
void with_lanes(const Pairs& pairs, const F& f) {
  using std::integral_constant;
  if constexpr (W > kMinLanes<T> || (Pairs::kShared && W > 1)) {
    if (pairs.width() < W) {
      return with_lanes<T, (W > kMinLanes<T> ? W / 2 : 1)>(pairs, f);
    }
  }
  if constexpr (Pairs::kShared) {
    if (pairs.lanes() == kMaxVectors * W) {
      return f(integral_constant<int, W>{}, integral_constant<int, kMaxVectors>{});
    }
  }
  if constexpr (Pairs::kShared || W == kWidth<T>) {
    if (pairs.lanes() == 2 * W) {
      return f(integral_constant<int, W>{}, integral_constant<int, 2>{});
    }
  }
  f(integral_constant<int, W>{}, integral_constant<int, 1>{});
}

}  // namespace scav::SCAV_LEVEL
