// LB_Keogh: a path of DTW meets every step of either sequence, and its band says which steps of the other one a step
// may meet. So the path's cost is at least the sum, over the steps of one sequence, of their costs from the box that
// holds all steps that they may meet. Included once per SIMD level (foreach_level.h): no include guard.

namespace scav::SCAV_LEVEL {

// The steps that step s may meet: from s - before to s + after.
struct Reach {
  int64_t before, after;

  Reach of_other() const { return {after, before}; }
  int64_t window() const { return before + after + 1; }
  friend bool operator==(const Reach& a, const Reach& b) { return a.before == b.before && a.after == b.after; }
};

// Those of y that a row of x may meet, in any pair of n rows and `shortest` to `longest` steps (sweep.inl has the
// band).
inline Reach reach_of_rows(std::optional<int64_t> band, int64_t n, int64_t shortest, int64_t longest) {
  const int64_t whole = n + longest, radius = std::min(band.value_or(whole), whole);
  return {std::min(radius + std::max<int64_t>(n - shortest, 0), n - 1),
          std::min(radius + std::max<int64_t>(longest - n, 0), longest - 1)};
}

// Replaces row i of (rows, width) by pick() over rows i ... i + window - 1, where there are as many.
template <class T, class Pick>
void slide(T* numbers, int64_t rows, int64_t width, int64_t window, const Pick& pick) {
  constexpr int w = kWidth<T>;
  const auto fold = [&](int64_t ahead, int64_t kept) {
    const int64_t size = kept * width, shift = ahead * width;
    int64_t i = 0;
    for (; i + w <= size; i += w) {
      store<T, w>(numbers + i, pick(load<T, w>(numbers + i), load<T, w>(numbers + i + shift)));
    }
    for (; i < size; ++i) {
      numbers[i] = pick(numbers[i], numbers[i + shift]);
    }
  };
  // Windows of 1, 2, 4, ... rows, and at last two that overlap.
  int64_t span = 1;
  for (; 2 * span <= window; span *= 2) {
    fold(span, rows - 2 * span + 1);
  }
  fold(window - span, rows - window + 1);
}

// The least and the largest numbers of the steps that each of some steps may meet, (steps, width) each.
template <class T>
class Envelope {
 public:
  const T* low() const { return low_.data(); }
  const T* high() const { return high_.data(); }

  // For `count` steps, of which each may meet those of `others` steps within its reach. copy(step, low, high) writes
  // the numbers of one of these, or inf and -inf where there is none.
  template <class Copy>
  void make(int64_t count, int64_t others, Reach reach, int64_t width, const Copy& copy) {
    constexpr T inf = std::numeric_limits<T>::infinity();
    const int64_t rows = count + reach.window() - 1;
    if (rows * width > size_) {
      size_ = rows * width;
      low_ = Buffer<T>(size_);
      high_ = Buffer<T>(size_);
    }
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t step = row - reach.before;
      T *low = low_.data() + row * width, *high = high_.data() + row * width;
      if (step >= 0 && step < others) {
        copy(step, low, high);
      } else {
        std::fill_n(low, width, inf);
        std::fill_n(high, width, -inf);
      }
    }
    slide(low_.data(), rows, width, reach.window(), [](auto a, auto b) { return vmin(a, b); });
    slide(high_.data(), rows, width, reach.window(), [](auto a, auto b) { return vmax(a, b); });
  }

 private:
  Buffer<T> low_, high_;
  int64_t size_ = 0;
};

// y's side by side, a lane to a y. Number k of step t is at `steps` + place(t, k, dim).
template <class T>
struct SeriesPanel {
  static constexpr int w = kWidth<T>;
  const T* steps;           // (steps, dim, lanes)
  int64_t lengths[w] = {};  // 0 in a lane without a y
  int64_t shortest = std::numeric_limits<int64_t>::max(), longest = 0;

  static int64_t place(int64_t t, int64_t k, int64_t dim) { return (t * dim + k) * w; }
  void put(int64_t lane, int64_t length) {
    lengths[lane] = length;
    shortest = std::min(shortest, length);
    longest = std::max(longest, length);
  }
  // All bits of the lanes that have a step t, or none.
  Vec<IntOf<T>, w> with_step(int64_t t) const {
    Vec<IntOf<T>, w> lanes{};
    for (int lane = 0; lane < w; ++lane) {
      lanes[lane] = lengths[lane] > t ? -1 : 0;
    }
    return lanes;
  }
  void envelope(int64_t n, int64_t dim, Reach reach, Envelope<T>& to) const {
    constexpr T inf = std::numeric_limits<T>::infinity();
    to.make(n, longest, reach, dim * w, [&](int64_t t, T* low, T* high) {
      const auto lanes = with_step(t);
      for (int64_t k = 0; k < dim; ++k) {
        const Vec<T, w> step = load<T, w>(steps + place(t, k, dim));
        store<T, w>(low + k * w, lanes ? step : splat<T, w>(inf));
        store<T, w>(high + k * w, lanes ? step : splat<T, w>(-inf));
      }
    });
  }
};

// The rows of x that each step of y may meet; of one x, for one panel after the other.
template <class T>
class RowEnvelope {
 public:
  const Envelope<T>& of(const T* x, int64_t n, int64_t dim, int64_t steps, Reach reach) {
    if (!(reach == reach_) || steps > steps_) {
      reach_ = reach;
      steps_ = steps;
      envelope_.make(steps, n, reach, dim, [&](int64_t s, T* low, T* high) {
        std::copy_n(x + s * dim, dim, low);
        std::copy_n(x + s * dim, dim, high);
      });
    }
    return envelope_;
  }

 private:
  Envelope<T> envelope_;
  Reach reach_{-1, -1};
  int64_t steps_ = 0;
};

// The cost of a step from a box, where excess(k) is by how much feature k lies outside. Rounds as the costs do
// (difference_costs.inl), so it is at most that of any step in the box.
template <class T, class Kind, class Excess>
SCAV_INLINE Vec<T, kWidth<T>> cost_from_box(int64_t dim, const Excess& excess) {
  if constexpr (Kind::kFeatures == 1) {
    const Vec<T, kWidth<T>> one = excess(0);
    return Kind::kCost == Cost::euclidean ? one : one * one;
  } else {
    Vec<T, kWidth<T>> square{};
    for (int64_t k = 0; k < dim; ++k) {
      const Vec<T, kWidth<T>> one = excess(k);
      square += one * one;
    }
    return Kind::kCost == Cost::euclidean ? vsqrt<T, kWidth<T>>(square) : square;
  }
}

// By how much a number lies outside a range: any two of the three may be vectors.
template <class T, class Number, class Range>
SCAV_INLINE Vec<T, kWidth<T>> outside(Number number, Range low, Range high) {
  return vmax(vmax(number - high, low - number), Vec<T, kWidth<T>>{});
}

template <class T>
SCAV_INLINE bool any_lane(Vec<IntOf<T>, kWidth<T>> mask) {
  return horizontal_sum<IntOf<T>, kWidth<T>>(mask) != 0;
}

// Steps between checks of whether all sums are above their limits: then they stop, and are over the first steps alone.
inline constexpr int64_t kBoundSteps = 16;

// Sums over the rows x (n, dim) of their costs from the panel's envelope.
template <class T, class Kind>
Vec<T, kWidth<T>> bound_by_rows(const T* x, int64_t n, int64_t dim, const Envelope<T>& envelope,
                                Vec<T, kWidth<T>> limits) {
  constexpr int w = kWidth<T>;
  Vec<T, w> sum{};
  for (int64_t first = 0; first < n; first += kBoundSteps) {
    for (int64_t s = first; s < std::min(first + kBoundSteps, n); ++s) {
      sum += cost_from_box<T, Kind>(dim, [&](int64_t k) __attribute__((always_inline)) {
        const int64_t at = s * dim + k;
        return outside<T>(x[at], load<T, w>(envelope.low() + at * w), load<T, w>(envelope.high() + at * w));
      });
    }
    if (!any_lane<T>(sum <= limits)) {
      break;
    }
  }
  return sum;
}

// Costs of step t of the panel's y's from the envelope of x, 0 in the lanes without a step t.
template <class T, class Kind>
SCAV_INLINE Vec<T, kWidth<T>> step_from_envelope(const SeriesPanel<T>& panel, int64_t t, int64_t dim,
                                                 const Envelope<T>& envelope) {
  constexpr int w = kWidth<T>;
  dim = Kind::kFeatures == 1 ? 1 : dim;
  const Vec<T, w> cost = cost_from_box<T, Kind>(dim, [&](int64_t k) __attribute__((always_inline)) {
    const int64_t at = t * dim + k;
    return outside<T>(load<T, w>(panel.steps + SeriesPanel<T>::place(t, k, dim)), envelope.low()[at],
                      envelope.high()[at]);
  });
  return t < panel.shortest ? cost : (panel.with_step(t) ? cost : Vec<T, w>{});
}

// Sums over the steps of the panel's y's of their costs from the envelope of x.
template <class T, class Kind>
Vec<T, kWidth<T>> bound_by_steps(const SeriesPanel<T>& panel, int64_t dim, const Envelope<T>& envelope,
                                 Vec<T, kWidth<T>> limits) {
  Vec<T, kWidth<T>> sum{};
  for (int64_t first = 0; first < panel.longest; first += kBoundSteps) {
    for (int64_t t = first; t < std::min(first + kBoundSteps, panel.longest); ++t) {
      sum += step_from_envelope<T, Kind>(panel, t, dim, envelope);
    }
    if (!any_lane<T>(sum <= limits)) {
      break;
    }
  }
  return sum;
}

// The y's of a batch in panels, by length, and the x's by length. y's with inf or NaN leave their lanes empty.
template <class T>
struct SeriesBatch {
  static constexpr int w = kWidth<T>;
  Sequences<T> x, y;
  std::optional<int64_t> band;
  Layout layout;
  PassGroups<T> packed;
  std::vector<int64_t> x_order;
  std::vector<SeriesPanel<T>> panels;

  SeriesBatch(const Inputs& inputs, std::optional<int64_t> given_band)
      : x(inputs.sequences_x<T>()),
        y(inputs.sequences_y<T>()),
        band(given_band),
        layout(interleave(y.lengths, y.batch, w)),
        packed(y, layout),
        x_order(by_length(x.lengths, x.batch)) {
    for (size_t p = 0; p < layout.groups.size(); ++p) {
      SeriesPanel<T> panel{packed.steps.data() + packed.starts[p]};
      for (int64_t lane = 0; lane < layout.groups[p].count; ++lane) {
        if (y.nonfinite[item(p, lane)] == 0) {
          panel.put(lane, y.lengths[item(p, lane)]);
        }
      }
      panels.push_back(panel);
    }
  }

  int64_t item(size_t panel, int64_t lane) const {
    return layout.order[static_cast<size_t>(layout.groups[panel].first + lane)];
  }
  Reach reach(int64_t n, const SeriesPanel<T>& panel) const {
    return reach_of_rows(band, n, panel.shortest, panel.longest);
  }
  // The end of the x's, from number `first` of x_order on and before `end`, that are as long as that.
  int64_t equally_long(int64_t first, int64_t end) const {
    const int64_t n = x.lengths[x_order[static_cast<size_t>(first)]];
    int64_t last = first;
    while (last < end && x.lengths[x_order[static_cast<size_t>(last)]] == n) {
      ++last;
    }
    return last;
  }
};

// The larger of both bounds of all pairs without inf or NaN -> out (B1, B2).
template <class T, class Kind>
void bounds_of_batch(const SeriesBatch<T>& batch, T* out) {
  constexpr int w = kWidth<T>;
  const int64_t dim = batch.x.dim, panels = static_cast<int64_t>(batch.panels.size());
  const Vec<T, w> no_limits = splat<T, w>(std::numeric_limits<T>::infinity());
  const int64_t parts = std::min(thread_count(), panels);
  run_parts(parts, [&](int64_t part) {
    std::vector<RowEnvelope<T>> of_rows(static_cast<size_t>(batch.x.batch));
    Envelope<T> of_steps;
    for (int64_t p = panels * part / parts; p < panels * (part + 1) / parts; ++p) {
      const SeriesPanel<T>& panel = batch.panels[static_cast<size_t>(p)];
      for (int64_t first = 0; first < batch.x.batch && panel.longest > 0;) {
        const int64_t end = batch.equally_long(first, batch.x.batch);
        const int64_t n = batch.x.lengths[batch.x_order[static_cast<size_t>(first)]];
        const Reach reach = batch.reach(n, panel);
        panel.envelope(n, dim, reach, of_steps);
        for (; first < end; ++first) {
          poll(4 * (n + panel.longest) * dim * w);
          const int64_t i = batch.x_order[static_cast<size_t>(first)];
          const T* x = batch.x.row(i, 0);
          const Envelope<T>& rows = of_rows[static_cast<size_t>(i)].of(x, n, dim, panel.longest, reach.of_other());
          const Vec<T, w> bound = vmax(bound_by_rows<T, Kind>(x, n, dim, of_steps, no_limits),
                                       bound_by_steps<T, Kind>(panel, dim, rows, no_limits));
          for (int64_t lane = 0; lane < w; ++lane) {
            if (panel.lengths[lane] > 0) {
              out[i * batch.y.batch + batch.item(static_cast<size_t>(p), lane)] = bound[lane];
            }
          }
        }
      }
    }
  });
}

}  // namespace scav::SCAV_LEVEL
