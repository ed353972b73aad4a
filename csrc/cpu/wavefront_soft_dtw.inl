// Soft-DTW along the anti-diagonals of one pair, forward and backward.
// Included once per SIMD level (foreach_level.h): no include guard.

namespace scav::SCAV_LEVEL {

template <class T>
using StripValues = ScaledValues<T, kWidth<T>>;
template <class T, class Source>
using StripCell = SoftDtwCell<T, kWidth<T>, Source::kForbids>;

// r above the first row. A cell of an open row enters the grid twice, diagonally and from s - 1: each counts half.
template <class T>
TopRow<StripValues<T>> soft_dtw_top(const SoftDtw<T>& recurrence) {
  const auto half = StripValues<T>::power(-1);
  return recurrence.open.begin ? TopRow<StripValues<T>>{half, half} : TopRow<StripValues<T>>{};
}

// r of the ends, a vector of steps after the other.
template <class T>
Buffer<T> end_distances(const SoftDtw<T>& recurrence, const LastRow<StripValues<T>>& ends) {
  constexpr int W = kWidth<T>;
  Buffer<T> distances(ends.vectors() * W);
  for (int64_t i = 0; i < ends.vectors(); ++i) {
    const auto value = load_value<StripValues<T>>(ends.data() + i * StripValues<T>::kParts * W);
    store<T, W>(distances.data() + i * W, recurrence.distance(value));
  }
  return distances;
}

// The softmin over the ends.
template <class T>
EndSoftmin<T, 1> end_softmin(const SoftDtw<T>& recurrence, const Buffer<T>& distances, int64_t vectors) {
  constexpr int W = kWidth<T>;
  return EndSoftmin<T, W>(recurrence, distances.data(), vectors, W).over_lanes(recurrence);
}

template <class T, class Source>
T wavefront_soft_dtw_pair(const SoftDtw<T>& recurrence, const Source& source) {
  const WavefrontGrid<T>& grid = source.grid;
  const StripRows<StripValues<T>> rows(grid, grid.strips(), soft_dtw_top(recurrence));
  const LastRow<StripValues<T>> last_row(grid, recurrence.open.end);
  const Scaled<T, 1> value = run_strips(source, grid, rows.range(0), rows, last_row,
                                        [&](int64_t) { return StripCell<T, Source>{recurrence}; });
  if (last_row.open()) {
    return end_softmin(recurrence, end_distances(recurrence, last_row), last_row.vectors()).value(recurrence)[0];
  }
  const T distance = recurrence.distance(value)[0];
  return distance < kReached<T> ? distance : std::numeric_limits<T>::infinity();
}

// What the last row receives of the gradient `grad` of a distance: all in its last cell, or its share in every cell.
template <class T>
class EndGradients {
 public:
  const T grad;

  explicit EndGradients(T outer) : grad(outer) {}

  // Of a softmin over the first `m` cells of `last_row`.
  void take(const SoftDtw<T>& recurrence, const LastRow<StripValues<T>>& last_row, int64_t m) {
    shares_ = end_distances(recurrence, last_row);
    end_softmin(recurrence, shares_, last_row.vectors()).to_weights(recurrence, Vec<T, 1>{grad}, shares_.data(), m, 1);
    steps_ = m;
  }
  bool open() const { return shares_.data() != nullptr; }
  T at(int64_t t) const { return t >= 0 && t < steps_ ? shares_[t] : T(0); }

 private:
  Buffer<T> shares_;
  int64_t steps_ = 0;
};

// A cell of a strip that also stores the weights of its softmin.
template <class T, bool forbids>
struct StripRecorder {
  static constexpr int W = kWidth<T>;
  using Value = typename StripValues<T>::Value;
  SoftDtw<T> recurrence;
  T *diagonal, *up;  // (ticks, kStripRows)

  SCAV_INLINE Value operator()(int64_t tick, int v, Vec<T, W> cost, Value d, Value u, Value l) const {
    const int64_t at = tick * kStripRows<T> + v * W;
    return soft_dtw_recorded<forbids>(recurrence, cost, d, u, l, diagonal + at, up + at);
  }
};

// Weights of the softmins in the cells of a range of strips, and the adjoint e = d out / d r = d out / d cost, which
// takes the place of the diagonal's weights.
template <class T, bool forbids>
struct WavefrontAdjoint {
  static constexpr int W = kWidth<T>;
  static constexpr int64_t kRows = kStripRows<T>;
  using V = Vec<T, W>;

  const WavefrontGrid<T>& grid;
  const StripCells<T> cells;
  T *diagonal, *up;
  const EndGradients<T>& ends;

  WavefrontAdjoint(const WavefrontGrid<T>& all, const StripRange& range, const Buffer<T>& diagonal_weights,
                   const Buffer<T>& up_weights, const EndGradients<T>& end_gradients)
      : grid(all), cells(all, range), diagonal(diagonal_weights.data()), up(up_weights.data()), ends(end_gradients) {}

  StripRecorder<T, forbids> recorder(const SoftDtw<T>& recurrence, int64_t strip) const {
    return {recurrence, diagonal + cells.offset(strip), up + cells.offset(strip)};
  }

  // The adjoint of one strip: `below` holds what the strip below sends to its last row, `above` becomes what it sends
  // to the strip above. The gradient enters in the last row.
  void retreat(int64_t strip, Pipeline& pipeline, int64_t task, const BoundaryRow<T>& below,
               const BoundaryRow<T>& above) const {
    const WavefrontBounds<T> bounds(grid, strip);
    const int64_t first = grid.first_tick(strip), count = grid.rows_of(strip);
    State state{};
    if (strip == grid.strips() - 1 && !ends.open()) {
      state.left[(count - 1) / W][(count - 1) % W] = ends.grad;
    }
    int64_t end = grid.end_tick(strip);
    while (end > first) {
      const int64_t tick = std::max(first, (end - 1) / kChunkTicks * kChunkTicks);
      poll((end - tick) * kRows * 8);
      pipeline.wait(task, tick > first ? grid.m - (tick - kRows + 1) : Pipeline::kFinished);
      if (grid.banded || tick < kRows || end > grid.m || count < kRows) {
        retreat_ticks<true>(tick, end, bounds, strip, below, above, state);
      } else {
        retreat_ticks<false>(tick, end, bounds, strip, below, above, state);
      }
      pipeline.publish(task, grid.m - tick);
      end = tick;
    }
    // What the first row's first step sends along the diagonal.
    above[first - 1] = state.diagonal[0][0];
    pipeline.publish(task, Pipeline::kFinished);
  }

  // Copies e of steps [step0, step1) of a strip's rows, row i to out + i * stride, and overwrites what is less than
  // kRows before and after them.
  void copy(int64_t strip, int64_t step0, int64_t step1, T* out, int64_t stride) const {
    const int64_t tick0 = std::max(grid.first_tick(strip), step0),
                  tick1 = std::min(grid.end_tick(strip), step1 + kRows - 1);
    const T* from = diagonal + cells.offset(strip);
    if (tick0 < tick1) {
      transpose<T>(
          tick1 - tick0, grid.rows_of(strip), [&](int64_t k) { return from + (tick0 + k) * kRows; },
          [&](int64_t i) { return out + i * stride + tick0 - i - step0; });
    }
  }

 private:
  // What cells send to their neighbors: to t - 1, to s - 1 of the same step, and, in the next tick, to s - 1.
  struct State {
    V left[kStripVectors], up[kStripVectors], diagonal[kStripVectors];
  };

  template <bool edges>
  void retreat_ticks(int64_t tick0, int64_t tick1, const WavefrontBounds<T>& bounds, int64_t strip,
                     const BoundaryRow<T>& below, const BoundaryRow<T>& above, State& state) const {
    constexpr auto lanes = std::make_integer_sequence<int, W>{};
    const int64_t last_row = grid.rows_of(strip) - 1;
    const int end_vector = ends.open() && strip == grid.strips() - 1 ? static_cast<int>(last_row / W) : -1;
    V end_lane{};
    end_lane[last_row % W] = 1;
    T* const weights = diagonal + cells.offset(strip);
    const T* const up_weights = up + cells.offset(strip);
    State sent = state;
    for (int64_t tick = tick1 - 1; tick >= tick0; --tick) {
#pragma GCC unroll 4
      for (int v = 0; v < kStripVectors; ++v) {
        const V next =
            v + 1 < kStripVectors ? sent.up[v + 1 < kStripVectors ? v + 1 : 0] : splat<T, W>(below[tick - kRows + 1]);
        T* const at = weights + tick * kRows + v * W;
        V e = sent.left[v] + shift_out(sent.up[v], next, lanes);
        if (v == end_vector) {
          e += end_lane * ends.at(tick - last_row);
        }
        V d = load<T, W>(at), u = load<T, W>(up_weights + tick * kRows + v * W);
        if constexpr (forbids) {
          e = d < T(0) ? V{} : e;
        }
        // Weights outside the grid or the band may be anything.
        if constexpr (edges) {
          const auto inside = bounds.inside(v, tick);
          e = inside ? e : V{};
          d = inside ? d : V{};
          u = inside ? u : V{};
        }
        sent.left[v] = e * vmax(T(1) - d - u, V{});
        sent.up[v] = e * u + sent.diagonal[v];
        sent.diagonal[v] = e * d;
        store<T, W>(at, e);
      }
      store<T, W>(&above[tick], sent.up[0]);
    }
    state = sent;
  }
};

// Adds the gradient of one pair, times `grad`, to what `to` holds.
template <class T, class Source, class To>
void wavefront_soft_dtw_pair_backward(const SoftDtw<T>& recurrence, const Source& source, T grad, const To& to) {
  const WavefrontGrid<T>& grid = source.grid;
  // Of a range. Weights that fill the last-level cache take longer to read back than to compute again.
  constexpr int64_t kWeightBytes = int64_t(2) << 20;
  const StripRows<StripValues<T>> rows(grid, grid.strips_of_bytes(kWeightBytes, 2 * sizeof(T), 2 * sizeof(T)),
                                       soft_dtw_top(recurrence));
  const LastRow<StripValues<T>> last_row(grid, recurrence.open.end), no_row(grid, false);
  const PassingRows<T, BoundaryRow<T>> sent(grid.m);
  const int64_t largest = rows.largest(grid);
  const Buffer<T> diagonal(largest), up(largest);
  sent.of(grid.strips()).fill(grid.m, T(0));
  for (int64_t index = 0; index + 1 < rows.ranges(); ++index) {
    run_strips(source, grid, rows.range(index), rows, no_row,
               [&](int64_t) { return StripCell<T, Source>{recurrence}; });
  }
  EndGradients<T> ends(grad);
  for (int64_t index = rows.ranges() - 1; index >= 0; --index) {
    const StripRange range = rows.range(index);
    const int64_t count = range.end - range.first;
    const WavefrontAdjoint<T, Source::kForbids> adjoint(grid, range, diagonal, up, ends);
    run_strips(source, grid, range, rows, last_row, [&](int64_t strip) { return adjoint.recorder(recurrence, strip); });
    if (index + 1 == rows.ranges() && last_row.open()) {
      ends.take(recurrence, last_row, grid.m);
    }
    Pipeline pipeline(count);
    run_parts(std::min(thread_count(), count), [&](int64_t) {
      for (int64_t task = pipeline.take(); task < count; task = pipeline.take()) {
        const int64_t strip = range.end - 1 - task;
        sent.of(strip).fill(grid.m, T(0));
        adjoint.retreat(strip, pipeline, task, sent.of(strip + 1), sent.of(strip));
      }
    });
    const auto copy = [&](int64_t strip, int64_t step0, int64_t step1, T* out, int64_t stride) {
      adjoint.copy(strip, step0, step1, out, stride);
    };
    add_gradient(source, range, copy, to);
  }
}

// Every pair of Inputs or CostInputs.
template <class T, class Batch>
void wavefront_soft_dtw(const SoftDtw<T>& recurrence, const Batch& batch, std::optional<int64_t> band, T* out) {
  for_each_wavefront_pair<T>(batch, band, [&](const auto& source, const PairIndex& pair) {
    out[pair.result] = wavefront_soft_dtw_pair<T>(recurrence, source);
  });
}

// dx, dy: (B1, N, D) and (B2, M, D), zero on entry, or null. Threads share a pair: other pairs add to the same rows.
template <class T>
void wavefront_soft_dtw_backward(const SoftDtw<T>& recurrence, const Inputs& inputs, std::optional<int64_t> band,
                                 const T* grad, T* dx, T* dy) {
  const Sequences<T> x = inputs.sequences_x<T>(), y = inputs.sequences_y<T>();
  const auto rows_of = [](T* gradient, const Sequences<T>& side, int64_t b) {
    return gradient ? gradient + b * side.steps * side.dim : nullptr;
  };
  std::vector<PairIndex> pairs = all_pairs(x, y, inputs.paired);
  std::erase_if(pairs, [&](const PairIndex& pair) { return grad[pair.result] == 0; });
  if (x.dim <= kMaxDifferenceFeatures) {
    for (const PairIndex& pair : pairs) {
      const DifferenceCosts<T> costs(inputs.cost, x, y, pair, band);
      const DifferenceGradient<T> to(y.row(pair.y, 0), x.dim, pair.m, rows_of(dx, x, pair.x), rows_of(dy, y, pair.y));
      wavefront_soft_dtw_pair_backward(recurrence, costs, grad[pair.result], to);
      to.finish();
    }
    return;
  }
  const ProductPairs<T> products(inputs, true);
  const PackedGradient<T> gradient(products.packed, dy != nullptr);
  for (const PairIndex& pair : pairs) {
    const TileCosts<T, GroupCosts<T>> costs{products.source(pair), {pair.n, pair.m, band}};
    wavefront_soft_dtw_pair_backward(recurrence, costs, grad[pair.result], gradient.adjoint(rows_of(dx, x, pair.x)));
  }
  gradient.unpack(products.packed, dy);
}

// d_cost: (B1, B2, N, M), zero on entry.
template <class T>
void wavefront_soft_dtw_from_cost_backward(const SoftDtw<T>& recurrence, const CostInputs& costs,
                                           std::optional<int64_t> band, const T* grad, T* d_cost) {
  for_each_wavefront_pair<T>(costs, band, [&](const auto& source, const PairIndex& pair) {
    if (grad[pair.result] != 0) {
      T* const cells = d_cost + pair.result * costs.steps_x() * costs.steps_y();
      wavefront_soft_dtw_pair_backward(recurrence, source, grad[pair.result], MatrixAdjoint<T>{cells, costs.steps_y()});
    }
  });
}

}  // namespace scav::SCAV_LEVEL
