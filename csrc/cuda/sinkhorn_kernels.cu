// Sinkhorn on a GPU: a block has a pair.
//
// In units of epsilon, with S = C / epsilon, potentials F and G and weights a = 1/n, b = 1/m, an iteration is
//     F[i] = -log sum_j b exp(G[j] - S[i, j]),    G[j] = -log sum_i a exp(F[i] - S[i, j]).
// Once the potentials are roughly right, K[i, j] = exp(F[i] + G[j] - S[i, j]) is held fixed, in registers where a pair
// fits there, and iterations are multiplications: u = 1 / (K b v), v = 1 / (K' a u). When u or v grows, it is absorbed
// into F and G by an iteration in logarithms. A block stops when its pair has converged; the host does not ask.

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

  SCAV_DEVICE Vectors(T* memory, int64_t n, int64_t m)
      : f(memory), f_next(f + n), u(f_next + n), u_next(u + n), g(u_next + n), v(g + m), v_next(v + m) {}
  static constexpr int64_t size(int64_t n, int64_t m) { return 4 * n + 3 * m; }
};

template <class T, class Kernel>
class Sinkhorn {
 public:
  SCAV_DEVICE Sinkhorn(const Pair<T>& pair, T scale, Kernel& kernel, const Vectors<T>& vectors, T* sums)
      : pair_(pair),
        stride_(pair.costs.stride),
        n_(pair.n),
        m_(pair.m),
        scale_(scale),
        kernel_(kernel),
        at_(vectors),
        sums_(sums) {}

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

  // Stops once sum_i |sum_j P[i, j] - a[i]| of the iteration before is below `tolerance`. Where it does not stop so,
  // that error takes half an iteration more, to `measure`.
  SCAV_DEVICE void iterate(int64_t max_iterations, T tolerance, bool measure) {
    each(m_, [&](int j) { at_.g[j] = 0; });
    bool in_logarithms = true, converged = false;
    while (iterations_ < max_iterations && !converged) {
      if (in_logarithms) {
        if (log_iteration(iterations_ > 0 ? tolerance : T(0))) {
          return;
        }
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
    each(n_, [&](int i) { rows += at_.f[i]; });
    each(m_, [&](int j) { columns += at_.g[j]; });
    return block_sum(rows, sums_) / T(n_) + block_sum(columns, sums_) / T(m_);
  }

  // F: (n,)
  SCAV_DEVICE const T* potentials() const { return at_.f; }

 private:
  enum class Outcome { converged, done, out_of_range };

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
        infinite += next - next == T(0) ? T(0) : T(1);
        const T ratio = tolerance > T(0) ? exponential(at_.f[i] - next) - T(1) : T(0);
        error += ratio < T(0) ? -ratio : ratio;
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
    each(m_, [&](int j) {
      T peak = kMasked<T>, sum = 0;
      for (int i = 0; i < n_; ++i) {
        peak = max(peak, at_.f[i] - scaled_cost(i, j));
      }
      for (int i = 0; i < n_; ++i) {
        sum += exponential(at_.f[i] - scaled_cost(i, j) - peak);
      }
      at_.g[j] = log_n - peak - logarithm(sum);
      at_.v[j] = T(1) / T(m_);
    });
    each(n_, [&](int i) { at_.u[i] = 1; });
    kernel_.fill(n_, m_, [&](int i, int j) { return exponential(at_.f[i] + at_.g[j] - scaled_cost(i, j)); });
    return false;
  }

  // One iteration by multiplications.
  SCAV_DEVICE Outcome scaling_iteration(T tolerance) {
    T error = 0, outside = 0;
    kernel_.rows(n_, m_, at_.v, [&](int i, T sum) {
      const T deviation = at_.u[i] * sum - T(1);
      error += deviation < T(0) ? -deviation : deviation;
      outside += within_range(sum) ? T(0) : T(1);
      at_.u_next[i] = T(1) / sum;
    });
    error = block_sum(error, sums_) / T(n_);
    if (error < tolerance) {
      error_ = error;
      return Outcome::converged;
    }
    const T share = T(n_) / T(m_);
    kernel_.columns(n_, m_, at_.u_next, [&](int j, T sum) {
      outside += within_range(sum) ? T(0) : T(1);
      at_.v_next[j] = share / sum;
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
      error += deviation < T(0) ? -deviation : deviation;
    });
    error_ = block_sum(error, sums_) / T(n_);
  }

  SCAV_DEVICE static bool within_range(T value) { return value < kLargestScaling<T> && value > 1 / kLargestScaling<T>; }

  // F + log u, G + log v
  SCAV_DEVICE void absorb() {
    each(n_, [&](int i) {
      at_.f[i] += logarithm(at_.u[i]);
      at_.u[i] = 1;
    });
    each(m_, [&](int j) {
      at_.g[j] += logarithm(at_.v[j] * T(m_));
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
  int64_t iterations_ = 0;
  T error_ = std::numeric_limits<T>::quiet_NaN();
};

template <class T, class Kernel>
__global__ void __launch_bounds__(Kernel::kThreads, 1)
    sinkhorn_pairs(const __grid_constant__ Costs<T> costs, T epsilon, T scale, int64_t max_iterations, T tolerance,
                   T* products, T* scratch, T* out, T* f, SinkhornReport<T> report) {
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
    const int64_t size = Vectors<T>::size(costs.steps_x, costs.steps_y) + costs.steps_x * costs.steps_y;
    vectors = scratch + int64_t(blockIdx.x) * size;
    cells = vectors + Vectors<T>::size(costs.steps_x, costs.steps_y);
  }
  Kernel kernel(shared, cells, costs.steps_y);
  Sinkhorn<T, Kernel> sinkhorn(pair, scale, kernel, Vectors<T>(vectors, costs.steps_x, costs.steps_y),
                               shared + Kernel::kShared);
  sinkhorn.settle(products);
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
template <class T>
__global__ void __launch_bounds__(kMemoryThreads, 1)
    sinkhorn_plans(const __grid_constant__ Costs<T> costs, T scale, const T* grads, const T* f, Weights<T> to) {
  const Pair<T> pair(costs, blockIdx.x);
  const T grad = grads[pair.result];
  if (grad == T(0)) {
    return;
  }
  const T* potentials = f + pair.result * costs.steps_x;
  for (int j = threadIdx.x; j < pair.m; j += blockDim.x) {
    T peak = kMasked<T>, sum = 0;
    for (int i = 0; i < pair.n; ++i) {
      peak = max(peak, potentials[i] - scale * pair.cost(i, j));
    }
    for (int i = 0; i < pair.n; ++i) {
      sum += exponential(potentials[i] - scale * pair.cost(i, j) - peak);
    }
    const T share = grad / (T(pair.m) * sum);
    for (int i = 0; i < pair.n; ++i) {
      pair.template put<1>(to, i, j, {share * exponential(potentials[i] - scale * pair.cost(i, j) - peak)});
    }
  }
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
  return place == KernelPlace::memory ? pairs * (Vectors<float>::size(n, m) + n * m) : 0;
}

Needs sinkhorn_needs(KernelPlace place, int64_t n, int64_t m, int64_t element) {
  if (place == KernelPlace::none) {
    return {[=](int64_t pairs, int64_t) { return SinkhornState<float>::size(pairs, n, m) * element; }, kWarp};
  }
  return {[=](int64_t pairs, int64_t) { return sinkhorn_scratch(place, pairs, n, m) * element; }, n};
}

Needs sinkhorn_plan_needs(int64_t n, int64_t m, int64_t element) {
  return {[=](int64_t, int64_t rows) { return rows < n ? 2 * m * element : 0; }, kWarp};
}

template <class T>
void launch_sinkhorn_forward(const Costs<T>& costs, KernelPlace place, const SinkhornOptions& options, T* scratch,
                             T* out, T* f, const SinkhornReport<T>& report, Stream stream) {
  const auto run = [&](auto kernel, int threads, int64_t shared) {
    launch("sinkhorn", kernel, costs.count, threads, static_cast<size_t>(shared) * sizeof(T), stream, costs,
           static_cast<T>(options.epsilon), static_cast<T>(1 / options.epsilon), options.max_iterations,
           static_cast<T>(options.tolerance), const_cast<T*>(costs.cells), scratch, out, f, report);
  };
  const auto in_registers = [&]<class Kernel>() {
    run(sinkhorn_pairs<T, Kernel>, Kernel::kThreads,
        Kernel::kShared + kMaxBlockWarps + Vectors<T>::size(costs.steps_x, costs.steps_y));
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
  run(sinkhorn_pairs<T, InMemory<T>>, kMemoryThreads, kMaxBlockWarps);
}

template <class T>
void launch_sinkhorn_backward(const Costs<T>& costs, double epsilon, const T* grads, const T* f, const Weights<T>& to,
                              Stream stream) {
  const int64_t warps = ceil_div<int64_t>(costs.steps_y, kWarp);
  const int threads = static_cast<int>(warps < kMaxBlockWarps ? warps : kMaxBlockWarps) * kWarp;
  launch("sinkhorn_backward", sinkhorn_plans<T>, costs.count, threads, 0, stream, costs, static_cast<T>(1 / epsilon),
         grads, f, to);
}

template void launch_sinkhorn_forward(const Costs<float>&, KernelPlace, const SinkhornOptions&, float*, float*, float*,
                                      const SinkhornReport<float>&, Stream);
template void launch_sinkhorn_forward(const Costs<double>&, KernelPlace, const SinkhornOptions&, double*, double*,
                                      double*, const SinkhornReport<double>&, Stream);
template void launch_sinkhorn_backward(const Costs<float>&, double, const float*, const float*, const Weights<float>&,
                                       Stream);
template void launch_sinkhorn_backward(const Costs<double>&, double, const double*, const double*,
                                       const Weights<double>&, Stream);

}  // namespace scav::device
