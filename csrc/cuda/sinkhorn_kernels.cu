// Sinkhorn on a GPU: a block has a pair.
//
// In units of epsilon, with S = C / epsilon, potentials F and G and weights a = 1/n, b = 1/m, an iteration is
//     F[i] = -log sum_j b exp(G[j] - S[i, j]),    G[j] = -log sum_i a exp(F[i] - S[i, j]).
// Once the potentials are roughly right, K[i, j] = exp(F[i] + G[j] - S[i, j]) is held fixed, in registers where a pair
// fits there, and iterations are multiplications: u = 1 / (K b v), v = 1 / (K' a u). When u or v grows, it is absorbed
// into F and G by an iteration in logarithms. A block stops when its pair has converged; the host does not ask.
//
// `weighted` kernels take weights, which they hold over their means, n a and m b: 1 for uniform ones. Their G and K
// include m b, so that K is 0 in the columns of steps without weight. Rows without weight are computed as all others,
// and count nowhere.

#include "cuda/sinkhorn.h"

namespace scav::device {

namespace {

// Threads and, of shared memory, elements for sums over the block.
inline constexpr int kMemoryThreads = 256, kMaxBlockWarps = kMemoryThreads / kWarp;

// K of up to (Y R) x (X C) steps in the registers of Y x X threads: thread (y, x) has rows y + Y r and columns x + X c.
template <class T, int Y, int X, int R, int C>
struct InRegisters {
  static constexpr int kThreads = Y * X, kRows = Y * R, kColumns = X * C;
  // Rows of the partial sums are this much apart, so that a warp's stores fall into different banks.
  static constexpr int kRowStride = kRows + 4, kColumnStride = kColumns + 8;
  static constexpr int kShared = X * kRowStride > Y* kColumnStride ? X * kRowStride : Y * kColumnStride;

  T cells[R][C];
  T* partial;
  int y, x;

  SCAV_DEVICE InRegisters(T* shared, T*, int64_t) : partial(shared), y(threadIdx.x / X), x(threadIdx.x % X) {}

  template <class Cell>
  SCAV_DEVICE void fill(int n, int m, const Cell& cell) {
#pragma unroll
    for (int r = 0; r < R; ++r) {
#pragma unroll
      for (int c = 0; c < C; ++c) {
        const int i = y + Y * r, j = x + X * c;
        cells[r][c] = i < n && j < m ? cell(i, j) : T(0);
      }
    }
  }

  // use(i, sum_j K[i, j] v[j])
  template <class Use>
  SCAV_DEVICE void rows(int n, int m, const T* v, const Use& use) {
    T sums[R] = {};
#pragma unroll
    for (int c = 0; c < C; ++c) {
      const T factor = x + X * c < m ? v[x + X * c] : T(0);
#pragma unroll
      for (int r = 0; r < R; ++r) {
        sums[r] += cells[r][c] * factor;
      }
    }
#pragma unroll
    for (int r = 0; r < R; ++r) {
      partial[x * kRowStride + y + Y * r] = sums[r];
    }
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += kThreads) {
      T sum = 0;
#pragma unroll
      for (int other = 0; other < X; ++other) {
        sum += partial[other * kRowStride + i];
      }
      use(i, sum);
    }
    __syncthreads();
  }

  // use(j, sum_i K[i, j] u[i])
  template <class Use>
  SCAV_DEVICE void columns(int n, int m, const T* u, const Use& use) {
    T sums[C] = {};
#pragma unroll
    for (int r = 0; r < R; ++r) {
      const T factor = y + Y * r < n ? u[y + Y * r] : T(0);
#pragma unroll
      for (int c = 0; c < C; ++c) {
        sums[c] += cells[r][c] * factor;
      }
    }
#pragma unroll
    for (int c = 0; c < C; ++c) {
      partial[y * kColumnStride + x + X * c] = sums[c];
    }
    __syncthreads();
    for (int j = threadIdx.x; j < m; j += kThreads) {
      T sum = 0;
#pragma unroll
      for (int other = 0; other < Y; ++other) {
        sum += partial[other * kColumnStride + j];
      }
      use(j, sum);
    }
    __syncthreads();
  }
};

// K in memory, (N, M) for each pair.
template <class T>
struct InMemory {
  static constexpr int kThreads = kMemoryThreads, kShared = 0;
  T* cells;
  int64_t width;

  SCAV_DEVICE InMemory(T*, T* memory, int64_t columns) : cells(memory), width(columns) {}

  template <class Cell>
  SCAV_DEVICE void fill(int n, int m, const Cell& cell) {
    for (int i = threadIdx.x / kWarp; i < n; i += kThreads / kWarp) {
      for (int j = threadIdx.x % kWarp; j < m; j += kWarp) {
        cells[i * width + j] = cell(i, j);
      }
    }
    __syncthreads();
  }

  template <class Use>
  SCAV_DEVICE void rows(int n, int m, const T* v, const Use& use) {
    for (int i = threadIdx.x / kWarp; i < n; i += kThreads / kWarp) {
      T sum = 0;
      for (int j = threadIdx.x % kWarp; j < m; j += kWarp) {
        sum += cells[i * width + j] * v[j];
      }
      sum = warp_sum(sum);
      if (threadIdx.x % kWarp == 0) {
        use(i, sum);
      }
    }
    __syncthreads();
  }

  template <class Use>
  SCAV_DEVICE void columns(int n, int m, const T* u, const Use& use) {
    for (int j = threadIdx.x; j < m; j += kThreads) {
      T sum = 0;
      for (int i = 0; i < n; ++i) {
        sum += cells[i * width + j] * u[i];
      }
      use(j, sum);
    }
    __syncthreads();
  }
};

// Vectors of a pair, (n,) and (m,): they fit in shared memory with K in registers, and are in memory with it otherwise.
template <class T>
struct Vectors {
  T *f, *f_next, *u, *u_next, *g, *v, *v_next;
  T* rows;  // of weighted kernels: u, or in logarithms F, with the weights

  SCAV_DEVICE Vectors(T* memory, int64_t n, int64_t m)
      : f(memory),
        f_next(f + n),
        u(f_next + n),
        u_next(u + n),
        g(u_next + n),
        v(g + m),
        v_next(v + m),
        rows(v_next + m) {}
  static constexpr int64_t size(int64_t n, int64_t m, bool weighted) { return (weighted ? 5 : 4) * n + 3 * m; }
};

template <class T, class Kernel, bool weighted>
class Sinkhorn {
 public:
  SCAV_DEVICE Sinkhorn(const Pair<T>& pair, T scale, Kernel& kernel, const Vectors<T>& vectors, T* sums,
                       const StepWeights<T>& weights)
      : pair_(pair),
        stride_(pair.costs.stride),
        n_(pair.n),
        m_(pair.m),
        scale_(scale),
        kernel_(kernel),
        at_(vectors),
        sums_(sums),
        a_(weighted ? weights.x + pair.x * pair.costs.steps_x : nullptr),
        b_(weighted ? weights.y + pair.y * pair.costs.steps_y : nullptr) {}

  // Products become costs where they lie; all that follows reads costs.
  SCAV_DEVICE void settle(T* products) {
    if (pair_.costs.kind != CellKind::given) {
      T* const cells = products + (pair_.cells - pair_.costs.cells);
      for (int i = threadIdx.x / kWarp; i < n_; i += Kernel::kThreads / kWarp) {
        for (int j = threadIdx.x % kWarp; j < m_; j += kWarp) {
          cells[i * stride_.s + j * stride_.t] = pair_.cost(i, j);
        }
      }
      __syncthreads();
    }
  }

  SCAV_DEVICE void start() {
    each(m_, [&](int j) { at_.g[j] = log_b(j); });
  }

  // Leaves the G of iterations in logarithms at epsilons that fall by `scaling` from the largest cost, at most `count`,
  // for iterate() to start from.
  SCAV_DEVICE void anneal(double scaling, int64_t count, double epsilon) {
    double before = epsilon;
    for (double next = largest_cost(); next > epsilon && iterations_ < count; next *= scaling) {
      set_epsilon(before, next);
      log_iteration(T(0));
      before = next;
    }
    set_epsilon(before, epsilon);
    iterations_ = 0;
  }

  // Stops once sum_i |sum_j P[i, j] - a[i]| of the iteration before is below `tolerance`. Where it does not stop so,
  // that error takes half an iteration more, to `measure`.
  SCAV_DEVICE void iterate(int64_t max_iterations, T tolerance, bool measure) {
    bool in_logarithms = true, converged = false;
    while (iterations_ < max_iterations && !converged) {
      if (in_logarithms) {
        if (log_iteration(iterations_ > 0 ? tolerance : T(0))) {
          return;
        }
        fill_kernel();
        in_logarithms = false;
        continue;
      }
      const Outcome outcome = scaling_iteration(tolerance);
      converged = outcome == Outcome::converged;
      if (outcome == Outcome::out_of_range) {
        absorb();
        in_logarithms = true;
      }
    }
    if (measure && !converged) {
      measure_rows();
    }
    absorb();
  }

  SCAV_DEVICE int64_t iterations() const { return iterations_; }
  // Error of the potentials after iterate(); NaN where they are not finite.
  SCAV_DEVICE T marginal_error() const { return error_; }

  // <a, f> + <b, g> in units of epsilon: the dual objective, as the columns' sums are exact.
  SCAV_DEVICE T value() {
    T rows = 0, columns = 0;
    each(n_, [&](int i) { rows += a(i) > T(0) ? a(i) * at_.f[i] : T(0); });
    each(m_, [&](int j) { columns += b(j) > T(0) ? b(j) * (at_.g[j] - log_b(j)) : T(0); });
    return block_sum(rows, sums_) / T(n_) + block_sum(columns, sums_) / T(m_);
  }

  // F: (n,)
  SCAV_DEVICE const T* potentials() const { return at_.f; }

 private:
  enum class Outcome { converged, done, out_of_range };
  // K of a row without weight may be larger before the iterations converge; beyond this, it is out of range in any sum.
  static constexpr T kHighest = sizeof(T) == 4 ? T(60) : T(500);

  // Weights over their means, and the logarithm of those of y.
  SCAV_DEVICE T a(int i) const {
    if constexpr (weighted) {
      return a_[i];
    }
    return 1;
  }
  SCAV_DEVICE T b(int j) const {
    if constexpr (weighted) {
      return b_[j];
    }
    return 1;
  }
  SCAV_DEVICE T log_b(int j) const {
    if constexpr (weighted) {
      return b_[j] > T(0) ? logarithm(b_[j]) : kMasked<T>;
    }
    return 0;
  }

  // The largest of the finite costs between steps that have weight.
  SCAV_DEVICE double largest_cost() {
    T largest = 0;
    for (int i = threadIdx.x / kWarp; i < n_; i += Kernel::kThreads / kWarp) {
      for (int j = threadIdx.x % kWarp; a(i) > T(0) && j < m_; j += kWarp) {
        const T cost = pair_.cells[i * stride_.s + j * stride_.t];
        largest = b(j) > T(0) && cost < kReached<T> ? max(largest, cost) : largest;
      }
    }
    return static_cast<double>(block_max(largest, sums_));
  }

  // G stays as it is in the unit of the cost.
  SCAV_DEVICE void set_epsilon(double before, double epsilon) {
    const T ratio = static_cast<T>(before / epsilon);
    each(m_, [&](int j) { at_.g[j] = b(j) > T(0) ? (at_.g[j] - log_b(j)) * ratio + log_b(j) : kMasked<T>; });
    scale_ = static_cast<T>(1 / epsilon);
  }

  template <class F>
  SCAV_DEVICE void each(int count, const F& f) {
    for (int index = threadIdx.x; index < count; index += Kernel::kThreads) {
      f(index);
    }
    __syncthreads();
  }

  SCAV_DEVICE T scaled_cost(int i, int j) const {
    return scale_ * min(pair_.cells[i * stride_.s + j * stride_.t], kUnreachable<T>);
  }

  // One iteration in logarithms. Returns true if the potentials had converged before it, and leaves them as they were;
  // a tolerance of 0 never has. Also if costs overflow in units of epsilon: no iteration helps.
  SCAV_DEVICE bool log_iteration(T tolerance) {
    constexpr int warps = Kernel::kThreads / kWarp;
    const int lane = threadIdx.x % kWarp;
    const T log_n = logarithm(T(n_)), log_m = logarithm(T(m_));
    T error = 0, infinite = 0;
    for (int i = threadIdx.x / kWarp; i < n_; i += warps) {
      T peak = kMasked<T>, sum = 0;
      for (int j = lane; j < m_; j += kWarp) {
        peak = max(peak, at_.g[j] - scaled_cost(i, j));
      }
      peak = warp_max(peak);
      for (int j = lane; j < m_; j += kWarp) {
        sum += exponential(at_.g[j] - scaled_cost(i, j) - peak);
      }
      const T next = log_m - peak - logarithm(warp_sum(sum));
      if (lane == 0) {
        at_.f_next[i] = next;
        infinite += next - next == T(0) || a(i) == T(0) ? T(0) : T(1);
        const T ratio = tolerance > T(0) && a(i) > T(0) ? exponential(at_.f[i] - next) - T(1) : T(0);
        error += a(i) * (ratio < T(0) ? -ratio : ratio);
      }
    }
    error = block_sum(error, sums_) / T(n_);
    if (error < tolerance) {
      error_ = error;
      return true;
    }
    ++iterations_;
    swap(at_.f, at_.f_next);
    if (block_sum(infinite, sums_) > T(0)) {
      return true;
    }
    const T* f = at_.f;
    if constexpr (weighted) {
      each(n_, [&](int i) { at_.rows[i] = a(i) > T(0) ? at_.f[i] + logarithm(a(i)) : kMasked<T>; });
      f = at_.rows;
    }
    each(m_, [&](int j) {
      T peak = kMasked<T>, sum = 0;
      for (int i = 0; i < n_; ++i) {
        peak = max(peak, f[i] - scaled_cost(i, j));
      }
      for (int i = 0; i < n_; ++i) {
        sum += exponential(f[i] - scaled_cost(i, j) - peak);
      }
      at_.g[j] = b(j) > T(0) ? log_n + log_b(j) - peak - logarithm(sum) : kMasked<T>;
    });
    return false;
  }

  // K = exp(F + G - S), u = 1, v / m = 1 / m.
  SCAV_DEVICE void fill_kernel() {
    each(m_, [&](int j) { at_.v[j] = T(1) / T(m_); });
    each(n_, [&](int i) { at_.u[i] = 1; });
    kernel_.fill(n_, m_, [&](int i, int j) {
      const T exponent = at_.f[i] + at_.g[j] - scaled_cost(i, j);
      return exponential(weighted ? min(exponent, kHighest) : exponent);
    });
  }

  // One iteration by multiplications.
  SCAV_DEVICE Outcome scaling_iteration(T tolerance) {
    T error = 0, outside = 0;
    kernel_.rows(n_, m_, at_.v, [&](int i, T sum) {
      const T deviation = at_.u[i] * sum - T(1);
      error += weigh(i, deviation < T(0) ? -deviation : deviation);
      outside += within_range(sum, T(1)) ? T(0) : T(1);
      at_.u_next[i] = T(1) / sum;
      if constexpr (weighted) {
        at_.rows[i] = a(i) / sum;
      }
    });
    error = block_sum(error, sums_) / T(n_);
    if (error < tolerance) {
      error_ = error;
      return Outcome::converged;
    }
    const T share = T(n_) / T(m_);
    kernel_.columns(n_, m_, weighted ? at_.rows : at_.u_next, [&](int j, T sum) {
      // K is 0 in the columns without weight.
      outside += within_range(sum, b(j)) || b(j) == T(0) ? T(0) : T(1);
      at_.v_next[j] = b(j) > T(0) ? share * b(j) / sum : T(0);
    });
    if (block_sum(outside, sums_) > T(0)) {
      return Outcome::out_of_range;
    }
    swap(at_.u, at_.u_next);
    swap(at_.v, at_.v_next);
    ++iterations_;
    return Outcome::done;
  }

  // sum_i |sum_j P[i, j] - a[i]| from K, u and v.
  SCAV_DEVICE void measure_rows() {
    T error = 0;
    kernel_.rows(n_, m_, at_.v, [&](int i, T sum) {
      const T deviation = at_.u[i] * sum - T(1);
      error += weigh(i, deviation < T(0) ? -deviation : deviation);
    });
    error_ = block_sum(error, sums_) / T(n_);
  }

  // A row without weight counts nowhere, whatever it holds.
  SCAV_DEVICE T weigh(int i, T deviation) const { return a(i) > T(0) ? a(i) * deviation : T(0); }

  SCAV_DEVICE static bool within_range(T value, T unit) {
    return value < kLargestScaling<T> * unit && value > unit / kLargestScaling<T>;
  }

  // F + log u, G + log v
  SCAV_DEVICE void absorb() {
    each(n_, [&](int i) {
      at_.f[i] += logarithm(at_.u[i]);
      at_.u[i] = 1;
    });
    each(m_, [&](int j) {
      at_.g[j] = b(j) > T(0) ? at_.g[j] + logarithm(at_.v[j] * T(m_)) : kMasked<T>;
      at_.v[j] = T(1) / T(m_);
    });
  }

  SCAV_DEVICE static void swap(T*& a, T*& b) {
    T* const other = a;
    a = b;
    b = other;
  }

  const Pair<T>& pair_;
  const Strides stride_;
  int n_, m_;
  T scale_;
  Kernel& kernel_;
  Vectors<T> at_;
  T* sums_;
  const T *a_, *b_;  // of weighted kernels: (n,) and (m,)
  int64_t iterations_ = 0;
  T error_ = std::numeric_limits<T>::quiet_NaN();
};

template <class T, class Kernel, bool weighted>
__global__ void __launch_bounds__(Kernel::kThreads, 1)
    sinkhorn_pairs(const __grid_constant__ Costs<T> costs, T epsilon, T scale, int64_t max_iterations, T tolerance,
                   T* products, T* scratch, T* out, T* f, SinkhornReport<T> report, StepWeights<T> weights,
                   double last_epsilon, double scaling) {
  const Pair<T> pair(costs, blockIdx.x);
  // A pair that holds inf or NaN gets its value elsewhere, and would only run through every iteration here.
  if (pair.is_nonfinite()) {
    if (threadIdx.x == 0) {
      out[pair.result] = 0;
      put(report, pair.result, 0, std::numeric_limits<T>::quiet_NaN());
    }
    return;
  }
  T* const shared = shared_memory<T>();
  T* vectors = shared + Kernel::kShared + kMaxBlockWarps;
  T* cells = nullptr;
  if constexpr (Kernel::kShared == 0) {
    const int64_t size = Vectors<T>::size(costs.steps_x, costs.steps_y, true);
    vectors = scratch + int64_t(blockIdx.x) * (size + costs.steps_x * costs.steps_y);
    cells = vectors + size;
  }
  Kernel kernel(shared, cells, costs.steps_y);
  Sinkhorn<T, Kernel, weighted> sinkhorn(pair, scale, kernel, Vectors<T>(vectors, costs.steps_x, costs.steps_y),
                                         shared + Kernel::kShared, weights);
  sinkhorn.settle(products);
  sinkhorn.start();
  if constexpr (weighted) {
    if (scaling > 0) {
      sinkhorn.anneal(scaling, max_iterations, last_epsilon);
    }
  }
  sinkhorn.iterate(max_iterations, tolerance, report.iterations != nullptr);
  const T value = sinkhorn.value();
  if (threadIdx.x == 0) {
    out[pair.result] = epsilon * value;
    put(report, pair.result, sinkhorn.iterations(), sinkhorn.marginal_error());
  }
  if (f != nullptr) {
    for (int i = threadIdx.x; i < pair.n; i += Kernel::kThreads) {
      f[pair.result * costs.steps_x + i] = sinkhorn.potentials()[i];
    }
  }
}

// d out / d cost is the plan, by the envelope theorem. An iteration leaves the columns' sums exact, so
// P[:, j] = b softmax_i(F[i] - S[i, j]): from F alone, without the rounding of G, and never more than there is to move.
// Weighted F includes log n a.
template <class T, bool weighted>
__global__ void __launch_bounds__(kMemoryThreads, 1)
    sinkhorn_plans(const __grid_constant__ Costs<T> costs, T scale, const T* grads, SinkhornPotentials<T> from,
                   Weights<T> to) {
  const Pair<T> pair(costs, blockIdx.x);
  const T grad = grads[pair.result];
  if (grad == T(0)) {
    return;
  }
  const T* potentials = weighted ? from.weighted_f + blockIdx.x * costs.steps_x : from.f + pair.result * costs.steps_x;
  for (int j = threadIdx.x; j < pair.m; j += blockDim.x) {
    T peak = kMasked<T>, sum = 0;
    for (int i = 0; i < pair.n; ++i) {
      peak = max(peak, potentials[i] - scale * pair.cost(i, j));
    }
    for (int i = 0; i < pair.n; ++i) {
      sum += exponential(potentials[i] - scale * pair.cost(i, j) - peak);
    }
    T share = grad / (T(pair.m) * sum);
    if constexpr (weighted) {
      if (from.g != nullptr) {
        from.g[pair.result * costs.steps_y + j] = logarithm(T(pair.n)) - peak - logarithm(sum);
      }
      const T b = from.weights.y[pair.y * costs.steps_y + j];
      // No mass moves there, even if the sum vanishes.
      if (b == T(0)) {
        continue;
      }
      share *= b;
    }
    for (int i = 0; i < pair.n; ++i) {
      pair.template put<1>(to, i, j, {share * exponential(potentials[i] - scale * pair.cost(i, j) - peak)});
    }
  }
}

// A thread has a step of x of a pair.
template <class T>
__global__ void __launch_bounds__(kMemoryThreads, 1)
    sinkhorn_weigh_rows(const __grid_constant__ Costs<T> costs, SinkhornPotentials<T> from) {
  const int64_t thread = int64_t(blockIdx.x) * kMemoryThreads + threadIdx.x;
  if (thread >= costs.count * costs.steps_x) {
    return;
  }
  const Pair<T> pair(costs, thread / costs.steps_x);
  const int64_t i = thread % costs.steps_x;
  const T a = from.weights.x[pair.x * costs.steps_x + i];
  from.weighted_f[thread] = a > T(0) ? from.f[pair.result * costs.steps_x + i] + logarithm(a) : kMasked<T>;
}

template <class T>
using Registers32 = InRegisters<T, 4, 8, 8, 4>;
template <class T>
using Registers64 = InRegisters<T, 8, 8, 8, 8>;
template <class T>
using Registers128 = InRegisters<T, 16, 16, 8, 8>;

}  // namespace

KernelPlace choose_kernel_place(int64_t n, int64_t m, int64_t element, int64_t cell_bytes, int64_t scratch_bytes) {
  const int64_t longest = n > m ? n : m;
  if (longest <= 32) {
    return KernelPlace::registers_32;
  }
  // Numbers of twice the size would not fit.
  if (element == sizeof(double) || longest > 128) {
    const int64_t bytes = sinkhorn_scratch(KernelPlace::memory, 1, n, m) * element + n * m * cell_bytes;
    return bytes <= scratch_bytes ? KernelPlace::memory : KernelPlace::none;
  }
  return longest <= 64 ? KernelPlace::registers_64 : KernelPlace::registers_128;
}

int64_t sinkhorn_scratch(KernelPlace place, int64_t pairs, int64_t n, int64_t m) {
  return place == KernelPlace::memory ? pairs * (Vectors<float>::size(n, m, true) + n * m) : 0;
}

Needs sinkhorn_needs(KernelPlace place, int64_t n, int64_t m, int64_t element) {
  if (place == KernelPlace::none) {
    return {[=](int64_t pairs, int64_t) { return SinkhornState<float>::size(pairs, n, m) * element; }, kWarp};
  }
  return {[=](int64_t pairs, int64_t) { return sinkhorn_scratch(place, pairs, n, m) * element; }, n};
}

Needs sinkhorn_plan_needs(int64_t n, int64_t m, int64_t element, bool weighted) {
  return {[=](int64_t pairs, int64_t rows) { return ((rows < n ? 2 * m : 0) + (weighted ? pairs * n : 0)) * element; },
          kWarp};
}

template <class T>
void launch_sinkhorn_forward(const Costs<T>& costs, KernelPlace place, const SinkhornOptions& options,
                             const StepWeights<T>& weights, T* scratch, T* out, T* f, const SinkhornReport<T>& report,
                             Stream stream) {
  const bool weighted = weights.x != nullptr;
  const auto run = [&](auto kernel, int threads, int64_t shared) {
    launch("sinkhorn", kernel, costs.count, threads, static_cast<size_t>(shared) * sizeof(T), stream, costs,
           static_cast<T>(options.epsilon), static_cast<T>(1 / options.epsilon), options.max_iterations,
           static_cast<T>(options.tolerance), const_cast<T*>(costs.cells), scratch, out, f, report, weights,
           options.epsilon, options.scaling.value_or(0));
  };
  const auto in_registers = [&]<class Kernel>() {
    run(weighted ? sinkhorn_pairs<T, Kernel, true> : sinkhorn_pairs<T, Kernel, false>, Kernel::kThreads,
        Kernel::kShared + kMaxBlockWarps + Vectors<T>::size(costs.steps_x, costs.steps_y, weighted));
  };
  if (place == KernelPlace::registers_32) {
    return in_registers.template operator()<Registers32<T>>();
  }
  if constexpr (sizeof(T) == sizeof(float)) {
    if (place == KernelPlace::registers_64) {
      return in_registers.template operator()<Registers64<T>>();
    }
    if (place == KernelPlace::registers_128) {
      return in_registers.template operator()<Registers128<T>>();
    }
  }
  run(weighted ? sinkhorn_pairs<T, InMemory<T>, true> : sinkhorn_pairs<T, InMemory<T>, false>, kMemoryThreads,
      kMaxBlockWarps);
}

template <class T>
void launch_sinkhorn_weigh_rows(const Costs<T>& costs, const SinkhornPotentials<T>& from, Stream stream) {
  launch("sinkhorn weighted potentials", sinkhorn_weigh_rows<T>,
         ceil_div<int64_t>(costs.count * costs.steps_x, kMemoryThreads), kMemoryThreads, 0, stream, costs, from);
}

template <class T>
void launch_sinkhorn_backward(const Costs<T>& costs, double epsilon, const T* grads, const SinkhornPotentials<T>& from,
                              const Weights<T>& to, Stream stream) {
  const int64_t warps = ceil_div<int64_t>(costs.steps_y, kWarp);
  const int threads = static_cast<int>(warps < kMaxBlockWarps ? warps : kMaxBlockWarps) * kWarp;
  launch("sinkhorn_backward", from.weighted_f ? sinkhorn_plans<T, true> : sinkhorn_plans<T, false>, costs.count,
         threads, 0, stream, costs, static_cast<T>(1 / epsilon), grads, from, to);
}

#define SCAV_INSTANTIATE(T)                                                                                          \
  template void launch_sinkhorn_forward(const Costs<T>&, KernelPlace, const SinkhornOptions&, const StepWeights<T>&, \
                                        T*, T*, T*, const SinkhornReport<T>&, Stream);                               \
  template void launch_sinkhorn_weigh_rows(const Costs<T>&, const SinkhornPotentials<T>&, Stream);                   \
  template void launch_sinkhorn_backward(const Costs<T>&, double, const T*, const SinkhornPotentials<T>&,            \
                                         const Weights<T>&, Stream)
SCAV_INSTANTIATE(float);
SCAV_INSTANTIATE(double);

}  // namespace scav::device
