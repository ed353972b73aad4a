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

// The softmin over the ends of paths, one after another.
template <class T>
struct SoftEnds {
  OpenEnds open;
  T least = kUnreachable<T>, sum = 0;

  SCAV_DEVICE void start() {
    least = kUnreachable<T>;
    sum = 0;
  }
  SCAV_DEVICE void take(T r, T inverse_gamma) {
    const T lower = min(least, r);
    sum = sum * exponential((lower - least) * inverse_gamma) + exponential((lower - r) * inverse_gamma);
    least = lower;
  }
  SCAV_DEVICE T weight(T r, T inverse_gamma) const { return exponential((least - r) * inverse_gamma) / sum; }
};

template <class T>
struct SoftDtwValues : ClosedEnds {
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

// With open ends.
template <class T, int K>
struct OpenSoftDtwValues : SoftDtwValues<T> {
  static constexpr bool ends_anywhere() { return true; }
  SoftEnds<T> ends;

  explicit OpenSoftDtwValues(const SoftDtwOptions& options)
      : SoftDtwValues<T>{{}, Softmin<T>(options.gamma)}, ends{options.open} {}

  SCAV_DEVICE void start(int) { ends.start(); }
  SCAV_DEVICE T above_next(int s0, T up) const { return ends.open.begin && s0 == 0 ? T(0) : up; }
  SCAV_DEVICE void take(const Pair<T>&, const T (&column)[K], int last, int) {
#pragma unroll
    for (int k = 0; k < K; ++k) {
      if (ends.open.end && k == last) {
        ends.take(column[k], this->softmin.inverse_gamma);
      }
    }
  }
  SCAV_DEVICE T result(const Pair<T>&, T r) const {
    return result_of(ends.open.end ? ends.least - this->softmin.gamma * logarithm(ends.sum) : r);
  }
};

template <class T, int K, class Word>
struct SoftDtwWeights : ClosedEnds {
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

// With open ends; the weights of the last row's cells in the softmin over them stay in memory for the adjoint.
template <class T, int K, class Word>
struct OpenSoftDtwWeights : SoftDtwWeights<T, K, Word> {
  static constexpr bool ends_anywhere() { return true; }
  SoftEnds<T> ends;
  T* weights;  // (M, pairs of the tile)

  OpenSoftDtwWeights(const SoftDtwWeights<T, K, Word>& closed, OpenEnds open, T* weights_)
      : SoftDtwWeights<T, K, Word>(closed), ends{open}, weights(weights_) {}

  SCAV_DEVICE void start(int) { ends.start(); }
  SCAV_DEVICE T above_next(int s0, T up) const { return ends.open.begin && s0 == 0 ? T(0) : up; }
  SCAV_DEVICE void take(const Pair<T>& pair, const T (&column)[K], int last, int t) {
#pragma unroll
    for (int k = 0; k < K; ++k) {
      if (ends.open.end && k == last) {
        ends.take(column[k], this->softmin.inverse_gamma);
        weights[end_at(pair, t)] = column[k];
      }
    }
  }
  template <class At>
  SCAV_DEVICE void finish(const Pair<T>& pair, const At&) const {
    for (int t = 0; ends.open.end && t < pair.m; ++t) {
      T& end = weights[end_at(pair, t)];
      end = ends.weight(end, this->softmin.inverse_gamma);
    }
  }
  template <int Rows>
  SCAV_DEVICE T share_of_end(const Pair<T>& pair, T grad, int last, int t) const {
    if (!ends.open.end) {
      return t == pair.m - 1 ? grad : T(0);
    }
    return last >= 0 && last < Rows ? grad * weights[end_at(pair, t)] : T(0);
  }

 private:
  SCAV_DEVICE static int64_t end_at(const Pair<T>& pair, int t) {
    const Costs<T>& tile = pair.costs;
    return t * tile.count + pair.i * tile.columns + pair.j - tile.first;
  }
};

}  // namespace

Needs soft_dtw_needs(Sweep sweep, int64_t n, int64_t m, int64_t element) {
  const auto bytes = [=](int64_t pairs, int64_t rows) {
    return SweepShape(sweep, n, m, rows).carried(pairs, m) * element;
  };
  return {bytes, SweepShape(sweep, n, m, n).part_unit()};
}

Needs soft_dtw_adjoint_needs(Sweep sweep, int64_t n, int64_t m, int64_t element, int64_t kept, bool open_end) {
  const auto bytes = [=](int64_t pairs, int64_t rows) {
    const SweepShape shape(sweep, n, m, rows);
    // If there are several parts, the row above each.
    const int64_t above = shape.panels < shape.all ? shape.all * m : 0;
    const int64_t ends = open_end ? pairs * m : 0;
    return (2 * shape.carried(pairs, m) + above + ends) * element + shape.columns(pairs) * shape.rows * kept;
  };
  return {bytes, SweepShape(sweep, n, m, n).part_unit()};
}

template <class T>
void launch_soft_dtw_forward(const Costs<T>& costs, const SweepShape& shape, const SoftDtwOptions& options, T* carry,
                             T* out, Stream stream) {
  const int64_t band = options.band.value_or(-1);
  if (has_closed_ends(options)) {
    launch_sweep("soft_dtw", costs, shape, band, carry, out, stream,
                 [&](auto) { return SoftDtwValues<T>{{}, Softmin<T>(options.gamma)}; });
  } else {
    launch_sweep("soft_dtw with open ends", costs, shape, band, carry, out, stream,
                 [&](auto k) { return OpenSoftDtwValues<T, k>(options); });
  }
}

void launch_soft_dtw_fused(const Costs<float>& costs, const FusedShape& shape, double gamma, int64_t band, float* carry,
                           float* out, Stream stream) {
  launch_fused("soft_dtw", costs, shape, band, carry, out, stream,
               [&](auto) { return SoftDtwValues<float>{{}, Softmin<float>(gamma)}; });
}

template <class T, class Word>
void launch_soft_dtw_backward(const Costs<T>& costs, const SweepShape& shape, const SoftDtwOptions& options,
                              const T* grads, T* carry, T* message, Word* softmin, T* ends, T* out,
                              const Weights<T>& to, Stream stream) {
  const int64_t cells = shape.columns(costs.count) * shape.rows;
  const bool lanes = shape.sweep == Sweep::lanes;
  static_assert(kLaneThreads == 1 << 7 && kWarp == 1 << 5);
  const int64_t first = costs.begin / shape.panel_rows() * shape.visits * kWarp;
  const auto closed = [&](auto k) {
    return SoftDtwWeights<T, k, Word>(options.gamma, softmin, cells, lanes ? 7 : 5, first);
  };
  const auto open = [&](auto k) { return OpenSoftDtwWeights<T, k, Word>(closed(k), options.open, ends); };
  const auto adjoint = [&](auto kernel, auto saved) {
    launch("soft_dtw_backward", kernel, shape.blocks(costs.count), shape.warps * kWarp, shape.shared_bytes(sizeof(T)),
           stream, costs, grads, saved, message, to);
  };
  const auto run = [&](const char* what, const auto& weights) {
    launch_sweep(what, costs, shape, options.band.value_or(-1), carry, out, stream, weights);
    if (lanes) {
      const auto saved = weights(std::integral_constant<int, kLaneRows>());
      adjoint(adjoint_lanes<kLaneRows, T, std::remove_const_t<decltype(saved)>>, saved);
    } else if (shape.rows == kFewRows) {
      const auto saved = weights(std::integral_constant<int, kFewRows>());
      adjoint(adjoint_wavefront<kFewRows, T, std::remove_const_t<decltype(saved)>>, saved);
    } else {
      const auto saved = weights(std::integral_constant<int, kManyRows>());
      adjoint(adjoint_wavefront<kManyRows, T, std::remove_const_t<decltype(saved)>>, saved);
    }
  };
  if (has_closed_ends(options)) {
    run("soft_dtw with weights", closed);
  } else {
    run("soft_dtw with weights and open ends", open);
  }
}

#define SCAV_INSTANTIATE_WEIGHTS(T, Word)                                                                             \
  template void launch_soft_dtw_backward(const Costs<T>&, const SweepShape&, const SoftDtwOptions&, const T*, T*, T*, \
                                         Word*, T*, T*, const Weights<T>&, Stream)
#define SCAV_INSTANTIATE(T)                                                                                         \
  template void launch_soft_dtw_forward(const Costs<T>&, const SweepShape&, const SoftDtwOptions&, T*, T*, Stream); \
  SCAV_INSTANTIATE_WEIGHTS(T, T)
SCAV_INSTANTIATE(float);
SCAV_INSTANTIATE(double);
SCAV_INSTANTIATE_WEIGHTS(float, PackedWeights);

}  // namespace scav::device
