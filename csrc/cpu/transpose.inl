// Transposition of small matrices, a square of vectors at a time.
// Included once per SIMD level (foreach_level.h): no include guard.

namespace scav::SCAV_LEVEL {

// Lanes of `a` and `b` exchanged so that those with bit `Stride` of their index set come from one half of a pair of
// rows.
template <int Stride, bool upper, class V, int... Lane>
SCAV_INLINE V exchange(V a, V b, std::integer_sequence<int, Lane...>) {
  constexpr int w = sizeof...(Lane);
  if constexpr (upper) {
    return __builtin_shufflevector(a, b, ((Lane & Stride) ? w + Lane : Lane + Stride)...);
  } else {
    return __builtin_shufflevector(a, b, ((Lane & Stride) ? w + Lane - Stride : Lane)...);
  }
}

template <int Stride, class V, int W>
SCAV_INLINE void transpose_stages(V (&rows)[W]) {
  if constexpr (Stride < W) {
    for (int i = 0; i < W; ++i) {
      if ((i & Stride) == 0) {
        const V a = rows[i], b = rows[i + Stride];
        rows[i] = exchange<Stride, false>(a, b, std::make_integer_sequence<int, W>{});
        rows[i + Stride] = exchange<Stride, true>(a, b, std::make_integer_sequence<int, W>{});
      }
    }
    transpose_stages<Stride * 2>(rows);
  }
}

// Lane l of the result is the sum of row l.
template <int Stride, class V, int Rows>
SCAV_INLINE V add_across(const V (&rows)[Rows]) {
  if constexpr (Rows == 1) {
    return rows[0];
  } else {
    constexpr auto lanes = std::make_integer_sequence<int, sizeof(V) / sizeof(rows[0][0])>{};
    V sums[Rows / 2];
    for (int i = 0; i < Rows / 2; ++i) {
      const V a = rows[i], b = rows[i + Rows / 2];
      sums[i] = exchange<Stride, false>(a, b, lanes) + exchange<Stride, true>(a, b, lanes);
    }
    return add_across<Stride / 2>(sums);
  }
}

// The sums of R vectors of W lanes each, R <= W: a transposition that adds as it goes.
template <class T, int W, int R>
SCAV_INLINE Vec<T, R> horizontal_sums(const Vec<T, W> (&rows)[R]) {
  if constexpr (R < W) {
    Vec<T, W / 2> halves[R];
    for (int r = 0; r < R; ++r) {
      Vec<T, W / 2> parts[2];
      std::memcpy(parts, &rows[r], sizeof parts);
      halves[r] = parts[0] + parts[1];
    }
    return horizontal_sums<T, W / 2, R>(halves);
  } else {
    return add_across<R / 2>(rows);
  }
}

// to(k)[i] = from(i)[k] for 0 <= i < n, 0 <= k < m; `from` and `to` give the first element of a row.
template <class T, class From, class To>
void transpose(int64_t n, int64_t m, const From& from, const To& to) {
  constexpr int w = kWidth<T>;
  int64_t i = 0;
  for (; i + w <= n; i += w) {
    int64_t k = 0;
    for (; k + w <= m; k += w) {
      Vec<T, w> rows[w];
      for (int r = 0; r < w; ++r) {
        rows[r] = load<T, w>(from(i + r) + k);
      }
      transpose_stages<1>(rows);
      for (int r = 0; r < w; ++r) {
        store<T, w>(to(k + r) + i, rows[r]);
      }
    }
    for (; k < m; ++k) {
      for (int r = 0; r < w; ++r) {
        to(k)[i + r] = from(i + r)[k];
      }
    }
  }
  for (int64_t k = 0; k < m; ++k) {
    for (int64_t r = i; r < n; ++r) {
      to(k)[r] = from(r)[k];
    }
  }
}

}  // namespace scav::SCAV_LEVEL
