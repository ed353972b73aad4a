// Soft-DTW on the CPU, at one SIMD level: r[s, t] = c[s, t] + softmin(r[s-1, t-1], r[s-1, t], r[s, t-1]), with
// softmin(a) = -gamma log sum exp(-a / gamma).

#include "cpu/simd.inl"
#include "cpu/gemm.inl"
#include "cpu/transpose.inl"
#include "cpu/packed.inl"
#include "cpu/tile.inl"
#include "cpu/pairs.inl"
#include "cpu/sweep.inl"
#include "cpu/given.inl"

namespace scav::SCAV_LEVEL {

template <class T>
struct SoftDtw {
  T gamma, inverse_gamma;

  explicit SoftDtw(double smoothing) : gamma(static_cast<T>(smoothing)), inverse_gamma(static_cast<T>(1 / smoothing)) {}

  // The smallest of the three stands for itself; only the other two cost an exponential.
  template <int W>
  SCAV_INLINE Vec<T, W> cell(Vec<T, W> cost, Vec<T, W> diagonal, Vec<T, W> up, Vec<T, W> left) const {
    const Vec<T, W> low = vmin(diagonal, up), high = vmax(diagonal, up);
    const Vec<T, W> least = vmin(low, left), most = vmax(high, left), middle = vmax(low, vmin(high, left));
    const Vec<T, W> sum = vexp<T, W>((least - middle) * inverse_gamma) + vexp<T, W>((least - most) * inverse_gamma);
    return cost + (least - gamma * vlog<T, W>(T(1) + sum));
  }

  // The same, with the weights of the diagonal and of s - 1 in the softmin. The weight of t - 1 is what they leave of
  // 1, so that the adjoint neither loses nor gains: rebuilt from differences of r it would drift.
  template <int W>
  SCAV_INLINE Vec<T, W> cell(Vec<T, W> cost, Vec<T, W> diagonal, Vec<T, W> up, Vec<T, W> left, T* diagonal_weight,
                             T* up_weight) const {
    const Vec<T, W> least = vmin(vmin(diagonal, up), left);
    const Vec<T, W> d = vexp<T, W>((least - diagonal) * inverse_gamma);
    const Vec<T, W> u = vexp<T, W>((least - up) * inverse_gamma);
    const Vec<T, W> sum = d + u + vexp<T, W>((least - left) * inverse_gamma);
    const Vec<T, W> scale = T(1) / sum;
    store<T, W>(diagonal_weight, d * scale);
    store<T, W>(up_weight, u * scale);
    return cost + (least - gamma * vlog<T, W>(sum));
  }
};

// Where cells may be forbidden, their sums stop here: infinities would become NaN in a softmin's differences.
template <class Pairs, class T, int W>
SCAV_INLINE Vec<T, W> within_reach(Vec<T, W> r) {
  if constexpr (Pairs::kForbids) {
    r = vmin(r, splat<T, W>(kUnreachable<T>));
  }
  return r;
}

template <class T, int W, int V, bool banded, class Pairs>
void soft_dtw_lanes(const SoftDtw<T>& recurrence, const Pairs& pairs, const Lanes<T>& lanes,
                    const std::vector<int64_t>& results, T* out) {
  constexpr int64_t width = W * V;
  const int64_t rows = pairs.rows(), steps = pairs.steps(), grain = pairs.granularity();
  const int64_t stride = grain * W, block = rows * stride;
  Buffer<T> state(rows * width), costs(V * block);
  std::fill_n(state.data(), rows * width, kUnreachable<T>);
  auto cell = [&](int64_t, int64_t, int, Vec<T, W> cost, Vec<T, W> diagonal, Vec<T, W> up, Vec<T, W> left)
                  __attribute__((always_inline)) {
                    return within_reach<Pairs, T, W>(recurrence.template cell<W>(cost, diagonal, up, left));
                  };
  // Costs are made a few steps at a time, and consumed while they are in L1.
  for (int64_t t = 0; t < steps; t += grain) {
    const int64_t end = std::min(t + grain, steps);
    pairs.costs(t, end, lanes.first_row(t), lanes.end_row(end - 1), costs.data(), stride, block);
    sweep<T, W, V, banded>(Stretch{t, end}, lanes, costs.data(), stride, block, state.data(), cell,
                           [&](int64_t step) { take_results(lanes, step, state.data(), results, out); });
  }
}

// One stretch of the adjoint: e = d out / d r = d out / d cost, walked from the ends of the lanes to (0, 0). `ahead`
// (rows, lanes) holds what column t receives from column t + 1. `diagonal` holds the weights of the diagonal on entry,
// e on return, which is 0 where they are negative: in cells that no path enters. Rows of the stretch outside the band
// are zero.
template <class T, int W, int V, bool banded, class Pairs>
void soft_dtw_adjoint(const Stretch& stretch, const Lanes<T>& lanes, const T* grads, T* diagonal, const T* up,
                      int64_t stride, int64_t block, int64_t first_row, int64_t end_row, T* ahead) {
  constexpr int64_t width = W * V;
  for (int64_t t = stretch.step1 - 1; t >= stretch.step0; --t) {
    for (int64_t lane = 0; lane < width; ++lane) {
      if (lanes.last_step[static_cast<size_t>(lane)] == t) {
        ahead[lanes.last_row[static_cast<size_t>(lane)] * width + lane] += grads[lane];
      }
    }
    const int64_t row0 = lanes.first_row(t), row1 = lanes.end_row(t);
    T* weights = diagonal + (t - stretch.step0) * W;
    const T* up_weights = up + (t - stretch.step0) * W;
    for (int64_t s = first_row; s < end_row; ++s) {
      for (int v = 0; v < V && (s < row0 || s >= row1); ++v) {
        store<T, W>(weights + v * block + s * stride, Vec<T, W>{});
      }
    }
    Vec<T, W> from_below[V], from_diagonal[V];
    for (int v = 0; v < V; ++v) {
      from_below[v] = from_diagonal[v] = Vec<T, W>{};
    }
    for (int64_t s = row1 - 1; s >= row0; --s) {
      for (int v = 0; v < V; ++v) {
        T* at = ahead + s * width + v * W;
        T* weight = weights + v * block + s * stride;
        const Vec<T, W> d = load<T, W>(weight), u = load<T, W>(up_weights + v * block + s * stride);
        Vec<T, W> e = load<T, W>(at) + from_below[v];
        if constexpr (Pairs::kForbids) {
          e = d < T(0) ? Vec<T, W>{} : e;
        }
        // What the other weights leave of 1 for a cell outside is rounding.
        if constexpr (banded) {
          e = in_band<T, W>(lanes, v, t - s) ? e : Vec<T, W>{};
        }
        const Vec<T, W> left = vmax(T(1) - d - u, Vec<T, W>{});
        store<T, W>(at, e * left + from_diagonal[v]);
        from_below[v] = e * u;
        from_diagonal[v] = e * d;
        store<T, W>(weight, e);
      }
    }
    if (row0 > 0) {
      for (int v = 0; v < V; ++v) {
        store<T, W>(ahead + (row0 - 1) * width + v * W, from_diagonal[v]);
      }
    }
  }
}

template <class T, int W, int V, bool banded, class Pairs, class To>
void soft_dtw_lanes_backward(const SoftDtw<T>& recurrence, const Pairs& pairs, const Lanes<T>& lanes, const T* grads,
                             const std::vector<To>& to) {
  constexpr int64_t width = W * V;
  const int64_t rows = pairs.rows(), steps = pairs.steps();
  const Plan plan = plan_stretches(rows, steps, width, pairs.granularity(), 3 * sizeof(T), sizeof(T));
  // Rows start a cache line apart from a power of two, which would map all of them to a few sets of L1.
  const int64_t stride = plan.steps * W + 16, block = rows * stride;
  Buffer<T> state(rows * width), saved(plan.stretches * rows * width), ahead(rows * width);
  Buffer<T> costs(V * block), diagonal(V * block), up(V * block);
  std::fill_n(state.data(), rows * width, kUnreachable<T>);
  std::fill_n(ahead.data(), rows * width, T(0));

  auto advance = [&](const Stretch& stretch, bool last) {
    pairs.costs(stretch.step0, stretch.step1, lanes.first_row(stretch.step0), lanes.end_row(stretch.step1 - 1),
                costs.data(), stride, block);
    auto plain = [&](int64_t, int64_t, int, Vec<T, W> cost, Vec<T, W> d, Vec<T, W> u, Vec<T, W> l)
                     __attribute__((always_inline)) {
                       return within_reach<Pairs, T, W>(recurrence.template cell<W>(cost, d, u, l));
                     };
    auto record = [&](int64_t s, int64_t t, int v, Vec<T, W> cost, Vec<T, W> d, Vec<T, W> u,
                      Vec<T, W> l) __attribute__((always_inline)) {
      const int64_t at = v * block + s * stride + (t - stretch.step0) * W;
      const Vec<T, W> r =
          within_reach<Pairs, T, W>(recurrence.template cell<W>(cost, d, u, l, diagonal.data() + at, up.data() + at));
      if constexpr (Pairs::kForbids) {
        const Vec<T, W> weight = load<T, W>(diagonal.data() + at);
        store<T, W>(diagonal.data() + at, r < kReached<T> ? weight : splat<T, W>(T(-1)));
      }
      return r;
    };
    auto ignore = [](int64_t) {};
    if (last) {
      sweep<T, W, V, banded>(stretch, lanes, costs.data(), stride, block, state.data(), record, ignore);
    } else {
      sweep<T, W, V, banded>(stretch, lanes, costs.data(), stride, block, state.data(), plain, ignore);
    }
  };
  auto stretch_at = [&](int64_t index) {
    return Stretch{index * plan.steps, std::min((index + 1) * plan.steps, steps)};
  };
  for (int64_t index = 0; index < plan.stretches; ++index) {
    std::copy_n(state.data(), rows * width, saved.data() + index * rows * width);
    advance(stretch_at(index), index + 1 == plan.stretches);
  }
  for (int64_t index = plan.stretches - 1; index >= 0; --index) {
    const Stretch stretch = stretch_at(index);
    if (index + 1 < plan.stretches) {
      std::copy_n(saved.data() + index * rows * width, rows * width, state.data());
      advance(stretch, true);
    }
    const int64_t row0 = lanes.first_row(stretch.step0), row1 = lanes.end_row(stretch.step1 - 1);
    soft_dtw_adjoint<T, W, V, banded, Pairs>(stretch, lanes, grads, diagonal.data(), up.data(), stride, block, row0,
                                             row1, ahead.data());
    // The product reads whole panels; a last one may end in columns past the last step.
    const int64_t grain = pairs.granularity(), covered = (stretch.step1 - stretch.step0 + grain - 1) / grain * grain;
    for (int v = 0; v < V; ++v) {
      for (int64_t s = row0; s < row1; ++s) {
        T* past = diagonal.data() + v * block + s * stride + (stretch.step1 - stretch.step0) * W;
        std::fill_n(past, (covered - (stretch.step1 - stretch.step0)) * W, T(0));
      }
    }
    pairs.adjoint(stretch.step0, stretch.step1, row0, row1, costs.data(), diagonal.data(), stride, block, to);
  }
}

// Every pair of a PairBatch or GivenBatch.
template <class T, class Batch>
void soft_dtw_batch(const SoftDtw<T>& recurrence, const Batch& batch, std::optional<int64_t> band, T* out) {
  for_each_pairs(batch, [&](const auto& pairs, const std::vector<int64_t>& results) {
    const Lanes<T> ends(pairs, band);
    with_lanes<T>(pairs, [&](auto w, auto v) {
      if (band.has_value()) {
        soft_dtw_lanes<T, w, v, true>(recurrence, pairs, ends, results, out);
      } else {
        soft_dtw_lanes<T, w, v, false>(recurrence, pairs, ends, results, out);
      }
    });
  });
}

// The gradient of one set of pairs, where any of their results has one.
template <class T, class Pairs, class To>
void soft_dtw_pairs_backward(const SoftDtw<T>& recurrence, const Pairs& pairs, std::optional<int64_t> band,
                             const std::vector<int64_t>& results, const T* grad, const std::vector<To>& to) {
  std::vector<T> grads(results.size());
  for (size_t lane = 0; lane < results.size(); ++lane) {
    grads[lane] = results[lane] < 0 ? T(0) : grad[results[lane]];
  }
  if (std::all_of(grads.begin(), grads.end(), [](T g) { return g == 0; })) {
    return;
  }
  const Lanes<T> ends(pairs, band);
  with_lanes<T>(pairs, [&](auto w, auto v) {
    if (band.has_value()) {
      soft_dtw_lanes_backward<T, w, v, true>(recurrence, pairs, ends, grads.data(), to);
    } else {
      soft_dtw_lanes_backward<T, w, v, false>(recurrence, pairs, ends, grads.data(), to);
    }
  });
}

template <class T>
void soft_dtw_forward(const Inputs& inputs, double gamma, std::optional<int64_t> band, T* out) {
  const PairBatch<T> batch(inputs, choose_lanes<T>(grid_sizes(inputs), false, 0), false);
  soft_dtw_batch(SoftDtw<T>(gamma), batch, band, out);
}

template <class T>
void soft_dtw_from_cost_forward(const GivenCosts& costs, double gamma, std::optional<int64_t> band, T* out) {
  const GivenBatch<T> batch(costs, choose_lanes<T>(grid_sizes(costs), false, 0));
  soft_dtw_batch(SoftDtw<T>(gamma), batch, band, out);
}

// dx, dy: (B1, N, D) and (B2, M, D), zero on entry, or null.
template <class T>
void soft_dtw_backward(const Inputs& inputs, double gamma, std::optional<int64_t> band, const T* grad, T* dx, T* dy) {
  const SoftDtw<T> recurrence(gamma);
  const PairBatch<T> batch(inputs, choose_lanes<T>(grid_sizes(inputs), true, 3 * sizeof(T)), true);
  backward_pairs(batch, dx, dy,
                 [&](const auto& pairs, const std::vector<int64_t>& results, const std::vector<Adjoint<T>>& to) {
                   soft_dtw_pairs_backward(recurrence, pairs, band, results, grad, to);
                 });
}

// d_cost: (B1, B2, N, M), zero on entry.
template <class T>
void soft_dtw_from_cost_backward(const GivenCosts& costs, double gamma, std::optional<int64_t> band, const T* grad,
                                 T* d_cost) {
  const SoftDtw<T> recurrence(gamma);
  const GivenBatch<T> batch(costs, choose_lanes<T>(grid_sizes(costs), false, 3 * sizeof(T)));
  for_each_pairs(batch, [&](const auto& pairs, const std::vector<int64_t>& results) {
    soft_dtw_pairs_backward(recurrence, pairs, band, results, grad, batch.adjoints(results, d_cost));
  });
}

}  // namespace scav::SCAV_LEVEL
