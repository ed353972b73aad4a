// C (m, n) = A (m, k) B (k, n), row-major, for operands that fit in cache.
// Included once per SIMD level (foreach_level.h): no include guard.

namespace scav::SCAV_LEVEL {

// One tile of registers: `Rows` rows by `Vectors` vectors of C, accumulated over all of k.
template <class T, int W, int Rows, int Vectors>
void gemm_tile(int64_t k, int64_t stride_a, int64_t stride_b, int64_t stride_c, bool accumulate, const T* a, const T* b,
               T* c) {
  Vec<T, W> sum[Rows][Vectors];
  for (int i = 0; i < Rows; ++i) {
    for (int j = 0; j < Vectors; ++j) {
      sum[i][j] = accumulate ? load<T, W>(c + i * stride_c + j * W) : Vec<T, W>{};
    }
  }
  for (int64_t step = 0; step < k; ++step) {
    Vec<T, W> columns[Vectors];
    for (int j = 0; j < Vectors; ++j) {
      columns[j] = load<T, W>(b + step * stride_b + j * W);
    }
    for (int i = 0; i < Rows; ++i) {
      for (int j = 0; j < Vectors; ++j) {
        sum[i][j] += a[i * stride_a + step] * columns[j];
      }
    }
  }
  for (int i = 0; i < Rows; ++i) {
    for (int j = 0; j < Vectors; ++j) {
      store<T, W>(c + i * stride_c + j * W, sum[i][j]);
    }
  }
}

// All m rows of one panel of W * Vectors columns.
template <class T, int W, int Vectors>
void gemm_panel(int64_t m, int64_t k, int64_t stride_a, int64_t stride_b, int64_t stride_c, bool accumulate, const T* a,
                const T* b, T* c) {
  // The tile's sums, one row of the panel of B and a broadcast fill the registers: 32 with AVX-512, 16 below.
  constexpr int rows = (SCAV_VECTOR_BYTES == 64 ? 24 : 8) / Vectors;
  int64_t i = 0;
  for (; i + rows <= m; i += rows) {
    gemm_tile<T, W, rows, Vectors>(k, stride_a, stride_b, stride_c, accumulate, a + i * stride_a, b, c + i * stride_c);
  }
  for (; i < m; ++i) {
    gemm_tile<T, W, 1, Vectors>(k, stride_a, stride_b, stride_c, accumulate, a + i * stride_a, b, c + i * stride_c);
  }
}

template <class T>
void gemm(int64_t m, int64_t n, int64_t k, int64_t stride_a, int64_t stride_b, int64_t stride_c, bool accumulate,
          const T* a, const T* b, T* c) {
  if (m == 0 || n == 0) {
    return;
  }
  if constexpr (std::is_same_v<T, float>) {
    if (has_library_gemm() && k > 0) {
      library_gemm(m, n, k, stride_a, stride_b, stride_c, accumulate, a, b, c);
      return;
    }
  }
  constexpr int w = kWidth<T>;
  int64_t j = 0;
  for (; j + 2 * w <= n; j += 2 * w) {
    gemm_panel<T, w, 2>(m, k, stride_a, stride_b, stride_c, accumulate, a, b + j, c + j);
  }
  for (; j + w <= n; j += w) {
    gemm_panel<T, w, 1>(m, k, stride_a, stride_b, stride_c, accumulate, a, b + j, c + j);
  }
  for (; j < n; ++j) {
    gemm_panel<T, 1, 1>(m, k, stride_a, stride_b, stride_c, accumulate, a, b + j, c + j);
  }
}

}  // namespace scav::SCAV_LEVEL
