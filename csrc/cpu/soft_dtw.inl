// Soft-DTW on the CPU, at one SIMD level: r[s, t] = c[s, t] + softmin(r[s-1, t-1], r[s-1, t], r[s, t-1]), with
// softmin(a) = -gamma log sum exp(-a / gamma); where the ends are open, the distance is the softmin over the last row.

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
#include "cpu/matrix_costs.inl"
#include "cpu/wavefront.inl"
#include "cpu/wavefront_costs.inl"
#include "cpu/wavefront_pairs.inl"
#include "cpu/wavefront_gradient.inl"
#include "cpu/powers.inl"
#include "cpu/soft_dtw_cell.inl"
#include "cpu/wavefront_soft_dtw.inl"

namespace scav::SCAV_LEVEL {

// A cost and two weights for each cell, and a value for each row.
template <class T>
KeptBytes soft_dtw_bytes(bool few_features) {
  return {3 * sizeof(T), 2 * sizeof(T), few_features};
}

// r in row s of a lane, from the state of a recursion of vectors of W.
template <int W, class T>
T distance_of(const SoftDtw<T>& recurrence, const T* state, int64_t lanes, int64_t s, int64_t lane) {
  constexpr int64_t parts = ScaledValues<T, W>::kParts;
  const T* const at = state + (s * lanes + lane / W * W) * parts + lane % W;
  return recurrence.distance(Scaled<T, 1>{{at[0]}, {at[W]}})[0];
}

// r where the paths of some lanes end: in their last cells, or with an open end, in all cells of their last rows.
template <class T, int W>
struct SoftDtwEnds {
  const SoftDtw<T>& recurrence;
  const Lanes<T>& lanes;
  int64_t count;  // of lanes
  bool open;
  bool taken;        // take() does nothing
  Buffer<T> values;  // (lanes,), or (steps, lanes) of an open end

  SoftDtwEnds(const SoftDtw<T>& of, const Lanes<T>& all, int64_t steps)
      : recurrence(of),
        lanes(all),
        count(static_cast<int64_t>(all.last_row.size())),
        open(of.open.end),
        taken(false),
        values((open ? steps : 1) * count) {
    std::fill_n(values.data(), (open ? steps : 1) * count, kUnreachable<T>);
  }

  // Takes column t from the state after it.
  __attribute__((noinline)) void take(int64_t t, const T* state) const {
    for (int64_t lane = 0; lane < count && !taken; ++lane) {
      const auto at = static_cast<size_t>(lane);
      if (open ? t <= lanes.last_step[at] : t == lanes.last_step[at]) {
        values[(open ? t * count : 0) + lane] = distance_of<W>(recurrence, state, count, lanes.last_row[at], lane);
      }
    }
  }
};

template <class T, int W, int V, class Pairs>
void soft_dtw_lanes(const SoftDtw<T>& recurrence, const Pairs& pairs, const Lanes<T>& lanes,
                    const std::vector<int64_t>& results, T* out) {
  using Values = ScaledValues<T, W>;
  constexpr int64_t width = W * V;
  const int64_t rows = pairs.rows(), steps = pairs.steps(), panel_steps = pairs.panel_steps();
  const int64_t stride = panel_steps * W, vector_stride = rows * stride;
  Buffer<T> state(rows * width * Values::kParts), costs(V * vector_stride);
  fill_unreachable<Values>(state.data(), rows * V);
  const SoftDtwCell<T, W, Pairs::kForbids> cell{recurrence};
  const SoftDtwEnds<T, W> ends(recurrence, lanes, steps);
  // Costs are computed a panel of steps at a time, and read while they are in L1.
  for (int64_t t = 0; t < steps; t += panel_steps) {
    const int64_t end = std::min(t + panel_steps, steps);
    pairs.costs(t, end, lanes.first_row(t), lanes.end_row(end - 1), costs.data(), stride, vector_stride);
    sweep<Values, V>(StepRange{t, end}, lanes, costs.data(), stride, vector_stride, state.data(), cell, ends);
  }
  for (int v = 0; v < V; ++v) {
    const Vec<T, W> values =
        ends.open ? EndSoftmin<T, W>(recurrence, ends.values.data() + v * W, steps, width).value(recurrence)
                  : SoftDtw<T>::template reached_or_infinite<W>(load<T, W>(ends.values.data() + v * W));
    for (int lane = 0; lane < W; ++lane) {
      const int64_t result = results[static_cast<size_t>(v * W + lane)];
      if (result >= 0) {
        out[result] = values[lane];
      }
    }
  }
}

// A cell that also stores the weights of its softmin, cell (s, t) of vector v at v * vector_stride + s * stride +
// (t - step0) * W.
template <class T, int W, bool forbids>
struct SoftDtwRecorder {
  using Value = Scaled<T, W>;
  SoftDtw<T> recurrence;
  T *diagonal, *up;
  int64_t step0, stride, vector_stride;

  SCAV_INLINE Value operator()(int64_t s, int64_t t, int v, Vec<T, W> cost, Value d, Value u, Value l) const {
    const int64_t at = v * vector_stride + s * stride + (t - step0) * W;
    return soft_dtw_recorded<forbids>(recurrence, cost, d, u, l, diagonal + at, up + at);
  }
};

// One range of steps of the adjoint e = d out / d r = d out / d cost, from the ends of the lanes to their starts. The
// last rows receive `end_grads` (steps, lanes), or where it is null, `grads` (lanes,) at the last steps. `ahead`
// (rows, lanes) holds what column t receives from column t + 1. `diagonal` holds the weights of the diagonal on entry,
// e on return, which is 0 where they are negative: in cells that no path enters. Rows of the range outside the band
// are zero.
template <class T, int W, int V, bool banded, bool forbids>
void soft_dtw_adjoint(const StepRange& range, const Lanes<T>& lanes, const T* grads, const T* end_grads, T* diagonal,
                      const T* up, int64_t stride, int64_t vector_stride, int64_t first_row, int64_t end_row,
                      T* ahead) {
  constexpr int64_t width = W * V;
  for (int64_t t = range.step1 - 1; t >= range.step0; --t) {
    for (int64_t lane = 0; lane < width; ++lane) {
      const int64_t last_step = lanes.last_step[static_cast<size_t>(lane)];
      if (end_grads != nullptr ? t <= last_step : t == last_step) {
        ahead[lanes.last_row[static_cast<size_t>(lane)] * width + lane] +=
            end_grads != nullptr ? end_grads[t * width + lane] : grads[lane];
      }
    }
    const int64_t row0 = lanes.first_row(t), row1 = lanes.end_row(t);
    T* weights = diagonal + (t - range.step0) * W;
    const T* up_weights = up + (t - range.step0) * W;
    for (int64_t s = first_row; s < end_row; ++s) {
      for (int v = 0; v < V && (s < row0 || s >= row1); ++v) {
        store<T, W>(weights + v * vector_stride + s * stride, Vec<T, W>{});
      }
    }
    Vec<T, W> from_below[V], from_diagonal[V];
    for (int v = 0; v < V; ++v) {
      from_below[v] = from_diagonal[v] = Vec<T, W>{};
    }
    for (int64_t s = row1 - 1; s >= row0; --s) {
      for (int v = 0; v < V; ++v) {
        T* at = ahead + s * width + v * W;
        T* weight = weights + v * vector_stride + s * stride;
        const Vec<T, W> d = load<T, W>(weight), u = load<T, W>(up_weights + v * vector_stride + s * stride);
        Vec<T, W> e = load<T, W>(at) + from_below[v];
        if constexpr (forbids) {
          e = d < T(0) ? Vec<T, W>{} : e;
        }
        // Outside the band, 1 less the other weights is only rounding.
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

template <class T, int W, int V, class Pairs, class To>
void soft_dtw_lanes_backward(const SoftDtw<T>& recurrence, const Pairs& pairs, const Lanes<T>& lanes,
                             const KeptBytes& kept, const T* grads, const std::vector<To>& to) {
  using Values = ScaledValues<T, W>;
  constexpr int64_t width = W * V;
  const int64_t rows = pairs.rows(), steps = pairs.steps(), state_size = rows * width * Values::kParts;
  const CheckpointPlan plan = plan_checkpoints(rows, steps, width, pairs.panel_steps(), kept);
  // Rows start a cache line apart from a power of two, which would map all of them to a few sets of L1.
  const int64_t stride = plan.steps * W + 16, vector_stride = rows * stride;
  Buffer<T> state(state_size), states(plan.checkpoints * state_size), ahead(rows * width);
  Buffer<T> costs(V * vector_stride), diagonal(V * vector_stride), up(V * vector_stride);
  fill_unreachable<Values>(state.data(), rows * V);
  std::fill_n(ahead.data(), rows * width, T(0));

  SoftDtwEnds<T, W> ends(recurrence, lanes, steps);
  ends.taken = !ends.open;
  const auto advance = [&](const StepRange& range, bool last) {
    pairs.costs(range.step0, range.step1, lanes.first_row(range.step0), lanes.end_row(range.step1 - 1), costs.data(),
                stride, vector_stride);
    if (last) {
      const SoftDtwRecorder<T, W, Pairs::kForbids> record{recurrence,  diagonal.data(), up.data(),
                                                          range.step0, stride,          vector_stride};
      sweep<Values, V>(range, lanes, costs.data(), stride, vector_stride, state.data(), record, ends);
    } else {
      const SoftDtwCell<T, W, Pairs::kForbids> plain{recurrence};
      sweep<Values, V>(range, lanes, costs.data(), stride, vector_stride, state.data(), plain, ends);
    }
  };
  auto range_at = [&](int64_t index) {
    return StepRange{index * plan.steps, std::min((index + 1) * plan.steps, steps)};
  };
  for (int64_t index = 0; index < plan.checkpoints; ++index) {
    std::copy_n(state.data(), state_size, states.data() + index * state_size);
    advance(range_at(index), index + 1 == plan.checkpoints);
  }
  ends.taken = true;
  for (int v = 0; v < V && ends.open; ++v) {
    T* const of_vector = ends.values.data() + v * W;
    EndSoftmin<T, W>(recurrence, of_vector, steps, width)
        .to_weights(recurrence, load<T, W>(grads + v * W), of_vector, steps, width);
  }
  for (int64_t index = plan.checkpoints - 1; index >= 0; --index) {
    const StepRange range = range_at(index);
    if (index + 1 < plan.checkpoints) {
      std::copy_n(states.data() + index * state_size, state_size, state.data());
      advance(range, true);
    }
    const int64_t row0 = lanes.first_row(range.step0), row1 = lanes.end_row(range.step1 - 1);
    const auto adjoint = lanes.banded ? soft_dtw_adjoint<T, W, V, true, Pairs::kForbids>
                                      : soft_dtw_adjoint<T, W, V, false, Pairs::kForbids>;
    adjoint(range, lanes, grads, ends.open ? ends.values.data() : nullptr, diagonal.data(), up.data(), stride,
            vector_stride, row0, row1, ahead.data());
    // The product reads whole panels; a last one may end in columns past the last step.
    const int64_t panel_steps = pairs.panel_steps(),
                  covered = (range.step1 - range.step0 + panel_steps - 1) / panel_steps * panel_steps;
    for (int v = 0; v < V; ++v) {
      for (int64_t s = row0; s < row1; ++s) {
        T* past = diagonal.data() + v * vector_stride + s * stride + (range.step1 - range.step0) * W;
        std::fill_n(past, (covered - (range.step1 - range.step0)) * W, T(0));
      }
    }
    pairs.adjoint(range.step0, range.step1, row0, row1, costs.data(), diagonal.data(), stride, vector_stride, to);
  }
}

// Every pair of a PairBatch or MatrixBatch.
template <class T, class Batch>
void soft_dtw_batch(const SoftDtw<T>& recurrence, const Batch& batch, std::optional<int64_t> band, T* out) {
  for_each_pairs(batch, [&](const auto& pairs, const std::vector<int64_t>& results) {
    const Lanes<T> lanes(pairs, band, recurrence.open.begin);
    with_lanes<T>(pairs, [&](auto w, auto v) { soft_dtw_lanes<T, w, v>(recurrence, pairs, lanes, results, out); });
  });
}

// The gradient of one set of pairs, where any of their results has one.
template <class T, class Pairs, class To>
void soft_dtw_pairs_backward(const SoftDtw<T>& recurrence, const Pairs& pairs, std::optional<int64_t> band,
                             const KeptBytes& kept, const std::vector<int64_t>& results, const T* grad,
                             const std::vector<To>& to) {
  std::vector<T> grads(results.size());
  for (size_t lane = 0; lane < results.size(); ++lane) {
    grads[lane] = results[lane] < 0 ? T(0) : grad[results[lane]];
  }
  if (std::all_of(grads.begin(), grads.end(), [](T g) { return g == 0; })) {
    return;
  }
  const Lanes<T> lanes(pairs, band, recurrence.open.begin);
  with_lanes<T>(pairs, [&](auto w, auto v) {
    soft_dtw_lanes_backward<T, w, v>(recurrence, pairs, lanes, kept, grads.data(), to);
  });
}

template <class T>
void soft_dtw_forward(const Inputs& inputs, const SoftDtwOptions& options, T* out) {
  if (suits_wavefront<T>(grid_sizes(inputs))) {
    measure_rows(inputs);
    wavefront_soft_dtw(SoftDtw<T>(options), inputs, options.band, out);
    return;
  }
  const PairBatch<T> batch(inputs, choose_lanes<T>(grid_sizes(inputs), false, {0, 2 * sizeof(T)}), false);
  soft_dtw_batch(SoftDtw<T>(options), batch, options.band, out);
}

template <class T>
void soft_dtw_from_cost_forward(const CostInputs& costs, const SoftDtwOptions& options, T* out) {
  if (suits_wavefront<T>(grid_sizes(costs))) {
    wavefront_soft_dtw(SoftDtw<T>(options), costs, options.band, out);
    return;
  }
  const MatrixBatch<T> batch(costs, choose_lanes<T>(grid_sizes(costs), false, {0, 2 * sizeof(T)}));
  soft_dtw_batch(SoftDtw<T>(options), batch, options.band, out);
}

// dx, dy: (B1, N, D) and (B2, M, D), zero on entry, or null.
template <class T>
void soft_dtw_backward(const Inputs& inputs, const SoftDtwOptions& options, const T* grad, T* dx, T* dy) {
  const SoftDtw<T> recurrence(options);
  if (suits_wavefront<T>(grid_sizes(inputs))) {
    wavefront_soft_dtw_backward(recurrence, inputs, options.band, grad, dx, dy);
    return;
  }
  const KeptBytes kept = soft_dtw_bytes<T>(has_difference_cells(inputs.cost, inputs.x.size(2)));
  const PairBatch<T> batch(inputs, choose_lanes<T>(grid_sizes(inputs), true, kept), true);
  backward_pairs(batch, dx, dy, [&](const auto& pairs, const std::vector<int64_t>& results, const auto& to) {
    soft_dtw_pairs_backward(recurrence, pairs, options.band, kept, results, grad, to);
  });
}

// d_cost: (B1, B2, N, M), zero on entry.
template <class T>
void soft_dtw_from_cost_backward(const CostInputs& costs, const SoftDtwOptions& options, const T* grad, T* d_cost) {
  const SoftDtw<T> recurrence(options);
  if (suits_wavefront<T>(grid_sizes(costs))) {
    wavefront_soft_dtw_from_cost_backward(recurrence, costs, options.band, grad, d_cost);
    return;
  }
  const KeptBytes kept = soft_dtw_bytes<T>(false);
  const MatrixBatch<T> batch(costs, choose_lanes<T>(grid_sizes(costs), false, kept));
  for_each_pairs(batch, [&](const auto& pairs, const std::vector<int64_t>& results) {
    soft_dtw_pairs_backward(recurrence, pairs, options.band, kept, results, grad, batch.adjoints(results, d_cost));
  });
}

}  // namespace scav::SCAV_LEVEL
