// Search of series, sequences of few features, by DTW on the CPU at one SIMD level (foreach_level.h): no include guard.

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
#include "cpu/dtw_path.inl"
#include "cpu/difference_sweep.inl"
#include "cpu/nearest.inl"
#include "cpu/keogh.inl"

namespace scav::SCAV_LEVEL {

// The recursion of one x against the y's of a panel. A pair's distance depends on the pair alone: its lane sees no
// other, and costs are differences.
template <class T, class Kind>
class SeriesRecursion {
  static constexpr int w = kWidth<T>, K = kPassSteps;
  // Steps between checks of whether any pair can still be within its limit.
  static constexpr int64_t kChecked = 4 * K;

 public:
  SeriesRecursion(std::optional<int64_t> band, int64_t dim) : band_(band), dim_(dim) {}

  // Distances of x (n, dim) -> out (lanes), of pairs with a y. Once all pairs that have not ended are above their
  // limits, theirs stay as they are. `rest`, or null, is a bound of each pair's cost over all steps from number
  // kChecked * i on: (i, lanes).
  void run(const T* x, int64_t n, const SeriesPanel<T>& panel, Vec<T, w> limits, const T* rest, T* out) {
    prepare(n, panel);
    limits = panel.with_step(0) ? limits : splat<T, w>(-std::numeric_limits<T>::infinity());
    const std::vector<LaneEnd>& ends = setup_->ends;
    const Lanes<T>& lanes = setup_->lanes;
    DifferenceTile<T, w, 1, true, Kind> tile{&x, panel.steps, dim_, kHiddenOne<T>};
    std::fill_n(state_.data(), n * w, kUnreachable<T>);
    auto cell = [](int64_t, int64_t, int, Vec<T, w> cost, Vec<T, w> diagonal, Vec<T, w> up, Vec<T, w> left)
                    __attribute__((always_inline)) { return dtw_cell(cost, diagonal, up, left); };
    const LaneEnd *end = ends.data(), *const last = end + ends.size();
    for (int64_t t = 0; t < panel.longest; t += K) {
      poll(n * w * K * (dim_ + 1));
      const LaneEnd* next = end;
      while (next != last && next->last_pass <= t / K) {
        ++next;
      }
      tile.y = panel.steps + t * dim_ * w;
      difference_pass<T, w, 1>(tile, lanes, setup_->walls, t, end, next, state_.data(), cell, setup_->sums);
      for (int lane = 0; lane < w && end != next; ++lane) {
        const int64_t last_step = lanes.last_step[static_cast<size_t>(lane)];
        if (last_step >= t && last_step < t + K) {
          const T sum = setup_->sums.sum[lane];
          out[lane] = sum < kReached<T> ? sum : std::numeric_limits<T>::infinity();
          limits[lane] = -std::numeric_limits<T>::infinity();
        }
      }
      end = next;
      if ((t + K) % kChecked == 0 && end != last) {
        Vec<T, w> least = splat<T, w>(kUnreachable<T>);
        for (int64_t s = lanes.first_row(t + K - 1); s < lanes.end_row(t + K - 1); ++s) {
          least = vmin(load<T, w>(state_.data() + s * w), least);
        }
        least += rest ? load<T, w>(rest + (t + K) / kChecked * w) : Vec<T, w>{};
        if (!any_lane<T>(least <= limits)) {
          return;
        }
      }
    }
  }

  // Writes `rest` of run(): sums of the costs of the panel's steps from x's envelope.
  void sum_rest(const SeriesPanel<T>& panel, const Envelope<T>& envelope, std::vector<T>& rest) const {
    rest.resize(static_cast<size_t>((panel.longest / kChecked + 1) * w));
    Vec<T, w> sum{};
    store<T, w>(rest.data() + panel.longest / kChecked * w, sum);
    for (int64_t t = panel.longest - 1; t >= 0; --t) {
      sum += step_from_envelope<T, Kind>(panel, t, dim_, envelope);
      if (t % kChecked == 0) {
        store<T, w>(rest.data() + t / kChecked * w, sum);
      }
    }
  }

 private:
  struct Setup {
    Lanes<T> lanes;
    BandWalls<T, w, 1> walls;
    std::vector<LaneEnd> ends;
    PathEnds<T> sums;

    Setup(const DifferencePairs<T>& pairs, std::optional<int64_t> band)
        : lanes(pairs, band, false), walls(lanes), ends(lane_ends<T, w>(lanes, false)), sums(lanes, false) {}
  };

  // The bands and ends of pairs of n rows and the panel's lengths, which are often those of the last panel.
  void prepare(int64_t n, const SeriesPanel<T>& panel) {
    if (n == n_ && std::equal(panel.lengths, panel.lengths + w, lengths_)) {
      return;
    }
    n_ = n;
    std::copy_n(panel.lengths, w, lengths_);
    DifferencePairs<T> pairs{};
    for (int64_t lane = 0; lane < w; ++lane) {
      pairs.lengths_x.push_back(lengths_[lane] > 0 ? n : 0);
      pairs.lengths_y.push_back(lengths_[lane]);
    }
    setup_.emplace(pairs, band_);
    if (n * w > state_size_) {
      state_size_ = n * w;
      state_ = Buffer<T>(state_size_);
    }
  }

  std::optional<int64_t> band_;
  int64_t dim_, n_ = -1, lengths_[w] = {}, state_size_ = 0;
  std::optional<Setup> setup_;
  Buffer<T> state_;  // (rows, lanes)
};

// One thread's search of some panels for the nearest of some x's.
template <class T, class Kind>
class SeriesSearch {
  static constexpr int w = kWidth<T>;
  // Numbers of the envelopes of panels that stay in cache for all x's.
  static constexpr int64_t kBlockNumbers = int64_t(1) << 17;
  // Bounds stop once they have removed less than this share of at least so many pairs: they and their order take about
  // a sixth of the time of the recursions.
  static constexpr int64_t kMinSeen = 4096;
  static constexpr double kMinRemoved = 0.2;

 public:
  SeriesCounts counts;

  SeriesSearch(const SeriesBatch<T>& batch, const SeriesRequest& request)
      : batch_(batch),
        request_(request),
        bounding_(request.prune),
        recursion_(batch.band, batch.x.dim),
        gathered_((batch.y.steps + kPassSteps) * batch.x.dim * w) {
    std::fill_n(gathered_.data(), (batch.y.steps + kPassSteps) * batch.x.dim * w, T(0));
  }

  // x's number [begin, end) of x_order, each with its `nearest`, against panels [first, last).
  void run(int64_t begin, int64_t end, int64_t first, int64_t last, TopK<T>* nearest) {
    std::vector<RowEnvelope<T>> of_rows(static_cast<size_t>(end - begin));
    std::vector<Envelope<T>> of_steps;
    const int64_t size = 2 * w * std::max<int64_t>(1, batch_.x.steps * batch_.x.dim);
    const int64_t block = std::clamp<int64_t>(kBlockNumbers / size, 1, 32);
    for (int64_t panel = first; panel < last; panel += block) {
      const int64_t stop = std::min(panel + block, last);
      for (int64_t at = begin; at < end;) {
        const int64_t next = batch_.equally_long(at, end);
        if (bounding_) {
          make_envelopes(batch_.x.lengths[x_of(at)], panel, stop, of_steps);
        }
        for (; at < next; ++at) {
          if (batch_.x.nonfinite[x_of(at)] == 0) {
            search(x_of(at), panel, stop, of_steps, of_rows[static_cast<size_t>(at - begin)], nearest[at - begin]);
          }
        }
      }
    }
  }

 private:
  int64_t x_of(int64_t at) const { return batch_.x_order[static_cast<size_t>(at)]; }
  // Largest bound of a distance that is within the limit.
  T allowed(T limit) const { return limit + std::abs(limit) * static_cast<T>(request_.rounding); }

  void make_envelopes(int64_t n, int64_t first, int64_t last, std::vector<Envelope<T>>& to) const {
    to.resize(static_cast<size_t>(last - first));
    for (int64_t p = first; p < last; ++p) {
      const SeriesPanel<T>& panel = batch_.panels[static_cast<size_t>(p)];
      if (panel.longest > 0) {
        panel.envelope(n, batch_.x.dim, batch_.reach(n, panel), to[static_cast<size_t>(p - first)]);
      }
    }
  }

  void search(int64_t i, int64_t first, int64_t last, const std::vector<Envelope<T>>& of_steps, RowEnvelope<T>& of_rows,
              TopK<T>& nearest) {
    found_.clear();
    for (int64_t p = first; p < last; ++p) {
      const SeriesPanel<T>& panel = batch_.panels[static_cast<size_t>(p)];
      if (panel.longest == 0) {
        continue;
      }
      if (bounding_) {
        bound(i, p, of_steps[static_cast<size_t>(p - first)], of_rows, nearest.limit());
      } else {
        for (int64_t lane = 0; lane < w; ++lane) {
          items_[lane] = panel.lengths[lane] > 0 ? batch_.item(static_cast<size_t>(p), lane) : -1;
        }
        score(i, panel, w, nullptr, nearest);
      }
    }
    if (bounding_) {
      score_found(i, of_rows, nearest);
      bounding_ =
          counts.seen[0] < kMinSeen || static_cast<double>(counts.removed[0] + counts.removed[1] + counts.removed[2]) >=
                                           kMinRemoved * static_cast<double>(counts.seen[0]);
    }
  }

  // Adds the pairs of x and a panel whose bounds are within the limit to `found_`.
  void bound(int64_t i, int64_t p, const Envelope<T>& of_steps, RowEnvelope<T>& of_rows, T limit) {
    const SeriesPanel<T>& panel = batch_.panels[static_cast<size_t>(p)];
    const int64_t n = batch_.x.lengths[i], dim = batch_.x.dim;
    const T* x = batch_.x.row(i, 0);
    poll(2 * (n + panel.longest) * dim * w);
    const Vec<T, w> limits = splat<T, w>(allowed(limit));
    const Vec<IntOf<T>, w> with_items = panel.with_step(0);
    Vec<T, w> bounds = bound_by_rows<T, Kind>(x, n, dim, of_steps, limits);
    Vec<IntOf<T>, w> within = (bounds <= limits) & with_items;
    const int64_t items = lanes_in(with_items), left = lanes_in(within);
    counts.seen[0] += items;
    counts.removed[0] += items - left;
    if (left == 0) {
      return;
    }
    const Envelope<T>& rows = of_rows.of(x, n, dim, panel.longest, batch_.reach(n, panel).of_other());
    bounds = vmax(bound_by_steps<T, Kind>(panel, dim, rows, limits), bounds);
    within &= bounds <= limits;
    counts.seen[1] += left;
    counts.removed[1] += left - lanes_in(within);
    for (int64_t lane = 0; lane < w; ++lane) {
      if (within[lane]) {
        found_.push_back({bounds[lane], batch_.item(static_cast<size_t>(p), lane)});
      }
    }
  }

  // Computes the distances of the pairs of x in `found_`, in the order of their bounds, until one exceeds the limit.
  void score_found(int64_t i, RowEnvelope<T>& of_rows, TopK<T>& nearest) {
    std::sort(found_.begin(), found_.end());
    const int64_t n = batch_.x.lengths[i], dim = batch_.x.dim;
    counts.seen[2] += static_cast<int64_t>(found_.size());
    for (size_t begin = 0, count = 0; begin < found_.size(); begin += count) {
      const T limit = allowed(nearest.limit());
      count = 0;
      while (count < w && begin + count < found_.size() && found_[begin + count].bound <= limit) {
        ++count;
      }
      if (count == 0) {
        counts.removed[2] += static_cast<int64_t>(found_.size() - begin);
        return;
      }
      SeriesPanel<T> panel{gathered_.data()};
      for (size_t lane = 0; lane < w; ++lane) {
        // The first item fills the lanes beyond, whose results are left out.
        items_[lane] = found_[begin + (lane < count ? lane : 0)].item;
        panel.put(static_cast<int64_t>(lane), batch_.y.lengths[items_[lane]]);
      }
      transpose<T>(
          w, panel.longest * dim, [&](int64_t lane) { return batch_.y.row(items_[lane], 0); },
          [&](int64_t k) { return gathered_.data() + k * w; });
      recursion_.sum_rest(
          panel, of_rows.of(batch_.x.row(i, 0), n, dim, panel.longest, batch_.reach(n, panel).of_other()), rest_);
      score(i, panel, static_cast<int64_t>(count), rest_.data(), nearest);
    }
  }

  // Computes the distances of x and the `items_` of the first `count` lanes of a panel.
  void score(int64_t i, const SeriesPanel<T>& panel, int64_t count, const T* rest, TopK<T>& nearest) {
    const T limit = request_.prune ? allowed(nearest.limit()) : std::numeric_limits<T>::infinity();
    T distances[w];
    std::fill_n(distances, w, std::numeric_limits<T>::quiet_NaN());
    recursion_.run(batch_.x.row(i, 0), batch_.x.lengths[i], panel, splat<T, w>(limit), rest, distances);
    for (int64_t lane = 0; lane < count; ++lane) {
      if (panel.lengths[lane] > 0) {
        const bool left = std::isnan(distances[lane]);
        ++counts.scored;
        counts.abandoned += left;
        if (!left) {
          nearest.offer({distances[lane], request_.first_item + items_[lane]});
        }
      }
    }
    nearest.tighten();
  }

  static int64_t lanes_in(Vec<IntOf<T>, w> mask) { return -horizontal_sum<IntOf<T>, w>(mask); }

  const SeriesBatch<T>& batch_;
  const SeriesRequest& request_;
  bool bounding_;
  SeriesRecursion<T, Kind> recursion_;
  Buffer<T> gathered_;             // steps of a panel of found items
  std::vector<BoundOf<T>> found_;  // items and their bounds
  std::vector<T> rest_;
  int64_t items_[w] = {};  // of the panel that is scored
};

// Offers the pairs of an x that hold inf or NaN, whose distance that is; NaN is as far as inf.
template <class T>
void offer_nonfinite(const SeriesBatch<T>& batch, int64_t i, int64_t first_item, TopK<T>& nearest,
                     SeriesCounts& counts) {
  for (int64_t j = 0; j < batch.y.batch; ++j) {
    const T nonfinite = batch.x.nonfinite[i] + batch.y.nonfinite[j];
    if (nonfinite != 0) {
      ++counts.scored;
      nearest.offer({std::isnan(nonfinite) ? std::numeric_limits<T>::infinity() : nonfinite, first_item + j});
    }
  }
}

// Merges the items of the batch into the k nearest of each x, distances and items (B1, k), ascending, ties to the lower
// index.
template <class T, class Kind>
SeriesCounts nearest_in_batch(const SeriesBatch<T>& batch, const SeriesRequest& request, T* distances, int64_t* items) {
  // Tasks are some x's against some panels.
  const int64_t tasks = 2 * thread_count(), k = request.k, panels = static_cast<int64_t>(batch.panels.size());
  const int64_t x_parts = std::min(tasks, batch.x.batch);
  const int64_t panel_parts = std::clamp<int64_t>(tasks / x_parts, 1, panels);
  // The nearest of every x among the panels of every part; the first of these continues from those given.
  std::vector<TopK<T>> nearest;
  for (int64_t part = 0; part < panel_parts; ++part) {
    for (const int64_t i : batch.x_order) {
      nearest.emplace_back(k, distances[i * k + k - 1]);
      for (int64_t place = 0; place < k && part == 0; ++place) {
        nearest.back().offer({distances[i * k + place], items[i * k + place]});
      }
    }
  }
  SeriesCounts total;
  if (std::any_of(batch.x.nonfinite, batch.x.nonfinite + batch.x.batch, [](T one) { return one != 0; }) ||
      std::any_of(batch.y.nonfinite, batch.y.nonfinite + batch.y.batch, [](T one) { return one != 0; })) {
    for (size_t at = 0; at < batch.x_order.size(); ++at) {
      offer_nonfinite(batch, batch.x_order[at], request.first_item, nearest[at], total);
    }
  }
  std::vector<SeriesCounts> counts(static_cast<size_t>(x_parts * panel_parts));
  std::atomic<int64_t> next{0};
  run_parts(std::min(thread_count(), x_parts * panel_parts), [&](int64_t) {
    for (int64_t task = next++; task < x_parts * panel_parts; task = next++) {
      const int64_t x_part = task % x_parts, panel_part = task / x_parts;
      const int64_t begin = batch.x.batch * x_part / x_parts, end = batch.x.batch * (x_part + 1) / x_parts;
      SeriesSearch<T, Kind> search(batch, request);
      search.run(begin, end, panels * panel_part / panel_parts, panels * (panel_part + 1) / panel_parts,
                 nearest.data() + panel_part * batch.x.batch + begin);
      counts[static_cast<size_t>(task)] = search.counts;
    }
  });
  for (const SeriesCounts& of_task : counts) {
    total.add(of_task);
  }
  for (int64_t at = 0; at < batch.x.batch; ++at) {
    TopK<T>& all = nearest[static_cast<size_t>(at)];
    for (int64_t part = 1; part < panel_parts; ++part) {
      for (const BoundOf<T>& one : nearest[static_cast<size_t>(part * batch.x.batch + at)].sorted()) {
        all.offer(one);
      }
    }
    const int64_t i = batch.x_order[static_cast<size_t>(at)];
    const std::vector<BoundOf<T>>& sorted = all.sorted();
    for (int64_t place = 0; place < k; ++place) {
      distances[i * k + place] = sorted[static_cast<size_t>(place)].bound;
      items[i * k + place] = sorted[static_cast<size_t>(place)].item;
    }
  }
  return total;
}

// Calls f(DifferenceCost) for the costs that LB_Keogh bounds.
template <class F>
void with_bounded_cost(Cost cost, int64_t dim, const F& f) {
  with_difference_cost(cost, dim, [&](auto kind) {
    if constexpr (decltype(kind)::kCost != Cost::cosine) {
      f(kind);
    }
  });
}

template <class T>
SeriesCounts nearest_series(const Inputs& inputs, std::optional<int64_t> band, const SeriesRequest& request,
                            T* distances, int64_t* items) {
  const SeriesBatch<T> batch(inputs, band);
  SeriesCounts counts;
  with_bounded_cost(inputs.cost, batch.x.dim,
                    [&](auto kind) { counts = nearest_in_batch<T, decltype(kind)>(batch, request, distances, items); });
  return counts;
}

template <class T>
void keogh_bounds(const Inputs& inputs, std::optional<int64_t> band, T* out) {
  const SeriesBatch<T> batch(inputs, band);
  with_bounded_cost(inputs.cost, batch.x.dim, [&](auto kind) { bounds_of_batch<T, decltype(kind)>(batch, out); });
}

}  // namespace scav::SCAV_LEVEL
