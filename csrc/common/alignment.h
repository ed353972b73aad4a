// Recursions over an alignment grid, r[s, t] = cell(cost[s, t], r[s-1, t-1], r[s-1, t], r[s, t-1]), for many pairs side
// by side: one SIMD lane to a pair. Steps t of y are the outer loop, rows s of x the inner one, and the state is the
// one column r[:, t] of every lane. Included once per SIMD level (foreach_level.h): no include guard.

namespace scav::SCAV_LEVEL {

// What an unreachable cell holds: large, and still finite after any sum of costs.
template <class T>
inline constexpr T kUnreachable = std::numeric_limits<T>::max() / 16;
// What every reached cell is below, even where negative costs follow an unreachable one.
template <class T>
inline constexpr T kReached = kUnreachable<T> / 2;

// Per-lane ends and bands of a set of pairs. A Sakoe-Chiba band of radius r lets t - s lie in
// [-r - max(n - m, 0), r + max(m - n, 0)], as tslearn.metrics builds it for lengths n and m.
template <class T>
struct Lanes {
  bool banded;
  Buffer<T> low, high;              // (lanes,) bounds of t - s
  int64_t lowest = 0, highest = 0;  // over the lanes
  int64_t rows;

  template <class Pairs>
  Lanes(const Pairs& pairs, std::optional<int64_t> band)
      : banded(band.has_value()), low(pairs.lanes()), high(pairs.lanes()), rows(pairs.rows()) {
    const int64_t reach = rows + pairs.steps();
    const int64_t radius = banded ? std::min(*band, reach) : reach;
    for (int64_t lane = 0; lane < pairs.lanes(); ++lane) {
      const int64_t n = pairs.rows_of(lane), m = pairs.steps_of(lane);
      const int64_t from = -radius - std::max<int64_t>(n - m, 0), to = radius + std::max<int64_t>(m - n, 0);
      low[lane] = static_cast<T>(from);
      high[lane] = static_cast<T>(to);
      if (m > 0) {
        lowest = std::min(lowest, from);
        highest = std::max(highest, to);
      }
    }
  }
  int64_t first_row(int64_t t) const { return std::clamp<int64_t>(t - highest, 0, rows); }
  int64_t end_row(int64_t t) const { return std::clamp<int64_t>(t - lowest + 1, 0, rows); }
};

// Whether the cells that lie `offset` = t - s off the diagonal are in the bands of vector number v of the lanes.
template <class T, int W>
SCAV_INLINE auto in_band(const Lanes<T>& lanes, int v, int64_t offset) {
  const T at = static_cast<T>(offset);
  return (load<T, W>(lanes.low.data() + v * W) <= at) & (load<T, W>(lanes.high.data() + v * W) >= at);
}

// One stretch of steps, with its costs laid out as Pairs::costs leaves them.
struct Stretch {
  int64_t step0, step1;
};

// Advances `state` (rows, lanes) from column step0 - 1 to column step1 - 1; `cell` is called as
// cell(s, t, vector, cost, diagonal, up, left) for the vectors of every cell, and `on_step(t)` after each column.
template <class T, int W, int V, bool banded, class Cell, class OnStep>
void sweep(const Stretch& stretch, const Lanes<T>& lanes, const T* costs, int64_t stride, T* state, const Cell& cell,
           const OnStep& on_step) {
  constexpr int64_t width = W * V;
  for (int64_t t = stretch.step0; t < stretch.step1; ++t) {
    const int64_t row0 = lanes.first_row(t), row1 = lanes.end_row(t);
    Vec<T, W> diagonal[V], up[V];
    for (int v = 0; v < V; ++v) {
      up[v] = splat<T, W>(kUnreachable<T>);
      // The grid is entered at (0, 0), as if diagonally from a cell of cost 0.
      diagonal[v] =
          row0 > 0 ? load<T, W>(state + (row0 - 1) * width + v * W) : splat<T, W>(t == 0 ? T(0) : kUnreachable<T>);
    }
    for (int64_t s = row0; s < row1; ++s) {
      T* at = state + s * width;
      const T* cost = costs + s * stride + (t - stretch.step0) * width;
      for (int v = 0; v < V; ++v) {
        const Vec<T, W> left = load<T, W>(at + v * W);
        Vec<T, W> r = cell(s, t, v, load<T, W>(cost + v * W), diagonal[v], up[v], left);
        if constexpr (banded) {
          r = in_band<T, W>(lanes, v, t - s) ? r : splat<T, W>(kUnreachable<T>);
        }
        store<T, W>(at + v * W, r);
        diagonal[v] = left;
        up[v] = r;
      }
    }
    on_step(t);
  }
}

// Results of the lanes that end at step t, read from the state after column t.
template <class T, class Pairs>
void take_results(const Pairs& pairs, int64_t t, const T* state, const std::vector<int64_t>& results, T* out) {
  const int64_t width = pairs.lanes();
  for (int64_t lane = 0; lane < width; ++lane) {
    if (pairs.steps_of(lane) == t + 1) {
      const T r = state[(pairs.rows_of(lane) - 1) * width + lane];
      out[results[static_cast<size_t>(lane)]] = r < kReached<T> ? r : std::numeric_limits<T>::infinity();
    }
  }
}

// How many sequences there are to fill lanes with, whether those of one recursion share their x, and the longest grid.
struct GridSizes {
  int64_t sequences;
  bool shared;
  int64_t rows, steps;
};

inline GridSizes grid_sizes(const Inputs& inputs) {
  return {inputs.batch_y(), !inputs.paired, inputs.steps_x(), inputs.steps_y()};
}

// Lanes side by side in a recursion: four registers hide the latency of the chain along s, narrow lanes keep the
// scratch of long sequences small. Chosen for the least time over `parts` threads that each take whole groups. Pairs
// with an x of their own are few, and compiled for one register only.
template <class T>
int64_t choose_lanes(const GridSizes& sizes, int64_t parts, int64_t bytes_per_cell) {
  constexpr int64_t w = kWidth<T>, narrow = std::min<int64_t>(w, 4);
  struct Option {
    int64_t lanes;
    double time;  // of one lane, relative
  };
  const Option options[] = {{4 * w, 1.0}, {2 * w, 1.1}, {w, 1.3}, {narrow, 1.3 * static_cast<double>(w / narrow)}};
  constexpr int64_t kScratch = int64_t(24) << 20;
  int64_t best = narrow;
  double least = std::numeric_limits<double>::infinity();
  for (const Option& option : options) {
    if (!sizes.shared && option.lanes > w) {
      continue;
    }
    const int64_t groups = (sizes.sequences + option.lanes - 1) / option.lanes;
    const double time = static_cast<double>((groups + parts - 1) / parts * option.lanes) * option.time;
    const Plan plan = plan_stretches(sizes.rows, sizes.steps, option.lanes, kNarrowPanel, bytes_per_cell, sizeof(T));
    if (time < least && plan.bytes <= kScratch) {
      least = time;
      best = option.lanes;
    }
  }
  return best;
}

// Calls f(std::integral_constant W, std::integral_constant V) for the number of lanes, W * V.
template <class T, class Pairs, class F>
void with_lanes(const Pairs& pairs, const F& f) {
  constexpr int w = kWidth<T>, narrow = std::min(w, 4);
  using std::integral_constant;
  if constexpr (Pairs::kShared) {
    if (pairs.lanes() == 4 * w) {
      return f(integral_constant<int, w>{}, integral_constant<int, 4>{});
    }
    if (pairs.lanes() == 2 * w) {
      return f(integral_constant<int, w>{}, integral_constant<int, 2>{});
    }
  }
  if (pairs.lanes() == w) {
    return f(integral_constant<int, w>{}, integral_constant<int, 1>{});
  }
  f(integral_constant<int, narrow>{}, integral_constant<int, 1>{});
}

}  // namespace scav::SCAV_LEVEL
