#pragma once
// Ground costs of a tile of pairs on a GPU, and their adjoint, which connect products to reducers.

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include "cuda/device.h"

namespace scav::device {

enum class CellKind : int { euclidean, sqeuclidean, cosine, given };

// Rows of features in one of the dtypes that are multiplied; read one by one only where steps are near.
struct Rows {
  enum class Kind : int { float64, float32, bfloat16, float16 };
  const void* data;
  Kind kind;
  int64_t dim;

#if defined(__CUDACC__) || defined(SCAV_SIMT)
  template <class T>
  SCAV_DEVICE T at(int64_t row, int64_t k) const {
    const int64_t index = row * dim + k;
    switch (kind) {
      case Kind::float64:
        return static_cast<T>(static_cast<const double*>(data)[index]);
      case Kind::float32:
        return static_cast<T>(static_cast<const float*>(data)[index]);
      case Kind::bfloat16:
        return static_cast<T>(static_cast<float>(static_cast<const torch::headeronly::BFloat16*>(data)[index]));
      default:
        return static_cast<T>(static_cast<float>(static_cast<const torch::headeronly::Half*>(data)[index]));
    }
  }
#endif
};

// Elements between neighbors along x's of a tile, y's of a tile, steps s and steps t.
struct Strides {
  int64_t i, j, s, t;
};

// A tile: `count` pairs, of which number p is x number first_x + q / columns against y number first_y + q % columns,
// with q = first + p; against y of the same number where `paired`. Of each it has rows s from `begin` to `end`: all, or
// a part of a pair that is too large.
template <class T>
struct Costs {
  CellKind kind;
  const T* cells;  // products <x_s, y_t>, or the caller's costs; of row 0, wherever the tile's begin
  Strides stride;
  int64_t count, columns, first, first_x, first_y, batch_y;
  int begin, end;
  bool paired;
  int64_t steps_x, steps_y;              // N, M
  const int64_t *x_lengths, *y_lengths;  // (B1,), (B2,); null: all steps
  const T *x_norms, *y_norms;            // (B1, N), (B2, M) squared
  const T *x_nonfinite, *y_nonfinite,
      *nonfinite;  // (B1,), (B2,), or of results: non-zero where a pair's result is decided
  Rows x, y;
};

// d out / d cost of a tile's cells, as the factors w of dx = x sum(w) - sum(w y); of given costs, as it is.
// Near cells are marked, to be taken from the difference of their rows. The cells are of row 0, as a tile's are.
template <class T>
struct Weights {
  void* cells;
  bool bfloat16;
  Strides stride;
  uint8_t *near_x, *near_y;  // by step of the tile's x's and y's, (x's, N) and (y's, M); null: none are
};

#if defined(__CUDACC__) || defined(SCAV_SIMT)

// |x - y|^2 of two rows, of numbers x_row and y_row in their batches.
template <class T>
SCAV_DEVICE T squared_difference(const Costs<T>& costs, int64_t x_row, int64_t y_row) {
  T sum = 0;
#pragma unroll 1
  for (int64_t k = 0; k < costs.x.dim; ++k) {
    const T difference = costs.x.template at<T>(x_row, k) - costs.y.template at<T>(y_row, k);
    sum += difference * difference;
  }
  return sum;
}

// The same of rows that are known to be of `Number`s.
template <class Number, class T>
SCAV_DEVICE T squared_difference(const Costs<T>& costs, int64_t x_row, int64_t y_row) {
  const Number* x = static_cast<const Number*>(costs.x.data) + x_row * costs.x.dim;
  const Number* y = static_cast<const Number*>(costs.y.data) + y_row * costs.x.dim;
  T sum = 0;
#pragma unroll 1
  for (int64_t k = 0; k < costs.x.dim; ++k) {
    const T difference = static_cast<T>(x[k]) - static_cast<T>(y[k]);
    sum += difference * difference;
  }
  return sum;
}

// Euclidean costs, or their squares, of K cells of a column from `product(k)` of rows of squared norms `x_norm(k)` and
// y_norm; near ones, which are rare, from `squared(k)` of the rows' difference. Products may come from where costs go:
// `again(k)` reads one once more. `Root::of` is a square root.
template <class Root, int K, class T, class Norm, class Product, class Again, class Squared>
SCAV_DEVICE void costs_of_products(CellKind kind, T (&cost)[K], const Norm& x_norm, T y_norm, const Product& product,
                                   const Again& again, const Squared& squared) {
  bool near = false;
#pragma unroll
  for (int k = 0; k < K; ++k) {
    const T sum = x_norm(k) + y_norm, square = sum - T(2) * product(k);
    near |= square < kNear<T> * sum;
    cost[k] = kind == CellKind::euclidean ? Root::of(square) : square;
  }
  if (near) {
    // One loop, to be small.
#pragma unroll 1
    for (int row = 0; row < K; ++row) {
      const T sum = x_norm(row) + y_norm;
      if (sum - T(2) * again(row) < kNear<T> * sum) {
        const T square = squared(row), value = kind == CellKind::euclidean ? Root::of(square) : square;
#pragma unroll
        for (int k = 0; k < K; ++k) {
          cost[k] = k == row ? value : cost[k];
        }
      }
    }
  }
}

template <class T>
struct Pair {
  const Costs<T>& costs;
  int64_t i, j, x, y, result;  // number in the tile, in the batch, of the result
  int n, m;
  const T* cells;
  const T *x_norms, *y_norms;

  SCAV_DEVICE Pair(const Costs<T>& tile, int64_t p) : costs(tile) {
    const int64_t q = tile.first + p;
    i = q / tile.columns;
    j = q % tile.columns;
    x = tile.first_x + i;
    y = tile.paired ? x : tile.first_y + j;
    result = tile.paired ? x : x * tile.batch_y + y;
    n = static_cast<int>(tile.x_lengths ? tile.x_lengths[x] : tile.steps_x);
    m = static_cast<int>(tile.y_lengths ? tile.y_lengths[y] : tile.steps_y);
    cells = tile.cells + i * tile.stride.i + j * tile.stride.j;
    x_norms = tile.x_norms ? tile.x_norms + x * tile.steps_x : nullptr;
    y_norms = tile.y_norms ? tile.y_norms + y * tile.steps_y : nullptr;
  }

  SCAV_DEVICE bool is_nonfinite() const {
    return costs.nonfinite ? costs.nonfinite[result] != 0 : costs.x_nonfinite[x] + costs.y_nonfinite[y] != 0;
  }

  SCAV_DEVICE T cost(int s, int t) const {
    T one[1];
    column<1>(s, t, one);
    return one[0];
  }

  // Costs of rows s0 to s0 + K of column t; rows past the pair's end cost nothing, and nothing reads what follows.
  template <int K>
  SCAV_DEVICE void column(int s0, int t, T (&cost)[K]) const {
    const T* at = cells + s0 * costs.stride.s + t * costs.stride.t;
#pragma unroll
    for (int k = 0; k < K; ++k) {
      cost[k] = s0 + k < n ? at[k * costs.stride.s] : T(0);
    }
    if (costs.kind == CellKind::given) {
#pragma unroll
      for (int k = 0; k < K; ++k) {
        cost[k] = min(cost[k], kUnreachable<T>);
      }
    } else if (costs.kind == CellKind::cosine) {
#pragma unroll
      for (int k = 0; k < K; ++k) {
        cost[k] = T(1) - cost[k];
      }
    } else {
      costs_of_products<ExactRoot>(
          costs.kind, cost, [&](int k) { return s0 + k < n ? x_norms[s0 + k] : T(0); }, y_norms[t],
          [&](int k) { return cost[k]; },
          [&](int k) { return s0 + k < n ? cells[(s0 + k) * costs.stride.s + t * costs.stride.t] : T(0); },
          [&](int k) { return squared_difference(costs, x * costs.steps_x + s0 + k, y * costs.steps_y + t); });
    }
  }

  // Writes what e = d out / d cost of rows s0 to s0 + K of column t means for the rows.
  template <int K>
  SCAV_DEVICE void put(const Weights<T>& to, int s0, int t, const T (&e)[K]) const {
    const int64_t at = i * to.stride.i + j * to.stride.j + s0 * to.stride.s + t * to.stride.t;
    if (costs.kind == CellKind::given || costs.kind == CellKind::cosine) {
#pragma unroll
      for (int k = 0; k < K; ++k) {
        if (s0 + k < n) {
          store(to, at + k * to.stride.s, e[k]);
        }
      }
      return;
    }
    const T* from = cells + s0 * costs.stride.s + t * costs.stride.t;
    const T y_norm = y_norms[t];
    bool near = false;
#pragma unroll
    for (int k = 0; k < K; ++k) {
      if (s0 + k < n) {
        const T sum = x_norms[s0 + k] + y_norm, square = sum - T(2) * from[k * costs.stride.s];
        near |= square < kNear<T> * sum;
        store(to, at + k * to.stride.s, factor(e[k], costs.kind == CellKind::euclidean ? root(square) : square));
      }
    }
    if (near) {
      for_each_near<K>(s0, t, [&](int row, int s, T distance) {
        T weight = 0;
#pragma unroll
        for (int k = 0; k < K; ++k) {
          weight = k == row ? e[k] : weight;
        }
        to.near_x[i * costs.steps_x + s] = 1;
        to.near_y[(costs.paired ? i : j) * costs.steps_y + t] = 1;
        store(to, at + row * to.stride.s, factor(weight, distance));
      });
    }
  }

 private:
  // Factor of x - y in the gradient, from e = d out / d cost; zero where the distance is zero.
  SCAV_DEVICE T factor(T e, T cost) const {
    return costs.kind == CellKind::sqeuclidean ? T(2) * e : (cost > T(0) ? e / cost : T(0));
  }

  SCAV_DEVICE static void store(const Weights<T>& to, int64_t at, T factor) {
    if (to.bfloat16) {
      static_cast<torch::headeronly::BFloat16*>(to.cells)[at] = static_cast<float>(factor);
    } else {
      static_cast<T*>(to.cells)[at] = factor;
    }
  }

  // f(row, s0 + row, cost) for the near cells of a column: rare, and one loop, to be small.
  template <int K, class F>
  SCAV_DEVICE void for_each_near(int s0, int t, const F& f) const {
#pragma unroll 1
    for (int row = 0; row < K && s0 + row < n; ++row) {
      const int s = s0 + row;
      const T sum = x_norms[s] + y_norms[t], square = sum - T(2) * cells[s * costs.stride.s + t * costs.stride.t];
      if (square < kNear<T> * sum) {
        const T direct = squared_difference(costs, x * costs.steps_x + s, y * costs.steps_y + t);
        f(row, s, costs.kind == CellKind::euclidean ? root(direct) : direct);
      }
    }
  }
};

#endif

}  // namespace scav::device
