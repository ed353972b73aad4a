#pragma once
// Recursions over an alignment grid on a GPU, r[s, t] = cell(c[s, t], r[s-1, t-1], r[s-1, t], r[s, t-1]), and their
// adjoints. The grid is cut into panels of rows; a thread sweeps a column of K cells of a panel over t, its state in
// registers. One number for each t crosses from panel to panel: r of the row above, or what the adjoint sends up.
//
//   lanes      many pairs: a thread has a pair, panel after panel; neighbors read neighboring pairs' cells
//   fused      the same, of products that tensor cores leave in shared memory (cuda/fused.h)
//   wavefront  few pairs: a block has a pair, a warp a panel of 32 K rows, a lane K of them, each lane one column
//              behind the lane above it; warps follow each other two groups of 32 columns apart, through shared memory
//
// A pair too large for the scratch is swept in parts of whole panels, a launch each. The numbers that cross panels
// cross parts too: they stay in `carry` from one launch to the next.
//
// A forward sweep saves its cells in the order in which the same sweep, or the adjoint's, visits them, so that a warp's
// accesses are adjacent.

#include "cuda/device_costs.h"
#include "cuda/sweep_shape.h"

namespace scav::device {

// A Sakoe-Chiba band of radius r lets t - s lie in [-r - max(n - m, 0), r + max(m - n, 0)]; a negative radius is none.
struct Band {
  int low, high;
  bool banded;

#if defined(__CUDACC__) || defined(SCAV_SIMT)
  SCAV_DEVICE Band(int64_t radius, int n, int m) : banded(radius >= 0) {
    const int reach = static_cast<int>(radius < n + m ? radius : n + m);
    low = -reach - (n > m ? n - m : 0);
    high = reach + (m > n ? m - n : 0);
  }
  SCAV_DEVICE bool admits(int offset) const { return !banded || (offset >= low && offset <= high); }
#endif
};

#if defined(__CUDACC__) || defined(SCAV_SIMT)

// Advances a column of K cells by one step, offset = t - s0, and returns its last cell. `recorder.cell(k, admitted,
// cost, diagonal, up, left)` is r of cell k; a cell that is not admitted is unreachable.
template <int K, class T, class Recorder>
SCAV_DEVICE T advance(T (&left)[K], const T (&cost)[K], T diagonal, T up, const Band& band, int offset,
                      Recorder& recorder) {
#pragma unroll
  for (int k = 0; k < K; ++k) {
    const T before = left[k];
    up = recorder.cell(k, band.admits(offset - k), cost[k], diagonal, up, before);
    left[k] = up;
    diagonal = before;
  }
  return up;
}

// One step of the adjoint e = d out / d r = d out / d cost of a column of K cells, from the weights of the diagonal and
// of s - 1 that the forward sweep saved; a negative diagonal weight marks cells that no path enters. `ahead` is what
// the column receives from step t + 1, `below` what it receives from the row below it, `start` what its cell `last`
// receives as the path's end; e is left in `diagonal`. `message` goes to the row above: through this step's weight of
// s - 1 and, `pending` since then, the diagonal of the step after it.
template <int K, class T>
SCAV_DEVICE void adjoint_step(T (&ahead)[K], T (&diagonal)[K], const T (&up)[K], int last, T start, T below, T& message,
                              T& pending) {
  T from_diagonal = 0;
#pragma unroll
  for (int k = K - 1; k >= 0; --k) {
    T e = ahead[k] + below + (k == last ? start : T(0));
    e = diagonal[k] < T(0) ? T(0) : e;
    ahead[k] = e * max(T(1) - diagonal[k] - up[k], T(0)) + from_diagonal;
    below = e * up[k];
    from_diagonal = e * diagonal[k];
    diagonal[k] = e;
  }
  message = below + pending;
  pending = from_diagonal;
}

template <class T>
SCAV_DEVICE T result_of(T r) {
  return r < kReached<T> ? r : (r >= kReached<T> ? std::numeric_limits<T>::infinity() : r);
}

// The part of a recorder that knows where paths start and end: here in (0, 0) and (n - 1, m - 1).
struct ClosedEnds {
  // The end is known to every thread, so that any of them may walk a path from there.
  static constexpr bool ends_anywhere() { return false; }
  // Before the columns of the rows from s0.
  SCAV_DEVICE void start(int) const {}
  // r diagonally above the next column of the rows from s0, of which `up` is above this column.
  template <class T>
  SCAV_DEVICE T above_next(int, T up) const {
    return up;
  }
  // After column t, whose row `last` is the last of x if it is one of the column's.
  template <int K, class T>
  SCAV_DEVICE void take(const Pair<T>&, const T (&)[K], int, int) const {}
  // The result of a pair, after finish(); r is that of its last cell.
  template <class T>
  SCAV_DEVICE T result(const Pair<T>&, T r) const {
    return result_of(r);
  }
  // What cell `last` of column t receives as an end of paths.
  template <int K, class T>
  SCAV_DEVICE T share_of_end(const Pair<T>& pair, T grad, int, int t) const {
    return t == pair.m - 1 ? grad : T(0);
  }
};

template <int K, class T, class Recorder>
__global__ void __launch_bounds__(kLaneThreads, 1)
    sweep_lanes(const __grid_constant__ Costs<T> costs, int64_t radius, Recorder initial, T* carry, T* out) {
  Recorder recorder = initial;
  const int64_t thread = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, threads = int64_t(gridDim.x) * blockDim.x;
  if (thread >= costs.count) {
    return;
  }
  const Pair<T> pair(costs, thread);
  const Band band(radius, pair.n, pair.m);
  const int panels = ceil_div(pair.n, K);
  const int64_t all_panels = ceil_div<int64_t>(costs.steps_x, K);
  T result = 0;
  for (int panel = 0; panel < panels; ++panel) {
    const int s0 = panel * K;
    T left[K];
#pragma unroll
    for (int k = 0; k < K; ++k) {
      left[k] = kUnreachable<T>;
    }
    T diagonal = panel == 0 ? T(0) : kUnreachable<T>;
    recorder.start(s0);
    for (int t = 0; t < pair.m; ++t) {
      T cost[K];
      pair.template column<K>(s0, t, cost);
      const T up = panel == 0 ? kUnreachable<T> : carry[t * threads + thread];
      const T bottom = advance<K>(left, cost, diagonal, up, band, t - s0, recorder);
      recorder.take(pair, left, pair.n - 1 - s0, t);
      diagonal = recorder.above_next(s0, up);
      if (panel + 1 < panels) {
        carry[t * threads + thread] = bottom;
      }
      // The columns of a block's threads at one visit are adjacent.
      const int64_t block = blockIdx.x;
      recorder.save(((block * all_panels + panel) * costs.steps_y + t) * blockDim.x + threadIdx.x);
    }
#pragma unroll
    for (int k = 0; k < K; ++k) {
      result = s0 + k == pair.n - 1 ? left[k] : result;
    }
  }
  recorder.finish(pair, [&](int s, int t) {
    const int64_t block = blockIdx.x;
    return ((block * all_panels + s / K) * costs.steps_y + t) * blockDim.x + threadIdx.x;
  });
  out[pair.result] = recorder.result(pair, result);
}

template <int K, class T, class Recorder>
__global__ void __launch_bounds__(kMaxWarps* kWarp, 1)
    sweep_wavefront(const __grid_constant__ Costs<T> costs, int64_t radius, Recorder initial, T* carry, T* out) {
  Recorder recorder = initial;
  constexpr int kRows = K * kWarp;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  const Pair<T> pair(costs, blockIdx.x);
  const Band band(radius, pair.n, pair.m);
  T* const rings = shared_memory<T>();
  const int panels = ceil_div(pair.n, kRows), groups = ceil_div(pair.m + kWarp - 1, kWarp);
  // Panels of this part of the rows; other launches sweep the rest.
  const int begin = costs.begin / kRows, end = min(panels, ceil_div(costs.end, kRows));
  T* const edge = carry != nullptr ? carry + int64_t(blockIdx.x) * costs.steps_y : nullptr;
  const int64_t all_panels = ceil_div<int64_t>(costs.steps_x, kRows), visits = costs.steps_y + kWarp - 1;
  const auto place = [&](int s, int t) {
    const int in_panel = s % kRows / K;
    return ((blockIdx.x * all_panels + s / kRows) * visits + t + in_panel) * kWarp + in_panel;
  };
  for (int first = begin; first < end; first += warps) {
    const int panel = first + warp, s0 = panel * kRows + lane * K;
    T left[K];
#pragma unroll
    for (int k = 0; k < K; ++k) {
      left[k] = kUnreachable<T>;
    }
    T diagonal = s0 == 0 ? T(0) : kUnreachable<T>, bottom = kUnreachable<T>;
    recorder.start(s0);
    for (int stage = 0; stage < groups + 2 * (warps - 1); ++stage) {
      const int group = stage - 2 * warp;
      if (panel < end && group >= 0 && group < groups) {
        T above = kUnreachable<T>;
        const int column = group * kWarp + lane;
        if (panel > 0 && column < pair.m) {
          above = warp > 0 ? rings[(warp - 1) * kRing + column % kRing] : edge[column];
        }
        for (int visit = group * kWarp; visit < (group + 1) * kWarp; ++visit) {
          const int t = visit - lane;
          const T from_lane = __shfl_up_sync(kAllLanes, bottom, 1);
          const T from_warp = __shfl_sync(kAllLanes, above, visit % kWarp);
          if (t < 0 || t >= pair.m) {
            continue;
          }
          const T up = lane == 0 ? from_warp : from_lane;
          T cost[K];
          pair.template column<K>(s0, t, cost);
          bottom = advance<K>(left, cost, diagonal, up, band, t - s0, recorder);
          recorder.take(pair, left, pair.n - 1 - s0, t);
          diagonal = recorder.above_next(s0, up);
          recorder.save(((blockIdx.x * all_panels + panel) * visits + visit) * kWarp + lane);
          if (lane == kWarp - 1 && panel + 1 < panels) {
            *(warp + 1 < warps && panel + 1 < end ? rings + warp * kRing + t % kRing : edge + t) = bottom;
          }
        }
      }
      __syncthreads();
    }
    if (panel < end && s0 < pair.n && pair.n <= s0 + K) {
      T result = 0;
#pragma unroll
      for (int k = 0; k < K; ++k) {
        result = s0 + k == pair.n - 1 ? left[k] : result;
      }
      if constexpr (Recorder::ends_anywhere()) {
        recorder.finish(pair, place);
      }
      out[pair.result] = recorder.result(pair, result);
    }
  }
  if constexpr (!Recorder::ends_anywhere()) {
    if (threadIdx.x == 0 && begin < panels && end == panels) {
      recorder.finish(pair, place);
    }
  }
}

// The adjoint sweeps start from `grads` of the pairs' results, and skip pairs whose gradient is zero. `saved.load(at,
// diagonal, up)` gives the weights of a column.
template <int K, class T, class Saved>
__global__ void __launch_bounds__(kLaneThreads, 1)
    adjoint_lanes(const __grid_constant__ Costs<T> costs, const T* grads, Saved saved, T* carry, Weights<T> to) {
  const int64_t thread = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, threads = int64_t(gridDim.x) * blockDim.x;
  if (thread >= costs.count) {
    return;
  }
  const Pair<T> pair(costs, thread);
  const T grad = grads[pair.result];
  if (grad == T(0)) {
    return;
  }
  const int panels = ceil_div(pair.n, K);
  const int64_t all_panels = ceil_div<int64_t>(costs.steps_x, K), block = blockIdx.x;
  for (int panel = panels - 1; panel >= 0; --panel) {
    const int s0 = panel * K;
    T ahead[K] = {};
    T pending = 0;
    for (int t = pair.m - 1; t >= 0; --t) {
      T diagonal[K], up[K], message;
      saved.template load<K>(((block * all_panels + panel) * costs.steps_y + t) * blockDim.x + threadIdx.x, diagonal,
                             up);
      const T below = panel + 1 < panels ? carry[t * threads + thread] : T(0);
      const int last = pair.n - 1 - s0;
      adjoint_step<K>(ahead, diagonal, up, last, saved.template share_of_end<K>(pair, grad, last, t), below, message,
                      pending);
      if (panel > 0) {
        carry[t * threads + thread] = message;
      }
      pair.template put<K>(to, s0, t, diagonal);
    }
  }
}

// The wavefront of sweep_wavefront backwards: the last lane leads, warp 0 has the last panel.
template <int K, class T, class Saved>
__global__ void __launch_bounds__(kMaxWarps* kWarp, 1)
    adjoint_wavefront(const __grid_constant__ Costs<T> costs, const T* grads, Saved saved, T* carry, Weights<T> to) {
  constexpr int kRows = K * kWarp;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  const Pair<T> pair(costs, blockIdx.x);
  const T grad = grads[pair.result];
  if (grad == T(0)) {
    return;
  }
  T* const rings = shared_memory<T>();
  const int panels = ceil_div(pair.n, kRows), groups = ceil_div(pair.m + kWarp - 1, kWarp);
  const int begin = costs.begin / kRows, end = min(panels, ceil_div(costs.end, kRows));
  T* const edge = carry != nullptr ? carry + int64_t(blockIdx.x) * costs.steps_y : nullptr;
  const int64_t all_panels = ceil_div<int64_t>(costs.steps_x, kRows), visits = costs.steps_y + kWarp - 1;
  for (int first = end - 1; first >= begin; first -= warps) {
    const int panel = first - warp, s0 = panel * kRows + lane * K;
    T ahead[K] = {};
    T pending = 0, message = 0;
    for (int stage = 0; stage < groups + 2 * (warps - 1); ++stage) {
      const int group = stage - 2 * warp;
      if (panel >= begin && group >= 0 && group < groups) {
        T under = 0;
        // Columns count from the last step here.
        const int column = group * kWarp + lane;
        if (panel + 1 < panels && column < pair.m) {
          under = warp > 0 ? rings[(warp - 1) * kRing + column % kRing] : edge[column];
        }
        for (int visit = group * kWarp; visit < (group + 1) * kWarp; ++visit) {
          const int behind = visit - (kWarp - 1 - lane), t = pair.m - 1 - behind;
          const T from_lane = __shfl_down_sync(kAllLanes, message, 1);
          const T from_warp = __shfl_sync(kAllLanes, under, visit % kWarp);
          if (behind < 0 || t < 0) {
            continue;
          }
          T diagonal[K], up[K];
          saved.template load<K>(((blockIdx.x * all_panels + panel) * visits + t + lane) * kWarp + lane, diagonal, up);
          const int last = pair.n - 1 - s0;
          adjoint_step<K>(ahead, diagonal, up, last, saved.template share_of_end<K>(pair, grad, last, t),
                          lane == kWarp - 1 ? from_warp : from_lane, message, pending);
          if (lane == 0 && panel > 0) {
            *(warp + 1 < warps && panel > begin ? rings + warp * kRing + behind % kRing : edge + behind) = message;
          }
          pair.template put<K>(to, s0, t, diagonal);
        }
      }
      __syncthreads();
    }
  }
}

// Runs the sweep, `make(K)` being its recorder for columns of K cells.
template <class T, class Make>
void launch_sweep(const char* what, const Costs<T>& costs, const SweepShape& shape, int64_t band, T* carry, T* out,
                  Stream stream, const Make& make) {
  const int64_t blocks = shape.blocks(costs.count);
  const int threads = shape.warps * kWarp;
  const size_t shared = shape.shared_bytes(sizeof(T));
  const auto run = [&](auto kernel, auto recorder) {
    launch(what, kernel, blocks, threads, shared, stream, costs, band, recorder, carry, out);
  };
  if (shape.sweep == Sweep::lanes) {
    auto recorder = make(std::integral_constant<int, kLaneRows>());
    run(sweep_lanes<kLaneRows, T, decltype(recorder)>, recorder);
  } else if (shape.rows == kFewRows) {
    auto recorder = make(std::integral_constant<int, kFewRows>());
    run(sweep_wavefront<kFewRows, T, decltype(recorder)>, recorder);
  } else {
    auto recorder = make(std::integral_constant<int, kManyRows>());
    run(sweep_wavefront<kManyRows, T, decltype(recorder)>, recorder);
  }
}

#endif

}  // namespace scav::device
