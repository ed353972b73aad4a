// DTW on the CPU, at one SIMD level: r[s, t] = c[s, t] + min(r[s-1, t-1], r[s-1, t], r[s, t-1]), and with the
// options of shared/dtw.h.

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
#include "cpu/matrix_costs.inl"
#include "cpu/wavefront.inl"
#include "cpu/wavefront_costs.inl"
#include "cpu/wavefront_pairs.inl"
#include "cpu/wavefront_dtw.inl"

namespace scav::SCAV_LEVEL {

// The recursion of one set of lanes, and their paths if `out` needs them. `advance(step0, step1, codes)` sweeps `state`
// (rows, lanes) over steps [step0, step1), leaves the ends of paths in `ends`, and writes the steps into the cells to
// `codes` (steps, rows, lanes) unless it is null; step0 is a multiple of `panel_steps`.
template <class T>
void dtw_recursion(int64_t steps, int64_t panel_steps, const Lanes<T>& lanes, const std::vector<int64_t>& results,
                   const PathEnds<T>& ends, T* state, const std::function<void(int64_t, int64_t, uint8_t*)>& advance,
                   const DtwOutput<T>& out) {
  const int64_t width = ends.lanes, state_size = lanes.rows * width;
  std::fill_n(state, state_size, kUnreachable<T>);
  PathWalks<T> walks{lanes, results, ends, out, {}};
  if (out.bytes_per_cell() == 0) {
    advance(0, steps, nullptr);
    walks.finish();
    return;
  }

  const CheckpointPlan plan =
      plan_checkpoints(lanes.rows, steps, width, panel_steps, {out.bytes_per_cell(), sizeof(T)});
  Buffer<T> states(plan.checkpoints * state_size);
  Buffer<uint8_t> codes(plan.steps * state_size);
  const auto end_of = [&](int64_t index) { return std::min((index + 1) * plan.steps, steps); };
  for (int64_t index = 0; index < plan.checkpoints; ++index) {
    std::copy_n(state, state_size, states.data() + index * state_size);
    advance(index * plan.steps, end_of(index), index + 1 < plan.checkpoints ? nullptr : codes.data());
  }
  walks.start();
  for (int64_t index = plan.checkpoints - 1; index >= 0; --index) {
    if (index + 1 < plan.checkpoints) {
      std::copy_n(states.data() + index * state_size, state_size, state);
      advance(index * plan.steps, end_of(index), codes.data());
    }
    walks.walk(index * plan.steps, codes.data());
  }
  walks.finish();
}

template <class T, int W, int V, class Steps, class Pairs>
void dtw_lanes(const Steps& kind, const Pairs& pairs, const Lanes<T>& lanes, const std::vector<int64_t>& results,
               const DtwOutput<T>& out) {
  const int64_t rows = pairs.rows(), panel_steps = pairs.panel_steps();
  const int64_t stride = panel_steps * W, vector_stride = rows * stride;
  Buffer<T> state(rows * W * V), costs(V * vector_stride);
  PathEnds<T> ends(lanes, out.options.open.end);
  // Costs are computed a panel of steps at a time, and read while they are in L1.
  const auto advance = [&](int64_t step0, int64_t step1, uint8_t* codes) {
    for (int64_t t = step0; t < step1; t += panel_steps) {
      const StepRange range{t, std::min(t + panel_steps, step1)};
      pairs.costs(t, range.step1, lanes.first_row(t), lanes.end_row(range.step1 - 1), costs.data(), stride,
                  vector_stride);
      const auto sweep_with = [&](const auto& cell) {
        sweep<PlainValues<T, W>, V>(range, lanes, costs.data(), stride, vector_stride, state.data(), cell, ends);
      };
      if (codes != nullptr) {
        sweep_with(DtwRecorder<T, W, V, Steps>{kind, codes, step0, rows});
      } else {
        sweep_with(DtwCell<T, W, Steps>{kind});
      }
    }
  };
  dtw_recursion<T>(pairs.steps(), panel_steps, lanes, results, ends, state.data(), advance, out);
}

// Every pair of a PairBatch or MatrixBatch.
template <class T, class Batch>
void dtw_batch(const Batch& batch, const DtwOutput<T>& out) {
  const DtwOptions& options = out.options;
  for_each_pairs(batch, [&](const auto& pairs, const std::vector<int64_t>& results) {
    const Lanes<T> lanes(pairs, options.band, options.open.begin);
    with_lanes<T>(pairs, [&](auto w, auto v) {
      if (options.weighted()) {
        // Fewer kernels: of one vector, as `lanes_of` chooses.
        if constexpr (v == 1) {
          dtw_lanes<T, w, v>(WeightedSteps<T>(options), pairs, lanes, results, out);
        }
      } else {
        dtw_lanes<T, w, v>(EqualSteps<T>(options), pairs, lanes, results, out);
      }
    });
  });
}

// As dtw_batch, for few features.
template <class T>
void dtw_differences(const DifferenceBatch<T>& batch, Cost cost, const DtwOutput<T>& out) {
  constexpr int W = kWidth<T>;
  const EqualSteps<T> equal(out.options);
  with_difference_tile(batch, cost, [&](auto vectors, auto shared, auto kind) {
    constexpr int V = vectors;
    for_each_pairs(batch, [&](const DifferencePairs<T>& pairs, const std::vector<int64_t>& results) {
      const Lanes<T> lanes(pairs, out.options.band, out.options.open.begin);
      const std::vector<LaneEnd> lane_rows = lane_ends<T, W>(lanes, out.options.open.end);
      const BandWalls<T, W, V> walls(lanes);
      const DifferenceTile<T, W, V, shared, decltype(kind)> tile{pairs.x.data(), pairs.y, batch.x.dim, kHiddenOne<T>};
      Buffer<T> state(lanes.rows * W * V);
      PathEnds<T> ends(lanes, out.options.open.end);
      const auto advance = [&](int64_t step0, int64_t step1, uint8_t* codes) {
        const StepRange range{step0, step1};
        if (codes != nullptr) {
          difference_sweep<T, W, V>(tile, range, lanes, walls, lane_rows, state.data(),
                                    DtwRecorder<T, W, V, EqualSteps<T>>{equal, codes, step0, lanes.rows}, ends);
        } else {
          difference_sweep<T, W, V>(tile, range, lanes, walls, lane_rows, state.data(),
                                    DtwCell<T, W, EqualSteps<T>>{equal}, ends);
        }
      };
      dtw_recursion<T>(pairs.steps(), kPassSteps, lanes, results, ends, state.data(), advance, out);
    });
  });
}

// Lanes of a recursion of these options.
template <class T>
LaneCount lanes_of(GridSizes sizes, const DtwOutput<T>& out) {
  sizes.xs = out.options.weighted() ? 1 : sizes.xs;
  LaneCount lanes = choose_lanes<T>(sizes, false, {out.bytes_per_cell(), sizeof(T)});
  lanes.vectors = out.options.weighted() ? 1 : lanes.vectors;
  return lanes;
}

template <class T>
void dtw_forward(const Inputs& inputs, const DtwOptions& options, T* distances, uint8_t* paths) {
  const DtwOutput<T> out{options, distances, paths, inputs.steps_x() + inputs.steps_y()};
  if (suits_wavefront<T>(grid_sizes(inputs))) {
    measure_rows(inputs);
    wavefront_dtw<T>(inputs, out);
    return;
  }
  const int64_t vectors = options.weighted() ? 0 : difference_vectors<T>(inputs, out.bytes_per_cell());
  if (vectors > 0) {
    measure_rows(inputs);
    const DifferenceBatch<T> batch(inputs, vectors);
    dtw_differences(batch, inputs.cost, out);
    return;
  }
  const PairBatch<T> batch(inputs, lanes_of<T>(grid_sizes(inputs), out), false);
  dtw_batch<T>(batch, out);
}

template <class T>
void dtw_from_cost_forward(const CostInputs& costs, const DtwOptions& options, T* distances, uint8_t* paths) {
  const DtwOutput<T> out{options, distances, paths, costs.steps_x() + costs.steps_y()};
  if (suits_wavefront<T>(grid_sizes(costs))) {
    wavefront_dtw<T>(costs, out);
    return;
  }
  const MatrixBatch<T> batch(costs, lanes_of<T>(grid_sizes(costs), out));
  dtw_batch<T>(batch, out);
}

// Adds one pair's term of the gradient: every cell of its path pulls its two rows together or apart.
// `dx`, `dy` are the pair's rows, or null.
template <class T>
void dtw_pair_backward(const Inputs& inputs, const T* x, const T* y, int64_t n, int64_t m, const PathOptions& options,
                       T outer, const uint8_t* path, T* dx, T* dy) {
  constexpr int w = kWidth<T>;
  const int64_t dim = inputs.x.size(2), body = dim / w * w;
  const T per_cell = outer / static_cast<T>(path_divisor(options.normalize, n, m, path));
  for_each_path_cell(n, m, path, static_cast<T>(options.diagonal_weight), [&](int64_t s, int64_t t, T weight) {
    const T grad = per_cell * weight;
    const T *xs = x + s * dim, *yt = y + t * dim;
    T* to_x = dx ? dx + s * dim : nullptr;
    T* to_y = dy ? dy + t * dim : nullptr;
    if (inputs.cost == Cost::cosine) {
      for (int64_t k = 0; k < dim; ++k) {
        if (to_x) {
          to_x[k] -= grad * yt[k];
        }
        if (to_y) {
          to_y[k] -= grad * xs[k];
        }
      }
    } else {
      T factor = 2 * grad;
      if (inputs.cost == Cost::euclidean) {
        Vec<T, w> partial{};
        for (int64_t k = 0; k < body; k += w) {
          const Vec<T, w> difference = load<T, w>(xs + k) - load<T, w>(yt + k);
          partial += difference * difference;
        }
        T square = horizontal_sum<T, w>(partial);
        for (int64_t k = body; k < dim; ++k) {
          square += (xs[k] - yt[k]) * (xs[k] - yt[k]);
        }
        factor = square > 0 ? grad / std::sqrt(square) : T(0);
      }
      for (int64_t k = 0; k < dim; ++k) {
        const T pull = factor * (xs[k] - yt[k]);
        if (to_x) {
          to_x[k] += pull;
        }
        if (to_y) {
          to_y[k] -= pull;
        }
      }
    }
  });
}

// dx, dy: (B1, N, D) and (B2, M, D), zero on entry, or null.
template <class T>
void dtw_backward(const Inputs& inputs, const PathOptions& options, const T* grad, const T* out, const uint8_t* paths,
                  T* dx, T* dy) {
  const Sequences<T> x = inputs.sequences_x<T>(), y = inputs.sequences_y<T>();
  const int64_t path_stride = x.steps + y.steps, x_size = x.steps * x.dim, y_size = y.steps * y.dim;
  auto pair = [&](int64_t i, int64_t j, int64_t result, T* to_x, T* to_y) {
    poll((x.lengths[i] + y.lengths[j]) * x.dim);
    if (grad[result] != 0 && std::isfinite(out[result])) {
      dtw_pair_backward<T>(inputs, x.row(i, 0), y.row(j, 0), x.lengths[i], y.lengths[j], options, grad[result],
                           paths + result * path_stride, to_x, to_y);
    }
  };
  // A thread owns a part of one side and visits all of the other side. The gradients of the two sides are two passes,
  // which computes the path's distances twice, and needs neither locks nor copies.
  const int64_t parts = thread_count();
  // It takes a group of its part at a time: as many as stay in cache with their gradients, while it visits the other
  // side.
  const auto group_size = [](int64_t size) {
    constexpr int64_t kBytes = int64_t(768) << 10;
    return std::max<int64_t>(1, kBytes / (2 * size * static_cast<int64_t>(sizeof(T))));
  };
  const int64_t x_group = group_size(x_size), y_group = group_size(y_size);
  run_parts(parts, [&](int64_t part) {
    if (inputs.paired) {
      for (int64_t i = x.batch * part / parts; i < x.batch * (part + 1) / parts; ++i) {
        pair(i, i, i, dx ? dx + i * x_size : nullptr, dy ? dy + i * y_size : nullptr);
      }
      return;
    }
    const int64_t end_x = x.batch * (part + 1) / parts, end_y = y.batch * (part + 1) / parts;
    for (int64_t first = x.batch * part / parts; dx != nullptr && first < end_x; first += x_group) {
      for (int64_t j = 0; j < y.batch; ++j) {
        for (int64_t i = first; i < std::min(first + x_group, end_x); ++i) {
          pair(i, j, i * y.batch + j, dx + i * x_size, nullptr);
        }
      }
    }
    for (int64_t first = y.batch * part / parts; dy != nullptr && first < end_y; first += y_group) {
      for (int64_t i = 0; i < x.batch; ++i) {
        for (int64_t j = first; j < std::min(first + y_group, end_y); ++j) {
          pair(i, j, i * y.batch + j, nullptr, dy + j * y_size);
        }
      }
    }
  });
}

}  // namespace scav::SCAV_LEVEL
