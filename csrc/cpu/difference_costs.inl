// Ground costs of few features, from the differences of the rows: a pair's cells are computed in registers, inside the
// recursion that reads them. Included once per SIMD level (foreach_level.h): no include guard.

namespace scav::SCAV_LEVEL {

// Steps of y that one pass over the rows of x computes: the state is loaded and stored once for them.
inline constexpr int kPassSteps = 4;

// Costs of R rows of x (R, dim) against `width` columns (dim, width), to rows of `out`.
template <class T, int R>
SCAV_INLINE void difference_cells(const T* x, const T* columns, int64_t dim, int64_t width, bool root, T* out,
                                  int64_t stride) {
  constexpr int w = kWidth<T>;
  for (int64_t j = 0; j < width; j += w) {
    Vec<T, w> squares[R] = {};
    for (int64_t k = 0; k < dim; ++k) {
      const Vec<T, w> feature = load<T, w>(columns + k * width + j);
      for (int r = 0; r < R; ++r) {
        const Vec<T, w> difference = x[r * dim + k] - feature;
        squares[r] += difference * difference;
      }
    }
    for (int r = 0; r < R; ++r) {
      store<T, w>(out + r * stride + j, root ? vsqrt<T, w>(squares[r]) : squares[r]);
    }
  }
}

template <class T>
void difference_cells(const T* x, const T* columns, int64_t rows, int64_t dim, int64_t width, bool root, T* out,
                      int64_t stride) {
  constexpr int R = 4;
  int64_t s = 0;
  for (; s + R <= rows; s += R) {
    difference_cells<T, R>(x + s * dim, columns, dim, width, root, out + s * stride, stride);
  }
  for (; s < rows; ++s) {
    difference_cells<T, 1>(x + s * dim, columns, dim, width, root, out + s * stride, stride);
  }
}

// Adds the gradients of x (rows, dim) and of the columns to `dx` (rows, dim) and `dy` (width, dim), or null, from
// `weights` = d out / d cost, which is overwritten.
template <class T>
void difference_adjoint(const T* x, const T* columns, int64_t rows, int64_t dim, int64_t width, bool root,
                        const T* costs, T* weights, int64_t stride, T* dx, T* dy) {
  constexpr int w = kWidth<T>;
  for (int64_t s = 0; s < rows; ++s) {
    for (int64_t j = 0; j < width; j += w) {
      const Vec<T, w> c = load<T, w>(costs + s * stride + j), weight = load<T, w>(weights + s * stride + j);
      store<T, w>(weights + s * stride + j, root ? (c > T(0) ? weight / c : Vec<T, w>{}) : T(2) * weight);
    }
  }
  const Buffer<T> sums(rows * w);  // of the row's pulls
  for (int64_t k = 0; k < dim; ++k) {
    std::fill_n(sums.data(), rows * w, T(0));
    for (int64_t j = 0; j < width; j += w) {
      const Vec<T, w> feature = load<T, w>(columns + k * width + j);
      Vec<T, w> sum{};
      for (int64_t s = 0; s < rows; ++s) {
        const Vec<T, w> pull = load<T, w>(weights + s * stride + j) * (x[s * dim + k] - feature);
        store<T, w>(sums.data() + s * w, load<T, w>(sums.data() + s * w) + pull);
        sum += pull;
      }
      for (int lane = 0; lane < w && dy != nullptr; ++lane) {
        dy[(j + lane) * dim + k] -= sum[lane];
      }
    }
    for (int64_t s = 0; s < rows && dx != nullptr; ++s) {
      dx[s * dim + k] += horizontal_sum<T, w>(load<T, w>(sums.data() + s * w));
    }
  }
}

// Numbers to multiply by where the compiler is not to see that they are 1: a multiply-add that adds uses other ports
// than an addition, of which the minima leave none.
template <class T>
inline const volatile T kHiddenOne{1};

// A cost from differences: `features` is 1, or 0 where their number is known only at run time.
template <Cost cost, int features>
struct DifferenceCost {
  static constexpr Cost kCost = cost;
  static constexpr int kFeatures = features;
  // Most x's of a recursion. Roots are slow enough to hide the latency of two.
  static constexpr int kVectors = SCAV_VECTOR_BYTES < 64 || (cost == Cost::euclidean && features != 1) ? 2 : 4;
};

// Calls f(DifferenceCost) for a cost of `dim` features.
template <class F>
auto with_difference_cost(Cost cost, int64_t dim, const F& f) {
  if (cost == Cost::cosine) {
    return f(DifferenceCost<Cost::cosine, 0>{});
  }
  if (cost == Cost::euclidean) {
    return dim == 1 ? f(DifferenceCost<Cost::euclidean, 1>{}) : f(DifferenceCost<Cost::euclidean, 0>{});
  }
  return dim == 1 ? f(DifferenceCost<Cost::sqeuclidean, 1>{}) : f(DifferenceCost<Cost::sqeuclidean, 0>{});
}

// Rows of V x's and kPassSteps steps of W y's. Lanes share the row of an x, or have one each.
template <class T, int W, int V, bool shared, class Kind>
struct DifferenceTile {
  static constexpr int K = kPassSteps;
  const T* const* x;  // V of (rows, dim), or one of (rows, dim, W)
  const T* y;         // (K, dim, W)
  int64_t dim;
  T one;

  // Costs of row s.
  SCAV_INLINE void costs(int64_t s, Vec<T, W> (&out)[V][K]) const {
    constexpr bool fused = SCAV_VECTOR_BYTES > 16;  // whether the level has multiply-adds
    if constexpr (Kind::kFeatures == 1) {
      for (int v = 0; v < V; ++v) {
        const Vec<T, W> row = feature(v, s, 0);
        for (int j = 0; j < K; ++j) {
          const Vec<T, W> step = load<T, W>(y + j * W);
          const Vec<T, W> difference = fused ? row * one - step : row - step;
          out[v][j] = Kind::kCost == Cost::euclidean ? magnitude(difference) : difference * difference;
        }
      }
    } else {
      for (int v = 0; v < V; ++v) {
        for (int j = 0; j < K; ++j) {
          out[v][j] = Kind::kCost == Cost::cosine ? splat<T, W>(T(1)) : Vec<T, W>{};
        }
      }
      for (int64_t k = 0; k < dim; ++k) {
        Vec<T, W> step[K];
        for (int j = 0; j < K; ++j) {
          step[j] = load<T, W>(y + (j * dim + k) * W);
        }
        for (int v = 0; v < V; ++v) {
          const Vec<T, W> row = feature(v, s, k);
          for (int j = 0; j < K; ++j) {
            const Vec<T, W> difference = row - step[j];
            out[v][j] = Kind::kCost == Cost::cosine ? out[v][j] - row * step[j] : out[v][j] + difference * difference;
          }
        }
      }
    }
    if constexpr (Kind::kCost == Cost::euclidean && Kind::kFeatures != 1) {
      for (int v = 0; v < V; ++v) {
        for (int j = 0; j < K; ++j) {
          out[v][j] = vsqrt<T, W>(out[v][j]);
        }
      }
    }
    // The factor makes the sum with what follows a multiply-add.
    if constexpr (fused && (Kind::kCost == Cost::euclidean || Kind::kFeatures != 1)) {
      for (int v = 0; v < V; ++v) {
        for (int j = 0; j < K; ++j) {
          out[v][j] *= one;
        }
      }
    }
  }

 private:
  SCAV_INLINE Vec<T, W> feature(int v, int64_t s, int64_t k) const {
    const int64_t at = Kind::kFeatures == 1 ? s : s * dim + k;
    if constexpr (shared) {
      return splat<T, W>(x[v][at]);
    } else {
      return load<T, W>(x[v] + at * W);
    }
  }
  static SCAV_INLINE Vec<T, W> magnitude(Vec<T, W> value) {
    return bits_as<Vec<T, W>>(bits_as<Vec<BitsOf<T>, W>>(value) & (~BitsOf<T>(0) >> 1));
  }
};

}  // namespace scav::SCAV_LEVEL
