// The Chamfer distance on a GPU: the minima of a tile's rows and columns, by the whole device, then their means.

#include "cuda/chamfer.h"

namespace scav::device {

namespace {

constexpr int kThreads = 256, kWarps = kThreads / kWarp;

// The smallest of some costs, and the lowest of the steps that have it.
template <class T>
struct Nearest {
  T cost = std::numeric_limits<T>::infinity();
  int step = 0;

  SCAV_DEVICE void take(T other_cost, int other_step) {
    const bool nearer = other_cost < cost || (other_cost == cost && other_step < step);
    cost = nearer ? other_cost : cost;
    step = nearer ? other_step : step;
  }
};

// A warp has a row of a pair's part.
template <class T>
__global__ void __launch_bounds__(kThreads, 1)
    chamfer_rows(const __grid_constant__ Costs<T> costs, ChamferMinima<T> minima) {
  const int64_t blocks = gridDim.x / costs.count, p = blockIdx.x / blocks;
  const Pair<T> pair(costs, p);
  const int lane = threadIdx.x % kWarp;
  const int s = costs.begin + static_cast<int>(blockIdx.x % blocks) * kWarps + threadIdx.x / kWarp;
  if (s >= min(pair.n, costs.end)) {
    return;
  }
  Nearest<T> found;
  for (int t = lane; t < pair.m; t += kWarp) {
    found.take(pair.cost(s, t), t);
  }
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    const T cost = __shfl_xor_sync(kAllLanes, found.cost, offset);
    found.take(cost, __shfl_xor_sync(kAllLanes, found.step, offset));
  }
  if (lane == 0) {
    minima.rows[p * costs.steps_x + s] = found.cost;
    if (minima.nearest != nullptr) {
      minima.nearest[pair.result * minima.sides.saved_steps(costs.steps_x, costs.steps_y) + s] = found.step;
    }
  }
}

// A block has 32 columns of a pair, its warps every eighth row of the part: minima become those of the rows down to the
// part's end.
template <class T>
__global__ void __launch_bounds__(kThreads, 1)
    chamfer_columns(const __grid_constant__ Costs<T> costs, ChamferMinima<T> minima) {
  const int64_t blocks = gridDim.x / costs.count, p = blockIdx.x / blocks;
  const Pair<T> pair(costs, p);
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int t = static_cast<int>(blockIdx.x % blocks) * kWarp + lane, end = min(pair.n, costs.end);
  Nearest<T> found;
  for (int s = costs.begin + warp; s < end && t < pair.m; s += kWarps) {
    found.take(pair.cost(s, t), s);
  }
  T* const shared_costs = shared_memory<T>();
  int* const shared_steps = reinterpret_cast<int*>(shared_costs + kThreads);
  shared_costs[threadIdx.x] = found.cost;
  shared_steps[threadIdx.x] = found.step;
  __syncthreads();
  if (warp == 0 && t < pair.m) {
    T& least = minima.columns[p * costs.steps_y + t];
    const int64_t saved = minima.sides.saved_steps(costs.steps_x, costs.steps_y);
    int32_t* const nearest = minima.nearest
                                 ? minima.nearest + pair.result * saved + minima.sides.saved_before_y(costs.steps_x) + t
                                 : nullptr;
    for (int other = 1; other < kWarps; ++other) {
      found.take(shared_costs[other * kWarp + lane], shared_steps[other * kWarp + lane]);
    }
    if (costs.begin > 0) {
      found.take(least, nearest ? *nearest : 0);
    }
    least = found.cost;
    if (nearest != nullptr) {
      *nearest = found.step;
    }
  }
}

template <class T>
SCAV_DEVICE T mean_of(const T* least, int count, bool root_of, int lane) {
  T sum = 0;
  for (int index = lane; index < count; index += kWarp) {
    sum += root_of ? root(least[index]) : least[index];
  }
  return warp_sum(sum) / T(count);
}

// A warp has a pair.
template <class T>
__global__ void __launch_bounds__(kThreads, 1)
    chamfer_finish(const __grid_constant__ Costs<T> costs, ChamferMinima<T> minima, T share, T* out) {
  const int64_t p = int64_t(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (p >= costs.count) {
    return;
  }
  const Pair<T> pair(costs, p);
  const int lane = threadIdx.x % kWarp;
  T sum = 0;
  if (minima.sides.x) {
    sum += mean_of(minima.rows + p * costs.steps_x, pair.n, minima.root, lane);
  }
  if (minima.sides.y) {
    sum += mean_of(minima.columns + p * costs.steps_y, pair.m, minima.root, lane);
  }
  if (lane == 0) {
    out[pair.result] = share * sum;
  }
}

// A thread has a step of a pair that looked for its nearest. A cell that both of its steps chose is the step of x's.
template <class T>
__global__ void __launch_bounds__(kThreads, 1)
    chamfer_weights(const __grid_constant__ Costs<T> costs, ChamferSides sides, T share, const T* grads,
                    const int32_t* nearest, Weights<T> to) {
  const int64_t saved = sides.saved_steps(costs.steps_x, costs.steps_y), before_y = sides.saved_before_y(costs.steps_x);
  const int64_t thread = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (thread >= costs.count * saved) {
    return;
  }
  const Pair<T> pair(costs, thread / saved);
  const int64_t step = thread % saved;
  const T grad = share * grads[pair.result];
  const bool of_x = step < before_y;
  if (grad == T(0) || (of_x ? step >= pair.n : step - before_y >= pair.m)) {
    return;
  }
  const int32_t* const chosen = nearest + pair.result * saved;
  const int s = of_x ? static_cast<int>(step) : chosen[step],
            t = of_x ? chosen[step] : static_cast<int>(step - before_y);
  const bool by_x = sides.x && chosen[s] == t, by_y = sides.y && chosen[before_y + t] == s;
  if (s >= costs.begin && s < costs.end && (of_x || !by_x)) {
    pair.template put<1>(to, s, t, {(by_x ? grad / T(pair.n) : T(0)) + (by_y ? grad / T(pair.m) : T(0))});
  }
}

}  // namespace

Needs chamfer_needs(int64_t n, int64_t m, int64_t element) {
  return {[=](int64_t pairs, int64_t) { return ChamferMinima<float>::size(pairs, n, m) * element; }, kWarp};
}

template <class T>
void launch_chamfer_part(const Costs<T>& costs, const ChamferMinima<T>& minima, Stream stream) {
  if (minima.sides.x) {
    launch("chamfer rows", chamfer_rows<T>, costs.count * ceil_div<int64_t>(costs.end - costs.begin, kWarps), kThreads,
           0, stream, costs, minima);
  }
  if (minima.sides.y) {
    launch("chamfer columns", chamfer_columns<T>, costs.count * ceil_div<int64_t>(costs.steps_y, kWarp), kThreads,
           kThreads * (sizeof(T) + sizeof(int)), stream, costs, minima);
  }
}

template <class T>
void launch_chamfer_finish(const Costs<T>& costs, const ChamferMinima<T>& minima, T* out, Stream stream) {
  launch("chamfer finish", chamfer_finish<T>, ceil_div<int64_t>(costs.count, kWarps), kThreads, 0, stream, costs,
         minima, static_cast<T>(minima.sides.share()), out);
}

template <class T>
void launch_chamfer_backward(const Costs<T>& costs, ChamferSides sides, const T* grads, const int32_t* nearest,
                             const Weights<T>& to, Stream stream) {
  const int64_t steps = costs.count * sides.saved_steps(costs.steps_x, costs.steps_y);
  launch("chamfer_backward", chamfer_weights<T>, ceil_div<int64_t>(steps, kThreads), kThreads, 0, stream, costs, sides,
         static_cast<T>(sides.share()), grads, nearest, to);
}

#define SCAV_INSTANTIATE(T)                                                                                         \
  template void launch_chamfer_part(const Costs<T>&, const ChamferMinima<T>&, Stream);                              \
  template void launch_chamfer_finish(const Costs<T>&, const ChamferMinima<T>&, T*, Stream);                        \
  template void launch_chamfer_backward(const Costs<T>&, ChamferSides, const T*, const int32_t*, const Weights<T>&, \
                                        Stream)
SCAV_INSTANTIATE(float);
SCAV_INSTANTIATE(double);

}  // namespace scav::device
