// DTW on a GPU; the recursion's order is that of cuda/sweep.h.

#include "cuda/dtw.h"

#include <type_traits>

#include "cuda/fused.h"
#include "shared/dtw.h"

namespace scav::device {

namespace {

// Two bits for each of K cells.
template <int K>
using Code = std::conditional_t<(K > 8), uint32_t, uint16_t>;

template <class T>
struct DtwValues {
  SCAV_DEVICE T cell(int, bool admitted, T cost, T diagonal, T up, T left) const {
    return admitted ? cost + min(min(diagonal, up), left) : kUnreachable<T>;
  }
  SCAV_DEVICE void save(int64_t) const {}
  template <class At>
  SCAV_DEVICE void finish(const Pair<T>&, const At&) const {}
};

template <class T, int K>
struct DtwPaths {
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

template <class T>
__global__ void __launch_bounds__(kLaneThreads, 1)
    dtw_path_weights(const __grid_constant__ Costs<T> costs, const T* grads, const uint8_t* paths, Weights<T> to) {
  const int64_t thread = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (thread >= costs.count) {
    return;
  }
  const Pair<T> pair(costs, thread);
  const T grad = grads[pair.result];
  if (grad == T(0)) {
    return;
  }
  const uint8_t* step = paths + pair.result * (costs.steps_x + costs.steps_y);
  for (int s = pair.n - 1, t = pair.m - 1; s >= costs.begin && t >= 0; ++step) {
    if (s < costs.end) {
      pair.template put<1>(to, s, t, {grad});
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
void launch_dtw_forward(const Costs<T>& costs, const SweepShape& shape, int64_t band, T* carry, void* codes,
                        uint8_t* paths, T* out, Stream stream) {
  if (paths == nullptr) {
    launch_sweep("dtw", costs, shape, band, carry, out, stream, [](auto) { return DtwValues<T>(); });
    return;
  }
  launch_sweep("dtw with paths", costs, shape, band, carry, out, stream, [&](auto k) {
    return DtwPaths<T, k>{static_cast<Code<k>*>(codes), paths, costs.steps_x + costs.steps_y};
  });
}

void launch_dtw_fused(const Costs<float>& costs, const FusedShape& shape, int64_t band, float* carry, void* codes,
                      uint8_t* paths, float* out, Stream stream) {
  static_assert(kDtwColumnBytes == sizeof(Code<kLaneRows>));
  if (paths == nullptr) {
    launch_fused("dtw", costs, shape, band, carry, out, stream, [](auto) { return DtwValues<float>(); });
    return;
  }
  launch_fused("dtw with paths", costs, shape, band, carry, out, stream, [&](auto k) {
    return DtwPaths<float, k>{static_cast<Code<k>*>(codes), paths, costs.steps_x + costs.steps_y};
  });
}

template <class T>
void launch_dtw_backward(const Costs<T>& costs, const T* grads, const uint8_t* paths, const Weights<T>& to,
                         Stream stream) {
  launch("dtw_backward", dtw_path_weights<T>, ceil_div<int64_t>(costs.count, kLaneThreads), kLaneThreads, 0, stream,
         costs, grads, paths, to);
}

template void launch_dtw_forward(const Costs<float>&, const SweepShape&, int64_t, float*, void*, uint8_t*, float*,
                                 Stream);
template void launch_dtw_forward(const Costs<double>&, const SweepShape&, int64_t, double*, void*, uint8_t*, double*,
                                 Stream);
template void launch_dtw_backward(const Costs<float>&, const float*, const uint8_t*, const Weights<float>&, Stream);
template void launch_dtw_backward(const Costs<double>&, const double*, const uint8_t*, const Weights<double>&, Stream);

}  // namespace scav::device
