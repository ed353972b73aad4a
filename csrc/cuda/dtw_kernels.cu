// DTW on a GPU; the recursion's order is that of cuda/sweep.h.

#include "cuda/dtw.h"

#include <type_traits>

#include "cuda/fused.h"

namespace scav::device {

namespace {

// Two bits for each of K cells.
template <int K>
using Code = std::conditional_t<(K > 8), uint32_t, uint16_t>;

template <class T>
struct DtwValues : ClosedEnds {
  SCAV_DEVICE T cell(int, bool admitted, T cost, T diagonal, T up, T left) const {
    return admitted ? cost + min(min(diagonal, up), left) : kUnreachable<T>;
  }
  SCAV_DEVICE void save(int64_t) const {}
  template <class At>
  SCAV_DEVICE void finish(const Pair<T>&, const At&) const {}
};

template <class T, int K>
struct DtwPaths : ClosedEnds {
  Code<K>* codes;
  uint8_t* paths;
  int64_t path_stride;
  uint32_t code = 0;

  SCAV_DEVICE T cell(int k, bool admitted, T cost, T diagonal, T up, T left) {
    const int step = diagonal <= up && diagonal <= left ? kDiagonal : (up <= left ? kUp : kLeft);
    code |= static_cast<uint32_t>(step) << (2 * k);
    return DtwValues<T>().cell(k, admitted, cost, diagonal, up, left);
  }

  SCAV_DEVICE void save(int64_t at) {
    codes[at] = static_cast<Code<K>>(code);
    code = 0;
  }

  // Walks the path from its end; `at(s, t)` is where the code of the cell's column was saved.
  template <class At>
  SCAV_DEVICE void finish(const Pair<T>& pair, const At& at) const {
    uint8_t* next = paths + pair.result * path_stride;
    int s = pair.n - 1, t = pair.m - 1;
    while (s > 0 || t > 0) {
      int step = codes[at(s, t)] >> (2 * (s % K)) & 3;
      // Not left to the codes, which mean nothing where a cost is inf or NaN.
      step = s == 0 ? kLeft : (t == 0 ? kUp : step);
      *next++ = static_cast<uint8_t>(step);
      s -= step != kLeft;
      t -= step != kUp;
    }
    *next = kPathEnd;
  }
};

// The options beyond the band, as a kernel reads them.
template <class T>
struct PathRules {
  T penalty, diagonal_weight;
  OpenEnds open;
  Normalize normalize;

  explicit PathRules(const DtwOptions& options)
      : penalty(static_cast<T>(options.step_penalty)),
        diagonal_weight(static_cast<T>(options.diagonal_weight)),
        open(options.open),
        normalize(options.normalize) {}
};

// Cells with a step penalty and a diagonal weight, of paths with open ends, normalized. `walks`: for the paths, or for
// their cells to be counted.
template <class T, int K, bool walks>
struct DtwWithRules {
  static constexpr bool ends_anywhere() { return true; }
  PathRules<T> rules;
  Code<K>* codes;
  uint8_t* paths;  // or null
  int64_t path_stride;
  uint32_t code = 0;
  T first_weight = 1;  // of the diagonal into the panel's first row
  T least = kUnreachable<T>;
  int end = 0, cells = 0;  // the first step of y with the least sum of the last row; cells on the path

  SCAV_DEVICE void start(int s0) {
    // A path starts diagonally, at weight 1.
    first_weight = s0 == 0 ? T(1) : rules.diagonal_weight;
    least = kUnreachable<T>;
  }

  SCAV_DEVICE T above_next(int s0, T up) const { return rules.open.begin && s0 == 0 ? T(0) : up; }

  SCAV_DEVICE T cell(int k, bool admitted, T cost, T diagonal, T up, T left) {
    const T weight = k == 0 ? first_weight : rules.diagonal_weight;
    // A forbidden cell stays unreachable at every weight.
    const T oblique = diagonal + (cost < kReached<T> ? weight * cost : cost);
    const T straight = min(up, left) + (cost + rules.penalty);
    if constexpr (walks) {
      const int step = straight < oblique ? (left < up ? kLeft : kUp) : kDiagonal;
      code |= static_cast<uint32_t>(step) << (2 * k);
    }
    return admitted ? min(oblique, straight) : kUnreachable<T>;
  }

  SCAV_DEVICE void take(const Pair<T>&, const T (&column)[K], int last, int t) {
#pragma unroll
    for (int k = 0; k < K; ++k) {
      const bool nearer = rules.open.end && k == last && column[k] < least;
      least = nearer ? column[k] : least;
      end = nearer ? t : end;
    }
  }

  SCAV_DEVICE void save(int64_t at) {
    if constexpr (walks) {
      codes[at] = static_cast<Code<K>>(code);
      code = 0;
    }
  }

  template <class At>
  SCAV_DEVICE void finish(const Pair<T>& pair, const At& at) {
    if constexpr (walks) {
      uint8_t* next = paths != nullptr ? paths + pair.result * path_stride : nullptr;
      int s = pair.n - 1, t = rules.open.end && least < kReached<T> ? end : pair.m - 1;
      for (int skipped = pair.m - 1; skipped > t && next != nullptr; --skipped) {
        *next++ = kSkip;
      }
      for (bool started = false; !started;) {
        int step = codes[at(s, t)] >> (2 * (s % K)) & 3;
        started = s == 0 && (t == 0 || (rules.open.begin && step != kLeft));
        // Not left to the codes, which mean nothing where a cost is inf or NaN.
        step = started ? kPathEnd : (s == 0 ? kLeft : (t == 0 ? kUp : step));
        if (next != nullptr) {
          *next++ = static_cast<uint8_t>(step);
        }
        ++cells;
        s -= step != kLeft;
        t -= step != kUp;
      }
    }
  }

  SCAV_DEVICE T result(const Pair<T>& pair, T r) const {
    const T sum = result_of(rules.open.end ? least : r);
    const int divisor = rules.normalize == Normalize::path ? cells : pair.n + pair.m;
    return rules.normalize == Normalize::none ? sum : sum / T(divisor);
  }
};

// `weighted`: of paths with a diagonal weight, or normalized.
template <class T, bool weighted>
__global__ void __launch_bounds__(kLaneThreads, 1)
    dtw_path_weights(const __grid_constant__ Costs<T> costs, T diagonal_weight, Normalize normalize, const T* grads,
                     const uint8_t* paths, Weights<T> to) {
  const int64_t thread = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (thread >= costs.count) {
    return;
  }
  const Pair<T> pair(costs, thread);
  T grad = grads[pair.result];
  if (grad == T(0)) {
    return;
  }
  const uint8_t* step = paths + pair.result * (costs.steps_x + costs.steps_y);
  int s = pair.n - 1, t = pair.m - 1;
  for (; t > 0 && *step == kSkip; ++step) {
    --t;
  }
  if constexpr (weighted) {
    int cells = 1;
    for (const uint8_t* next = step; normalize == Normalize::path && *next < kPathEnd; ++next) {
      ++cells;
    }
    grad /= T(normalize == Normalize::steps ? pair.n + pair.m : cells);
  }
  for (; s >= costs.begin && t >= 0; ++step) {
    if (s < costs.end) {
      pair.template put<1>(to, s, t, {weighted && *step == kDiagonal ? diagonal_weight * grad : grad});
    }
    if (*step >= kPathEnd) {
      break;
    }
    s -= *step != kLeft;
    t -= *step != kUp;
  }
}

}  // namespace

int64_t dtw_code_bytes(const SweepShape& shape, int64_t pairs) {
  return shape.columns(pairs) / shape.panels * shape.all *
         static_cast<int64_t>(shape.rows > 8 ? sizeof(Code<16>) : sizeof(Code<8>));
}

Needs dtw_needs(Sweep sweep, int64_t n, int64_t m, int64_t element, bool save_path) {
  const auto bytes = [=](int64_t pairs, int64_t rows) {
    const SweepShape shape(sweep, n, m, rows);
    return shape.carried(pairs, m) * element + (save_path ? dtw_code_bytes(shape, pairs) : 0);
  };
  return {bytes, SweepShape(sweep, n, m, n).part_unit()};
}

template <class T>
void launch_dtw_forward(const Costs<T>& costs, const SweepShape& shape, const DtwOptions& options, T* carry,
                        void* codes, uint8_t* paths, T* out, Stream stream) {
  const int64_t band = options.band.value_or(-1), path_stride = costs.steps_x + costs.steps_y;
  const auto sweep = [&](const char* what, const auto& make) {
    launch_sweep(what, costs, shape, band, carry, out, stream, make);
  };
  const bool walks = walks_paths(options, paths);
  if (!has_plain_paths(options)) {
    const PathRules<T> rules(options);
    if (walks) {
      sweep("dtw with options and paths",
            [&](auto k) { return DtwWithRules<T, k, true>{rules, static_cast<Code<k>*>(codes), paths, path_stride}; });
    } else {
      sweep("dtw with options", [&](auto k) { return DtwWithRules<T, k, false>{rules, nullptr, nullptr, 0}; });
    }
  } else if (walks) {
    sweep("dtw with paths",
          [&](auto k) { return DtwPaths<T, k>{{}, static_cast<Code<k>*>(codes), paths, path_stride}; });
  } else {
    sweep("dtw", [](auto) { return DtwValues<T>(); });
  }
}

void launch_dtw_fused(const Costs<float>& costs, const FusedShape& shape, int64_t band, float* carry, void* codes,
                      uint8_t* paths, float* out, Stream stream) {
  static_assert(kDtwColumnBytes == sizeof(Code<kLaneRows>));
  if (paths == nullptr) {
    launch_fused("dtw", costs, shape, band, carry, out, stream, [](auto) { return DtwValues<float>(); });
    return;
  }
  launch_fused("dtw with paths", costs, shape, band, carry, out, stream, [&](auto k) {
    return DtwPaths<float, k>{{}, static_cast<Code<k>*>(codes), paths, costs.steps_x + costs.steps_y};
  });
}

template <class T>
void launch_dtw_backward(const Costs<T>& costs, const PathOptions& options, const T* grads, const uint8_t* paths,
                         const Weights<T>& to, Stream stream) {
  const bool weighted = options.diagonal_weight != 1 || options.normalize != Normalize::none;
  launch("dtw_backward", weighted ? dtw_path_weights<T, true> : dtw_path_weights<T, false>,
         ceil_div<int64_t>(costs.count, kLaneThreads), kLaneThreads, 0, stream, costs,
         static_cast<T>(options.diagonal_weight), options.normalize, grads, paths, to);
}

#define SCAV_INSTANTIATE(T)                                                                                           \
  template void launch_dtw_forward(const Costs<T>&, const SweepShape&, const DtwOptions&, T*, void*, uint8_t*, T*,    \
                                   Stream);                                                                           \
  template void launch_dtw_backward(const Costs<T>&, const PathOptions&, const T*, const uint8_t*, const Weights<T>&, \
                                    Stream)
SCAV_INSTANTIATE(float);
SCAV_INSTANTIATE(double);

}  // namespace scav::device
