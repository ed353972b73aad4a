// Squared distances of rows: of one pair from the difference, of many pairs from products.
// Included once per SIMD level (foreach_level.h): no include guard.

namespace scav::SCAV_LEVEL {

// sum_k (a - b)^2, or sum_k a^2
template <class T, bool difference>
T sum_of_squares(const T* a, const T* b, int64_t dim) {
  constexpr int w = kWidth<T>;
  Vec<T, w> partial[2] = {};
  int64_t k = 0;
  for (; k + 2 * w <= dim; k += 2 * w) {
    for (int j = 0; j < 2; ++j) {
      Vec<T, w> step = load<T, w>(a + k + j * w);
      if constexpr (difference) {
        step -= load<T, w>(b + k + j * w);
      }
      partial[j] += step * step;
    }
  }
  T sum = horizontal_sum<T, w>(partial[0] + partial[1]);
  for (; k < dim; ++k) {
    const T step = difference ? a[k] - b[k] : a[k];
    sum += step * step;
  }
  return sum;
}

// In place, products <row, column> of a row and `width` columns, whose squared norms are given, to squared distances;
// near ones are redo(j), of the first `count` columns.
template <class T, class Redo>
void squares_of_products(T row_norm, const T* column_norms, int64_t width, int64_t count, T* cells, const Redo& redo) {
  constexpr int w = kWidth<T>;
  Vec<T, w> slack{};
  for (int64_t j = 0; j < width; j += w) {
    const Vec<T, w> sum = load<T, w>(column_norms + j) + row_norm;
    const Vec<T, w> square = sum - T(2) * load<T, w>(cells + j);
    slack = vmin(slack, square - kNear<T> * sum);
    store<T, w>(cells + j, square);
  }
  if (any_negative<T, w>(slack)) {
    for (int64_t j = 0; j < count; ++j) {
      if (!(cells[j] >= kNear<T> * (column_norms[j] + row_norm))) {
        cells[j] = redo(j);
      }
    }
  }
}

}  // namespace scav::SCAV_LEVEL
