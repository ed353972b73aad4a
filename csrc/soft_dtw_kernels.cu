// Soft-DTW on a GPU; the recursion's order is that of common/warping.h.

#include "soft_dtw_cuda.h"

#include <type_traits>

#include "common/fused.h"

namespace scav::device {

namespace {

template <class T>
struct Softmin {
  T gamma, inverse_gamma;

  explicit Softmin(double smoothing) : gamma(static_cast<T>(smoothing)), inverse_gamma(static_cast<T>(1 / smoothing)) {}

  // Sums of forbidden cells stop where they are unreachable: infinities would become NaN in differences.
  SCAV_DEVICE static T within_reach(bool admitted, T r) {
    return admitted ? least(r, kUnreachable<T>) : kUnreachable<T>;
  }

  SCAV_DEVICE T value(T diagonal, T up, T left) const {
    // The smallest of the three stands for itself; only the other two cost an exponential.
    const T low = least(diagonal, up), high = most(diagonal, up);
    const T first = least(low, left), last = most(high, left), middle = most(low, least(high, left));
    const T sum = exponential((first - middle) * inverse_gamma) + exponential((first - last) * inverse_gamma);
    return first - gamma * logarithm(T(1) + sum);
  }
};

template <class T>
struct SoftDtwValues {
  Softmin<T> softmin;

  SCAV_DEVICE T cell(int, bool admitted, T cost, T diagonal, T up, T left) const {
    return Softmin<T>::within_reach(admitted, cost + softmin.value(diagonal, up, left));
  }
  SCAV_DEVICE void save(int64_t) const {}
  template <class At>
  SCAV_DEVICE void finish(const Pair<T>&, const At&) const {}
};

// Keeps the weights of the diagonal and of s - 1; that of t - 1 is what they leave of 1, so that the adjoint neither
// loses nor gains: rebuilt from differences of r it would drift. Cells that no path enters have diagonal weight -1.
template <class T, int K>
struct SoftDtwWeights {
  Softmin<T> softmin;
  T *diagonal, *up;  // of 2^side threads side by side, one cell of a column of all of them after another
  int side;
  int64_t first;  // column that is kept
  T diagonal_weight[K], up_weight[K];

  SCAV_DEVICE T cell(int k, bool admitted, T cost, T diagonal_r, T up_r, T left_r) {
    const T first = least(least(diagonal_r, up_r), left_r);
    const T d = exponential((first - diagonal_r) * softmin.inverse_gamma);
    const T u = exponential((first - up_r) * softmin.inverse_gamma);
    const T sum = d + u + exponential((first - left_r) * softmin.inverse_gamma);
    const T r = Softmin<T>::within_reach(admitted, cost + (first - softmin.gamma * logarithm(sum)));
    diagonal_weight[k] = r < kReached<T> ? d / sum : T(-1);
    up_weight[k] = u / sum;
    return r;
  }

  SCAV_DEVICE int64_t place(int64_t column) const {
    const int64_t at = column - first;
    return ((at >> side) * K << side) + (at & ((int64_t(1) << side) - 1));
  }

  SCAV_DEVICE void save(int64_t at) {
    const int64_t first = place(at);
#pragma unroll
    for (int k = 0; k < K; ++k) {
      diagonal[first + (k << side)] = diagonal_weight[k];
      up[first + (k << side)] = up_weight[k];
    }
  }

  template <int Rows>
  SCAV_DEVICE void load(int64_t at, T (&d)[Rows], T (&u)[Rows]) const {
    const int64_t first = place(at);
#pragma unroll
    for (int k = 0; k < Rows; ++k) {
      d[k] = diagonal[first + (k << side)];
      u[k] = up[first + (k << side)];
    }
  }

  template <class At>
  SCAV_DEVICE void finish(const Pair<T>&, const At&) const {}
};

}  // namespace

Needs soft_dtw_needs(Sweep sweep, int64_t n, int64_t m, int64_t element) {
  const auto bytes = [=](int64_t pairs, int64_t rows) {
    return SweepShape(sweep, n, m, rows).carried(pairs, m) * element;
  };
  return {bytes, SweepShape(sweep, n, m, n).slab_unit()};
}

Needs soft_dtw_adjoint_needs(Sweep sweep, int64_t n, int64_t m, int64_t element) {
  const auto bytes = [=](int64_t pairs, int64_t rows) {
    const SweepShape shape(sweep, n, m, rows);
    // Of slabs, the row above each is kept.
    const int64_t kept = shape.strips < shape.all ? shape.all * m : 0;
    return (2 * shape.carried(pairs, m) + kept + 2 * shape.columns(pairs) * shape.rows) * element;
  };
  return {bytes, SweepShape(sweep, n, m, n).slab_unit()};
}

template <class T>
void launch_soft_dtw_forward(const Costs<T>& costs, const SweepShape& shape, double gamma, int64_t band, T* carry,
                             T* out, Stream stream) {
  launch_sweep("soft_dtw", costs, shape, band, carry, out, stream,
               [&](auto) { return SoftDtwValues<T>{Softmin<T>(gamma)}; });
}

void launch_soft_dtw_fused(const Costs<float>& costs, const FusedShape& shape, double gamma, int64_t band, float* carry,
                           float* out, Stream stream) {
  launch_fused("soft_dtw", costs, shape, band, carry, out, stream,
               [&](auto) { return SoftDtwValues<float>{Softmin<float>(gamma)}; });
}

template <class T>
void launch_soft_dtw_backward(const Costs<T>& costs, const SweepShape& shape, double gamma, int64_t band,
                              const T* grads, T* carry, T* message, T* softmin, T* out, const Weights<T>& to,
                              Stream stream) {
  const int64_t cells = shape.columns(costs.count) * shape.rows;
  const bool lanes = shape.sweep == Sweep::lanes;
  static_assert(kLaneThreads == 1 << 7 && kWarp == 1 << 5);
  const int64_t first = costs.begin / shape.strip_rows() * shape.visits * kWarp;
  const auto weights = [&](auto k) {
    return SoftDtwWeights<T, k>{Softmin<T>(gamma), softmin, softmin + cells, lanes ? 7 : 5, first, {}, {}};
  };
  launch_sweep("soft_dtw with weights", costs, shape, band, carry, out, stream, weights);
  const auto adjoint = [&](auto kernel, auto saved) {
    launch("soft_dtw_backward", kernel, shape.blocks(costs.count), shape.warps * kWarp, shape.shared_bytes(sizeof(T)),
           stream, costs, grads, saved, message, to);
  };
  if (lanes) {
    adjoint(adjoint_lanes<kLaneRows, T, SoftDtwWeights<T, kLaneRows>>,
            weights(std::integral_constant<int, kLaneRows>()));
  } else if (shape.rows == kFewRows) {
    adjoint(adjoint_wavefront<kFewRows, T, SoftDtwWeights<T, kFewRows>>,
            weights(std::integral_constant<int, kFewRows>()));
  } else {
    adjoint(adjoint_wavefront<kManyRows, T, SoftDtwWeights<T, kManyRows>>,
            weights(std::integral_constant<int, kManyRows>()));
  }
}

template void launch_soft_dtw_forward(const Costs<float>&, const SweepShape&, double, int64_t, float*, float*, Stream);
template void launch_soft_dtw_forward(const Costs<double>&, const SweepShape&, double, int64_t, double*, double*,
                                      Stream);
template void launch_soft_dtw_backward(const Costs<float>&, const SweepShape&, double, int64_t, const float*, float*,
                                       float*, float*, float*, const Weights<float>&, Stream);
template void launch_soft_dtw_backward(const Costs<double>&, const SweepShape&, double, int64_t, const double*, double*,
                                       double*, double*, double*, const Weights<double>&, Stream);

}  // namespace scav::device
