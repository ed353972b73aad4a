// Rows of features, and given costs, around the reducers on a GPU.

#include "cuda/rows.h"
#include "shared/constants.h"

namespace scav::device {

namespace {

constexpr int kThreads = 128;

template <class T>
SCAV_DEVICE void store(const Rows& rows, void* data, int64_t index, T value) {
  switch (rows.kind) {
    case Rows::Kind::float64:
      static_cast<double*>(data)[index] = static_cast<double>(value);
      break;
    case Rows::Kind::float32:
      static_cast<float*>(data)[index] = static_cast<float>(value);
      break;
    case Rows::Kind::bfloat16:
      static_cast<torch::headeronly::BFloat16*>(data)[index] = static_cast<float>(value);
      break;
    default:
      static_cast<torch::headeronly::Half*>(data)[index] = static_cast<float>(value);
  }
}

SCAV_DEVICE bool finite(double value) { return value - value == 0; }

// Valid steps of sequence b; -1 where its length is out of range.
SCAV_DEVICE int64_t length_of(const Side& side, int64_t b) {
  const int64_t length = side.lengths ? side.lengths[b] : side.steps;
  return length >= 1 && length <= side.steps ? length : -1;
}

// In float64: the squares of large float32 features overflow.
SCAV_DEVICE double norm_of(const Rows& rows, int64_t row, int lane) {
  double sum = 0;
  for (int64_t k = lane; k < rows.dim; k += kWarp) {
    const double value = rows.at<double>(row, k);
    sum += value * value;
  }
  return sqrt(warp_sum(sum));
}

// The largest number of a dtype; of those that hold every gradient, infinity.
SCAV_DEVICE double largest_of(Rows::Kind kind) {
  return kind == Rows::Kind::float16 ? 65504.0 : std::numeric_limits<double>::infinity();
}

// The power of two that brings a norm between 1 and 2, for products to stay within range; bfloat16 numbers multiplied
// by it stay such numbers. float16's range is too small for it, and its products need none.
SCAV_DEVICE double scale_of(Rows::Kind kind, double norm) {
  return kind == Rows::Kind::bfloat16 ? exp2(-floor(log2(norm))) : 1.0;
}

template <class T>
__global__ void __launch_bounds__(kThreads, 1)
    prepare(Side side, bool unit, Rows rows, void* to, T* norms, T* bad, int64_t* lengths) {
  const int64_t row = int64_t(blockIdx.x) * (kThreads / kWarp) + threadIdx.x / kWarp;
  if (row >= side.batch * side.steps) {
    return;
  }
  const int lane = threadIdx.x % kWarp;
  const int64_t b = row / side.steps, step = row % side.steps, length = length_of(side, b);
  const bool valid = step < length;
  const bool halves = rows.kind == Rows::Kind::bfloat16 || rows.kind == Rows::Kind::float16;
  T scale = 1, factor = 1, sum = 0;
  if (valid && unit) {
    const double norm = norm_of(side.given, row, lane), divisor = norm > kSmallestNorm ? norm : kSmallestNorm;
    const double kept = finite(norm) && halves ? scale_of(rows.kind, divisor) : 1 / divisor;
    // The norm of a row that holds inf or NaN makes its features NaN.
    scale = finite(norm) ? static_cast<T>(kept) : std::numeric_limits<T>::quiet_NaN();
    factor = static_cast<T>(1 / (divisor * kept));
  }
  for (int64_t k = lane; valid && k < side.given.dim; k += kWarp) {
    const T value = side.given.at<T>(row, k) * scale;
    sum += value * value;
  }
  sum = warp_sum(sum);
  const bool kept = valid && finite(sum);
  for (int64_t k = lane; k < rows.dim; k += kWarp) {
    store(rows, to, row * rows.dim + k, kept && k < side.given.dim ? side.given.at<T>(row, k) * scale : T(0));
  }
  if (lane == 0) {
    norms[row] = kept ? (unit && halves ? factor : sum) : T(0);
    bad[row] = length < 0 ? std::numeric_limits<T>::quiet_NaN() : (valid && !kept ? sum : T(0));
    if (lengths != nullptr && step == 0) {
      lengths[b] = length < 0 ? 1 : length;
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads, 1)
    finish(Side side, bool unit, const T* dx, const T* along, const bool* nonfinite_gradients, void* to) {
  const int64_t row = int64_t(blockIdx.x) * (kThreads / kWarp) + threadIdx.x / kWarp;
  if (row >= side.batch * side.steps) {
    return;
  }
  const int lane = threadIdx.x % kWarp;
  const int64_t dim = side.given.dim, b = row / side.steps;
  const bool valid = row % side.steps < length_of(side, b);
  T scale = 1, across = 0;
  bool zero = !valid;
  if (valid && unit) {
    const double norm = norm_of(side.given, row, lane), largest = largest_of(side.given.kind);
    scale = static_cast<T>(1 / norm);
    for (int64_t k = lane; k < dim; k += kWarp) {
      across += dx[row * dim + k] * (side.given.at<T>(row, k) * scale);
    }
    across = warp_sum(across);
    // The range of the given dtype, where it is the division that leads out of it.
    T beyond = 0;
    for (int64_t k = lane; norm * largest < 1 && k < dim; k += kWarp) {
      const T value = (dx[row * dim + k] - across * (side.given.at<T>(row, k) * scale)) * scale;
      beyond += value > largest || value < -largest ? T(1) : T(0);
    }
    zero = norm < kSmallestNorm || warp_sum(beyond) > T(0);
  }
  const T factor = along != nullptr ? along[row] : T(0);
  for (int64_t k = lane; k < dim; k += kWarp) {
    T value = dx[row * dim + k];
    // A product with inf or NaN would not be zero where the factor is.
    if (unit && across != T(0)) {
      value -= across * (side.given.at<T>(row, k) * scale);
    }
    value *= scale;
    if (factor != T(0)) {
      value += factor * side.given.at<T>(row, k);
    }
    if (nonfinite_gradients[b]) {
      value = std::numeric_limits<T>::quiet_NaN();
      zero = !valid;
    }
    store(side.given, to, row * dim + k, zero ? T(0) : value);
  }
}

template <class T>
SCAV_DEVICE T weight_at(const Weights<T>& weights, int64_t at) {
  return weights.bfloat16
             ? static_cast<T>(static_cast<float>(static_cast<const torch::headeronly::BFloat16*>(weights.cells)[at]))
             : static_cast<const T*>(weights.cells)[at];
}

// A block has a step of one side, and visits the near cells of it against all pairs' steps of the other side: dx of
// x's step (rows), or dy of y's (columns), each thread some features. The columns come last, and clear the cells.
template <class T, bool columns>
__global__ void __launch_bounds__(kThreads, 1)
    near(const __grid_constant__ Costs<T> costs, Weights<T> weights, T* gradient) {
  const int64_t own_steps = columns ? costs.steps_y : costs.steps_x;
  const int64_t own = blockIdx.x / own_steps, own_step = blockIdx.x % own_steps;
  if ((columns ? weights.near_y : weights.near_x)[blockIdx.x] == 0) {
    return;
  }
  const int64_t apart = costs.paired ? costs.count : (columns ? costs.columns : 1);
  const int64_t begin = columns || costs.paired ? own : own * costs.columns;
  const int64_t end = columns || costs.paired ? costs.count : begin + costs.columns;
  for (int64_t p = begin; p < end; p += apart) {
    const Pair<T> pair(costs, p);
    if (own_step >= (columns ? pair.m : pair.n)) {
      continue;
    }
    const uint8_t* others = columns ? weights.near_x + pair.i * costs.steps_x
                                    : weights.near_y + (costs.paired ? pair.i : pair.j) * costs.steps_y;
    const int64_t last = columns ? (pair.n < costs.end ? pair.n : costs.end) : pair.m;
    for (int64_t step = columns ? costs.begin : 0; step < last; ++step) {
      const int64_t s = columns ? step : own_step, t = columns ? own_step : step;
      const int64_t at =
          pair.i * weights.stride.i + pair.j * weights.stride.j + s * weights.stride.s + t * weights.stride.t;
      const T norms = pair.x_norms[s] + pair.y_norms[t];
      const T product = pair.cells[s * costs.stride.s + t * costs.stride.t];
      const T factor = others[step] != 0 ? weight_at(weights, at) : T(0);
      if (factor != T(0) && norms - T(2) * product < kNear<T> * norms) {
        const int64_t x_row = pair.x * costs.steps_x + s, y_row = pair.y * costs.steps_y + t;
        for (int64_t k = threadIdx.x; gradient != nullptr && k < costs.x.dim; k += kThreads) {
          const T pull = factor * (costs.x.template at<T>(x_row, k) - costs.y.template at<T>(y_row, k));
          T* const to = gradient + (columns ? y_row : x_row) * costs.x.dim + k;
          *to += columns ? -pull : pull;
        }
        if (columns) {
          __syncthreads();
          if (threadIdx.x == 0) {
            if (weights.bfloat16) {
              static_cast<torch::headeronly::BFloat16*>(weights.cells)[at] = 0.0f;
            } else {
              static_cast<T*>(weights.cells)[at] = 0;
            }
          }
        }
      }
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads, 1) collect(Share<T> share, int64_t all_steps, T* dx, T* along) {
  const int64_t row = int64_t(blockIdx.x) * (kThreads / kWarp) + threadIdx.x / kWarp;
  if (row >= share.count * share.steps) {
    return;
  }
  const int lane = threadIdx.x % kWarp;
  const int64_t b = row / share.steps, step = row % share.steps;
  const int64_t from = b * share.sequence + step * share.step, to = b * all_steps + step;
  for (int64_t k = lane; k < share.dim; k += kWarp) {
    dx[to * share.dim + k] -= share.rows[from * share.dim + k];
  }
  if (lane == 0 && share.along != nullptr) {
    along[to] += share.along[from];
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads, 1)
    nonfinite_of_costs(const __grid_constant__ Costs<T> costs, bool blocked, const T* x_weights, const T* y_weights,
                       T* nonfinite) {
  constexpr T lowest = std::numeric_limits<T>::lowest(), highest = std::numeric_limits<T>::max();
  const int64_t q = costs.first + blockIdx.x;
  const int64_t x = q / costs.columns, y = costs.paired ? q : q % costs.columns;
  const int64_t n = costs.x_lengths ? costs.x_lengths[x] : costs.steps_x;
  const int64_t m = costs.y_lengths ? costs.y_lengths[y] : costs.steps_y;
  const auto counts = [&](bool of_x, int64_t step) {
    const T* weights = of_x ? x_weights : y_weights;
    return weights == nullptr || weights[of_x ? x * costs.steps_x + step : y * costs.steps_y + step] > T(0);
  };
  const T* cells = costs.cells + q / costs.columns * costs.stride.i + q % costs.columns * costs.stride.j;
  int* const found = shared_memory<int>();  // NaN, -inf, a blocked step
  if (threadIdx.x < 3) {
    found[threadIdx.x] = 0;
  }
  __syncthreads();
  const bool in_range = n >= 1 && n <= costs.steps_x && m >= 1 && m <= costs.steps_y;
  // Rows of the grid, a thread each, then columns: the same marks from any thread.
  for (int64_t index = threadIdx.x; in_range && index < (blocked ? n + m : n); index += kThreads) {
    const bool row = index < n;
    bool any = false;
    for (int64_t other = 0; other < (row ? m : n); ++other) {
      const int64_t s = row ? index : other, t = row ? other : index - n;
      const T value = cells[s * costs.stride.s + t * costs.stride.t];
      any |= value >= lowest && value <= highest && (!blocked || counts(!row, other));
      if (!(value >= lowest)) {
        found[value != value ? 0 : 1] = 1;
      }
    }
    if (!any && blocked && counts(row, row ? index : index - n)) {
      found[2] = 1;
    }
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    constexpr T infinity = std::numeric_limits<T>::infinity();
    T result = found[2] ? infinity : T(0);
    result = found[1] ? -infinity : result;
    nonfinite[q] = found[0] || !in_range ? std::numeric_limits<T>::quiet_NaN() : result;
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads, 1)
    mark_nonfinite(const __grid_constant__ Costs<T> costs, const T* grads, T* gradient) {
  const Pair<T> pair(costs, blockIdx.x);
  const T nonfinite = costs.nonfinite[pair.result];
  if (nonfinite == T(0) || nonfinite == std::numeric_limits<T>::infinity() || grads[pair.result] == T(0)) {
    return;
  }
  T* const cells = gradient + pair.result * costs.steps_x * costs.steps_y;
  for (int64_t cell = threadIdx.x; cell < int64_t(pair.n) * pair.m; cell += kThreads) {
    cells[cell / pair.m * costs.steps_y + cell % pair.m] = std::numeric_limits<T>::quiet_NaN();
  }
}

int64_t row_blocks(const Side& side) { return ceil_div<int64_t>(side.batch * side.steps, kThreads / kWarp); }

}  // namespace

template <class T>
void prepare_rows(const Side& side, bool unit, Rows rows, T* norms, T* bad, int64_t* lengths, Stream stream) {
  launch("prepare rows", prepare<T>, row_blocks(side), kThreads, 0, stream, side, unit, rows,
         const_cast<void*>(rows.data), norms, bad, lengths);
}

template <class T>
void finish_rows(const Side& side, bool unit, const T* dx, const T* along, const bool* nonfinite_gradients,
                 void* gradient, Stream stream) {
  launch("finish rows", finish<T>, row_blocks(side), kThreads, 0, stream, side, unit, dx, along, nonfinite_gradients,
         gradient);
}

template <class T>
void add_near(const Costs<T>& costs, const Weights<T>& weights, T* dx, T* dy, Stream stream) {
  const int64_t columns = costs.paired ? costs.count : costs.columns;
  launch("near steps of x", near<T, false>, costs.count / costs.columns * costs.steps_x, kThreads, 0, stream, costs,
         weights, dx);
  launch("near steps of y", near<T, true>, columns * costs.steps_y, kThreads, 0, stream, costs, weights, dy);
}

template <class T>
void add_share(const Share<T>& share, int64_t all_steps, T* dx, T* along, Stream stream) {
  launch("collect a share", collect<T>, ceil_div<int64_t>(share.count * share.steps, kThreads / kWarp), kThreads, 0,
         stream, share, all_steps, dx, along);
}

template <class T>
void find_nonfinite(const Costs<T>& costs, bool blocked, const T* x_weights, const T* y_weights, T* nonfinite,
                    Stream stream) {
  launch("nonfinite costs", nonfinite_of_costs<T>, costs.count, kThreads, 3 * sizeof(int), stream, costs, blocked,
         x_weights, y_weights, nonfinite);
}

template <class T>
void mark_nonfinite_costs(const Costs<T>& costs, const T* grads, T* gradient, Stream stream) {
  launch("mark nonfinite costs", mark_nonfinite<T>, costs.count, kThreads, 0, stream, costs, grads, gradient);
}

#define SCAV_INSTANTIATE(T)                                                                     \
  template void prepare_rows(const Side&, bool, Rows, T*, T*, int64_t*, Stream);                \
  template void finish_rows(const Side&, bool, const T*, const T*, const bool*, void*, Stream); \
  template void add_near(const Costs<T>&, const Weights<T>&, T*, T*, Stream);                   \
  template void add_share(const Share<T>&, int64_t, T*, T*, Stream);                            \
  template void find_nonfinite(const Costs<T>&, bool, const T*, const T*, T*, Stream);          \
  template void mark_nonfinite_costs(const Costs<T>&, const T*, T*, Stream)
SCAV_INSTANTIATE(float);
SCAV_INSTANTIATE(double);

}  // namespace scav::device
