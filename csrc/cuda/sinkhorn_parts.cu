// Sinkhorn on a GPU for pairs whose costs and K do not fit the scratch: iterations in logarithms over parts of rows, by
// the whole device, a launch for each half of an iteration. In units of epsilon, as in sinkhorn_kernels.cu:
//     F[i] = -log sum_j b exp(G[j] - S[i, j]),    G[j] = -log sum_i a exp(F[i] - S[i, j]).
// A part's rows of F are known once it has been read, and its share of the columns' sums with them: one visit of each
// part makes an iteration. G of `weighted` kernels includes log m b, as in sinkhorn_kernels.cu.

#include "cuda/sinkhorn.h"

namespace scav::device {

namespace {

constexpr int kThreads = 256, kWarps = kThreads / kWarp;

// log sum_i exp(value[i]), as exp(peak) sum.
template <class T>
struct LogSum {
  T peak = kMasked<T>, sum = 0;

  SCAV_DEVICE void add(T other_peak, T other_sum) {
    const T top = max(peak, other_peak);
    sum = sum * exponential(peak - top) + other_sum * exponential(other_peak - top);
    peak = top;
  }
};

template <class T>
SCAV_DEVICE T scaled_cost(const Pair<T>& pair, T scale, int i, int j) {
  return scale * min(pair.cost(i, j), kUnreachable<T>);
}

// Weights over their means, of a pair, and the logarithm of those of y.
template <class T, bool weighted>
struct PairWeightsOf {
  const T *x, *y;

  SCAV_DEVICE PairWeightsOf(const StepWeights<T>& weights, const Pair<T>& pair)
      : x(weighted ? weights.x + pair.x * pair.costs.steps_x : nullptr),
        y(weighted ? weights.y + pair.y * pair.costs.steps_y : nullptr) {}
  SCAV_DEVICE T a(int i) const {
    if constexpr (weighted) {
      return x[i];
    }
    return 1;
  }
  SCAV_DEVICE T b(int j) const {
    if constexpr (weighted) {
      return y[j];
    }
    return 1;
  }
  SCAV_DEVICE T log_b(int j) const {
    if constexpr (weighted) {
      return y[j] > T(0) ? logarithm(y[j]) : kMasked<T>;
    }
    return 0;
  }
};

// A block has a pair. `annealed`: G stays as it is.
template <class T, bool weighted>
__global__ void __launch_bounds__(kThreads, 1)
    sinkhorn_start(const __grid_constant__ Costs<T> costs, T epsilon, bool annealed, SinkhornState<T> state,
                   SinkhornReport<T> report) {
  const Pair<T> pair(costs, blockIdx.x);
  const PairWeightsOf<T, weighted> weights(state.weights, pair);
  for (int i = threadIdx.x; i < pair.n; i += kThreads) {
    state.f[blockIdx.x * costs.steps_x + i] = 0;
  }
  for (int j = threadIdx.x; j < pair.m && !annealed; j += kThreads) {
    state.g[blockIdx.x * costs.steps_y + j] = weights.log_b(j);
  }
  // A pair that holds inf or NaN gets its value elsewhere.
  if (threadIdx.x == 0) {
    state.epsilon[blockIdx.x] = epsilon;
    state.done[blockIdx.x] = pair.is_nonfinite() ? T(1) : T(0);
    if (pair.is_nonfinite()) {
      put(report, pair.result, 0, std::numeric_limits<T>::quiet_NaN());
    }
  }
}

// A warp has a row of a pair's part: the largest of its finite costs between steps that have weight goes to `errors`.
template <class T>
__global__ void __launch_bounds__(kThreads, 1)
    sinkhorn_largest(const __grid_constant__ Costs<T> costs, SinkhornState<T> state) {
  const int64_t blocks = gridDim.x / costs.count, p = blockIdx.x / blocks;
  const Pair<T> pair(costs, p);
  const PairWeightsOf<T, true> weights(state.weights, pair);
  const int i = costs.begin + static_cast<int>(blockIdx.x % blocks) * kWarps + threadIdx.x / kWarp;
  if (i >= min(pair.n, costs.end)) {
    return;
  }
  T largest = 0;
  for (int j = threadIdx.x % kWarp; weights.a(i) > T(0) && j < pair.m; j += kWarp) {
    const T cost = pair.cost(i, j);
    largest = weights.b(j) > T(0) && cost < kReached<T> ? max(largest, cost) : largest;
  }
  largest = warp_max(largest);
  if (threadIdx.x % kWarp == 0) {
    state.errors[p * costs.steps_x + i] = largest;
  }
}

// A block has a pair. Before the first iteration, takes its largest cost for epsilon; after each, G of it, and the next
// epsilon, in whose units G is then: the last one where the next is smaller, or iterations are over.
template <class T>
__global__ void __launch_bounds__(kThreads, 1)
    sinkhorn_anneal(const __grid_constant__ Costs<T> costs, T last, T scaling, int64_t iteration, bool over,
                    SinkhornState<T> state) {
  const int64_t p = blockIdx.x, first_x = p * costs.steps_x, first_y = p * costs.steps_y;
  if (state.done[p] != T(0)) {
    return;
  }
  const Pair<T> pair(costs, p);
  const PairWeightsOf<T, true> weights(state.weights, pair);
  T* const sums = shared_memory<T>();
  const T before = state.epsilon[p];
  T largest = 0, infinite = 0;
  for (int i = threadIdx.x; i < pair.n; i += kThreads) {
    const T next = state.f_next[first_x + i];
    largest = iteration == 0 ? max(largest, state.errors[first_x + i]) : T(0);
    infinite += iteration == 0 || next - next == T(0) || weights.a(i) == T(0) ? T(0) : T(1);
  }
  largest = block_max(largest, sums);
  const bool stuck = block_sum(infinite, sums) > T(0);
  const T next = iteration == 0 ? largest : before * scaling;
  const bool ends = over || !(next > last);
  const T ratio = before / (ends ? last : next);
  for (int j = threadIdx.x; j < pair.m; j += kThreads) {
    T& g = state.g[first_y + j];
    const T own = iteration == 0 || stuck
                      ? g - weights.log_b(j)
                      : logarithm(T(pair.n)) - state.peak[first_y + j] - logarithm(state.sum[first_y + j]);
    g = weights.b(j) > T(0) ? own * ratio + weights.log_b(j) : kMasked<T>;
  }
  if (threadIdx.x == 0) {
    state.epsilon[p] = ends ? last : next;
    state.done[p] = ends ? T(1) : T(0);
  }
}

// A warp has a row of a pair's part.
template <class T, bool weighted>
__global__ void __launch_bounds__(kThreads, 1)
    sinkhorn_rows(const __grid_constant__ Costs<T> costs, T scale, SinkhornState<T> state) {
  const int64_t blocks = gridDim.x / costs.count, p = blockIdx.x / blocks;
  const Pair<T> pair(costs, p);
  const int lane = threadIdx.x % kWarp;
  const int i = costs.begin + static_cast<int>(blockIdx.x % blocks) * kWarps + threadIdx.x / kWarp;
  if (state.done[p] != T(0) || i >= min(pair.n, costs.end)) {
    return;
  }
  if constexpr (weighted) {
    scale = T(1) / state.epsilon[p];
  }
  const T* const g = state.g + p * costs.steps_y;
  LogSum<T> own;
  for (int j = lane; j < pair.m; j += kWarp) {
    own.add(g[j] - scaled_cost(pair, scale, i, j), T(1));
  }
  const T peak = warp_max(own.peak), sum = warp_sum(own.sum * exponential(own.peak - peak));
  if (lane == 0) {
    const int64_t at = p * costs.steps_x + i;
    const T next = logarithm(T(pair.m)) - peak - logarithm(sum), ratio = exponential(state.f[at] - next) - T(1);
    const T a = PairWeightsOf<T, weighted>(state.weights, pair).a(i);
    state.f_next[at] = next;
    state.errors[at] = a > T(0) ? a * (ratio < T(0) ? -ratio : ratio) : T(0);
    if constexpr (weighted) {
      state.weighted_f[at] = a > T(0) ? next + logarithm(a) : kMasked<T>;
    }
  }
}

// A block has 32 columns of a pair, its warps every eighth row of the part: peak, sum (pairs, M) become those of
// `f` - S, f (pairs, N), over the rows down to the part's end. Pairs that are `done` (pairs,) or null are left. Those
// of `scaled` kernels have an epsilon each.
template <class T, bool scaled>
__global__ void __launch_bounds__(kThreads, 1)
    sinkhorn_columns(const __grid_constant__ Costs<T> costs, T scale, const T* epsilons, const T* f, const T* done,
                     T* peak, T* sum) {
  const int64_t blocks = gridDim.x / costs.count, p = blockIdx.x / blocks;
  if (done != nullptr && done[p] != T(0)) {
    return;
  }
  if constexpr (scaled) {
    scale = T(1) / epsilons[p];
  }
  const Pair<T> pair(costs, p);
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int j = static_cast<int>(blockIdx.x % blocks) * kWarp + lane, end = min(pair.n, costs.end);
  LogSum<T> own;
  for (int i = costs.begin + warp; i < end && j < pair.m; i += kWarps) {
    own.add(f[p * costs.steps_x + i] - scaled_cost(pair, scale, i, j), T(1));
  }
  T* const peaks = shared_memory<T>();
  T* const sums = peaks + kThreads;
  peaks[threadIdx.x] = own.peak;
  sums[threadIdx.x] = own.sum;
  __syncthreads();
  if (warp == 0 && j < pair.m) {
    const int64_t at = p * costs.steps_y + j;
    LogSum<T> all;
    if (costs.begin > 0) {
      all.add(peak[at], sum[at]);
    }
    for (int other = 0; other < kWarps; ++other) {
      all.add(peaks[other * kWarp + lane], sums[other * kWarp + lane]);
    }
    peak[at] = all.peak;
    sum[at] = all.sum;
  }
}

// A block has a pair. Stops it where sum_i |sum_j P[i, j] - a[i]| of the iteration before is below `tolerance`, and
// leaves its potentials as they were, or where that is only to `measure`; also if costs overflow in units of epsilon:
// no iteration helps.
template <class T, bool weighted>
__global__ void __launch_bounds__(kThreads, 1)
    sinkhorn_settle(const __grid_constant__ Costs<T> costs, T tolerance, int64_t iteration, bool measure,
                    SinkhornState<T> state, SinkhornReport<T> report) {
  const int64_t p = blockIdx.x, first_x = p * costs.steps_x, first_y = p * costs.steps_y;
  if (state.done[p] != T(0)) {
    return;
  }
  const Pair<T> pair(costs, p);
  const PairWeightsOf<T, weighted> weights(state.weights, pair);
  T* const sums = shared_memory<T>();
  T error = 0, infinite = 0;
  for (int i = threadIdx.x; i < pair.n; i += kThreads) {
    const T next = state.f_next[first_x + i];
    error += state.errors[first_x + i];
    infinite += next - next == T(0) || weights.a(i) == T(0) ? T(0) : T(1);
  }
  error = block_sum(error, sums) / T(pair.n);
  const bool converged = measure || error<tolerance, stuck = block_sum(infinite, sums)> T(0);
  if (threadIdx.x == 0 && (converged || stuck)) {
    state.done[p] = T(1);
    put(report, pair.result, iteration + (converged ? 0 : 1), converged ? error : std::numeric_limits<T>::quiet_NaN());
  }
  for (int i = threadIdx.x; i < pair.n && !converged; i += kThreads) {
    state.f[first_x + i] = state.f_next[first_x + i];
  }
  for (int j = threadIdx.x; j < pair.m && !converged && !stuck; j += kThreads) {
    const T g = logarithm(T(pair.n)) - state.peak[first_y + j] - logarithm(state.sum[first_y + j]);
    state.g[first_y + j] = weights.b(j) > T(0) ? g + weights.log_b(j) : kMasked<T>;
  }
}

// A block has a pair.
template <class T, bool weighted>
__global__ void __launch_bounds__(kThreads, 1)
    sinkhorn_finish(const __grid_constant__ Costs<T> costs, T epsilon, SinkhornState<T> state, T* out, T* f) {
  const Pair<T> pair(costs, blockIdx.x);
  const PairWeightsOf<T, weighted> weights(state.weights, pair);
  T* const sums = shared_memory<T>();
  T rows = 0, columns = 0;
  for (int i = threadIdx.x; i < pair.n; i += kThreads) {
    const T own = state.f[blockIdx.x * costs.steps_x + i];
    rows += weights.a(i) > T(0) ? weights.a(i) * own : T(0);
    if (f != nullptr) {
      f[pair.result * costs.steps_x + i] = own;
    }
  }
  for (int j = threadIdx.x; j < pair.m; j += kThreads) {
    const T own = state.g[blockIdx.x * costs.steps_y + j];
    columns += weights.b(j) > T(0) ? weights.b(j) * (own - weights.log_b(j)) : T(0);
  }
  const T value = block_sum(rows, sums) / T(pair.n) + block_sum(columns, sums) / T(pair.m);
  if (threadIdx.x == 0) {
    out[pair.result] = epsilon * value;
  }
}

// Blocks and warps as in sinkhorn_columns, whose peaks and sums over all rows of `f` - S make the plan.
template <class T, bool weighted>
__global__ void __launch_bounds__(kThreads, 1)
    sinkhorn_plan_rows(const __grid_constant__ Costs<T> costs, T scale, const T* grads, const T* f, const T* peak,
                       const T* sum, SinkhornPotentials<T> from, Weights<T> to) {
  const int64_t blocks = gridDim.x / costs.count, p = blockIdx.x / blocks;
  const Pair<T> pair(costs, p);
  const int j = static_cast<int>(blockIdx.x % blocks) * kWarp + threadIdx.x % kWarp, end = min(pair.n, costs.end);
  const T grad = grads[pair.result];
  if (grad == T(0) || j >= pair.m) {
    return;
  }
  const int64_t at = p * costs.steps_y + j;
  T share = grad / (T(pair.m) * sum[at]);
  if constexpr (weighted) {
    if (from.g != nullptr && costs.begin == 0 && threadIdx.x < kWarp) {
      from.g[pair.result * costs.steps_y + j] = logarithm(T(pair.n)) - peak[at] - logarithm(sum[at]);
    }
    const T b = from.weights.y[pair.y * costs.steps_y + j];
    // No mass moves there, even if the sum vanishes.
    if (b == T(0)) {
      return;
    }
    share *= b;
  }
  for (int i = costs.begin + threadIdx.x / kWarp; i < end; i += kWarps) {
    const T exponent = f[p * costs.steps_x + i] - scaled_cost(pair, scale, i, j) - peak[at];
    pair.template put<1>(to, i, j, {share * exponential(exponent)});
  }
}

template <class T>
int64_t row_blocks(const Costs<T>& costs) {
  return costs.count * ceil_div<int64_t>(costs.end - costs.begin, kWarps);
}

template <class T>
int64_t column_blocks(const Costs<T>& costs) {
  return costs.count * ceil_div<int64_t>(costs.steps_y, kWarp);
}

}  // namespace

template <class T>
void launch_sinkhorn_start(const Costs<T>& costs, double epsilon, bool annealed, const SinkhornState<T>& state,
                           const SinkhornReport<T>& report, Stream stream) {
  launch("sinkhorn start", state.weights.x ? sinkhorn_start<T, true> : sinkhorn_start<T, false>, costs.count, kThreads,
         0, stream, costs, static_cast<T>(epsilon), annealed, state, report);
}

template <class T>
void launch_sinkhorn_largest(const Costs<T>& costs, const SinkhornState<T>& state, Stream stream) {
  launch("sinkhorn largest cost", sinkhorn_largest<T>, row_blocks(costs), kThreads, 0, stream, costs, state);
}

template <class T>
void launch_sinkhorn_anneal(const Costs<T>& costs, const SinkhornOptions& options, int64_t iteration,
                            const SinkhornState<T>& state, Stream stream) {
  launch("sinkhorn anneal", sinkhorn_anneal<T>, costs.count, kThreads, kWarps * sizeof(T), stream, costs,
         static_cast<T>(options.epsilon), static_cast<T>(options.scaling.value_or(0)), iteration,
         iteration == options.max_iterations, state);
}

template <class T>
void launch_sinkhorn_part(const Costs<T>& costs, double epsilon, const SinkhornState<T>& state, Stream stream) {
  const bool weighted = state.weights.x != nullptr;
  launch("sinkhorn rows", weighted ? sinkhorn_rows<T, true> : sinkhorn_rows<T, false>, row_blocks(costs), kThreads, 0,
         stream, costs, static_cast<T>(1 / epsilon), state);
  launch_sinkhorn_columns<T>(costs, epsilon, weighted ? state.epsilon : nullptr,
                             weighted ? state.weighted_f : state.f_next, state.done, state.peak, state.sum, stream);
}

template <class T>
void launch_sinkhorn_columns(const Costs<T>& costs, double epsilon, const T* epsilons, const T* f, const T* done,
                             T* peak, T* sum, Stream stream) {
  launch("sinkhorn columns", epsilons ? sinkhorn_columns<T, true> : sinkhorn_columns<T, false>, column_blocks(costs),
         kThreads, 2 * kThreads * sizeof(T), stream, costs, static_cast<T>(1 / epsilon), epsilons, f, done, peak, sum);
}

template <class T>
void launch_sinkhorn_settle(const Costs<T>& costs, double tolerance, int64_t iteration, bool measure,
                            const SinkhornState<T>& state, const SinkhornReport<T>& report, Stream stream) {
  launch("sinkhorn settle", state.weights.x ? sinkhorn_settle<T, true> : sinkhorn_settle<T, false>, costs.count,
         kThreads, kWarps * sizeof(T), stream, costs, static_cast<T>(tolerance), iteration, measure, state, report);
}

template <class T>
void launch_sinkhorn_finish(const Costs<T>& costs, double epsilon, const SinkhornState<T>& state, T* out, T* f,
                            Stream stream) {
  launch("sinkhorn finish", state.weights.x ? sinkhorn_finish<T, true> : sinkhorn_finish<T, false>, costs.count,
         kThreads, kWarps * sizeof(T), stream, costs, static_cast<T>(epsilon), state, out, f);
}

template <class T>
void launch_sinkhorn_plan_rows(const Costs<T>& costs, double epsilon, const T* grads, const T* f, const T* peak,
                               const T* sum, const SinkhornPotentials<T>& from, const Weights<T>& to, Stream stream) {
  launch("sinkhorn plan", from.weights.x ? sinkhorn_plan_rows<T, true> : sinkhorn_plan_rows<T, false>,
         column_blocks(costs), kThreads, 0, stream, costs, static_cast<T>(1 / epsilon), grads, f, peak, sum, from, to);
}

#define SCAV_INSTANTIATE(T)                                                                                       \
  template void launch_sinkhorn_start(const Costs<T>&, double, bool, const SinkhornState<T>&,                     \
                                      const SinkhornReport<T>&, Stream);                                          \
  template void launch_sinkhorn_largest(const Costs<T>&, const SinkhornState<T>&, Stream);                        \
  template void launch_sinkhorn_anneal(const Costs<T>&, const SinkhornOptions&, int64_t, const SinkhornState<T>&, \
                                       Stream);                                                                   \
  template void launch_sinkhorn_part(const Costs<T>&, double, const SinkhornState<T>&, Stream);                   \
  template void launch_sinkhorn_columns(const Costs<T>&, double, const T*, const T*, const T*, T*, T*, Stream);   \
  template void launch_sinkhorn_settle(const Costs<T>&, double, int64_t, bool, const SinkhornState<T>&,           \
                                       const SinkhornReport<T>&, Stream);                                         \
  template void launch_sinkhorn_finish(const Costs<T>&, double, const SinkhornState<T>&, T*, T*, Stream);         \
  template void launch_sinkhorn_plan_rows(const Costs<T>&, double, const T*, const T*, const T*, const T*,        \
                                          const SinkhornPotentials<T>&, const Weights<T>&, Stream)
SCAV_INSTANTIATE(float);
SCAV_INSTANTIATE(double);

}  // namespace scav::device
