// Soft-DTW on a GPU; the recursion's order is that of cuda/sweep.h.

#include "cuda/soft_dtw.h"

#include <bit>
#include <type_traits>

#include "cuda/fused.h"

namespace scav::device {

namespace {

template <class T>
struct Softmin {
  T gamma, inverse_gamma;

  explicit Softmin(double smoothing) : gamma(static_cast<T>(smoothing)), inverse_gamma(static_cast<T>(1 / smoothing)) {}

  // Sums of forbidden cells stop where they are unreachable: infinities would become NaN in differences.
  SCAV_DEVICE static T within_reach(bool admitted, T r) { return admitted ? min(r, kUnreachable<T>) : kUnreachable<T>; }

  SCAV_DEVICE T value(T diagonal, T up, T left) const {
    // The smallest of the three stands for itself; only the other two cost an exponential.
    const T low = min(diagonal, up), high = max(diagonal, up);
    const T first = min(low, left), last = max(high, left), middle = max(low, min(high, left));
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

// How the weights of the diagonal and of s - 1 in a cell's softmin are kept, d / sum and u / sum. That of t - 1 is what
// they leave of 1, so that the adjoint neither loses nor gains: rebuilt from differences of r it would drift. Cells
// that no path enters have diagonal weight -1.
template <class T, class Word>
struct KeptWeights {
  SCAV_DEVICE static void keep(bool entered, T d, T u, T sum, T (&words)[2]) {
    words[0] = entered ? d / sum : T(-1);
    words[1] = u / sum;
  }
  SCAV_DEVICE static void read(const T (&words)[2], T& diagonal, T& up) {
    diagonal = words[0];
    up = words[1];
  }
};

// Both in a word, for inputs of 16 bits. A weight is off by 2^-17 at most, which leaves 0 and 1 as they are; what it is
// for, a cell's factor of a gradient, is rounded by 2^-9 of itself to bfloat16, or the gradient by 2^-12 of itself to
// float16. Together the two are at most 1, so that a word of ones is free to be the mark.
template <>
struct KeptWeights<float, PackedWeights> {
  static constexpr float kOne = 65535;
  static constexpr PackedWeights kNoPath = 0xffffffffu;
  // Added to a number, leaves it rounded in the lower bits: conversions would take turns with exponentials.
  static constexpr float kInteger = 1 << 23;

  SCAV_DEVICE static void keep(bool entered, float d, float u, float sum, PackedWeights (&word)[1]) {
    const float scale = fast_quotient(kOne, sum);
    const float diagonal = d * scale + kInteger;
    const float up = min(u * scale + kInteger, kOne + kInteger - (diagonal - kInteger));
    const auto low = std::bit_cast<uint32_t>(diagonal) & 0xffffu, high = std::bit_cast<uint32_t>(up) << 16;
    word[0] = entered ? high | low : kNoPath;
  }
  SCAV_DEVICE static void read(const PackedWeights (&word)[1], float& diagonal, float& up) {
    diagonal = word[0] == kNoPath ? -1.0f : static_cast<float>(word[0] & 0xffffu) * (1 / kOne);
    up = static_cast<float>(word[0] >> 16) * (1 / kOne);
  }
};

template <class T, int K, class Word>
struct SoftDtwWeights {
  using Kept = KeptWeights<T, Word>;
  static constexpr int kWords = kKeptWords<T, Word>;

  Softmin<T> softmin;
  Word* words[kWords];  // of 2^side threads side by side, one cell of a column of all of them after another
  int side;
  int64_t first;  // column that is kept
  Word column[K][kWords];

  SoftDtwWeights(double gamma, Word* all, int64_t cells, int side_, int64_t first_)
      : softmin(gamma), side(side_), first(first_), column{} {
    for (int word = 0; word < kWords; ++word) {
      words[word] = all + word * cells;
    }
  }

  SCAV_DEVICE T cell(int k, bool admitted, T cost, T diagonal_r, T up_r, T left_r) {
    const T first = min(min(diagonal_r, up_r), left_r);
    const T d = exponential((first - diagonal_r) * softmin.inverse_gamma);
    const T u = exponential((first - up_r) * softmin.inverse_gamma);
    const T sum = d + u + exponential((first - left_r) * softmin.inverse_gamma);
    const T r = Softmin<T>::within_reach(admitted, cost + (first - softmin.gamma * logarithm(sum)));
    Kept::keep(r < kReached<T>, d, u, sum, column[k]);
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
#pragma unroll
      for (int word = 0; word < kWords; ++word) {
        words[word][first + (k << side)] = column[k][word];
      }
    }
  }

  template <int Rows>
  SCAV_DEVICE void load(int64_t at, T (&d)[Rows], T (&u)[Rows]) const {
    const int64_t first = place(at);
#pragma unroll
    for (int k = 0; k < Rows; ++k) {
      Word cell[kWords];
#pragma unroll
      for (int word = 0; word < kWords; ++word) {
        cell[word] = words[word][first + (k << side)];
      }
      Kept::read(cell, d[k], u[k]);
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
  return {bytes, SweepShape(sweep, n, m, n).part_unit()};
}

Needs soft_dtw_adjoint_needs(Sweep sweep, int64_t n, int64_t m, int64_t element, int64_t kept) {
  const auto bytes = [=](int64_t pairs, int64_t rows) {
    const SweepShape shape(sweep, n, m, rows);
    // If there are several parts, the row above each.
    const int64_t above = shape.panels < shape.all ? shape.all * m : 0;
    return (2 * shape.carried(pairs, m) + above) * element + shape.columns(pairs) * shape.rows * kept;
  };
  return {bytes, SweepShape(sweep, n, m, n).part_unit()};
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

template <class T, class Word>
void launch_soft_dtw_backward(const Costs<T>& costs, const SweepShape& shape, double gamma, int64_t band,
                              const T* grads, T* carry, T* message, Word* softmin, T* out, const Weights<T>& to,
                              Stream stream) {
  const int64_t cells = shape.columns(costs.count) * shape.rows;
  const bool lanes = shape.sweep == Sweep::lanes;
  static_assert(kLaneThreads == 1 << 7 && kWarp == 1 << 5);
  const int64_t first = costs.begin / shape.panel_rows() * shape.visits * kWarp;
  const auto weights = [&](auto k) { return SoftDtwWeights<T, k, Word>(gamma, softmin, cells, lanes ? 7 : 5, first); };
  launch_sweep("soft_dtw with weights", costs, shape, band, carry, out, stream, weights);
  const auto adjoint = [&](auto kernel, auto saved) {
    launch("soft_dtw_backward", kernel, shape.blocks(costs.count), shape.warps * kWarp, shape.shared_bytes(sizeof(T)),
           stream, costs, grads, saved, message, to);
  };
  if (lanes) {
    adjoint(adjoint_lanes<kLaneRows, T, SoftDtwWeights<T, kLaneRows, Word>>,
            weights(std::integral_constant<int, kLaneRows>()));
  } else if (shape.rows == kFewRows) {
    adjoint(adjoint_wavefront<kFewRows, T, SoftDtwWeights<T, kFewRows, Word>>,
            weights(std::integral_constant<int, kFewRows>()));
  } else {
    adjoint(adjoint_wavefront<kManyRows, T, SoftDtwWeights<T, kManyRows, Word>>,
            weights(std::integral_constant<int, kManyRows>()));
  }
}

template void launch_soft_dtw_forward(const Costs<float>&, const SweepShape&, double, int64_t, float*, float*, Stream);
template void launch_soft_dtw_forward(const Costs<double>&, const SweepShape&, double, int64_t, double*, double*,
                                      Stream);
template void launch_soft_dtw_backward(const Costs<float>&, const SweepShape&, double, int64_t, const float*, float*,
                                       float*, float*, float*, const Weights<float>&, Stream);
template void launch_soft_dtw_backward(const Costs<float>&, const SweepShape&, double, int64_t, const float*, float*,
                                       float*, PackedWeights*, float*, const Weights<float>&, Stream);
template void launch_soft_dtw_backward(const Costs<double>&, const SweepShape&, double, int64_t, const double*, double*,
                                       double*, double*, double*, const Weights<double>&, Stream);

}  // namespace scav::device
