// Interpolated Euclidean of pairs of their own, x number i against y number i.
// Included once per SIMD level (foreach_level.h): no include guard.

namespace scav::SCAV_LEVEL {

// |left + weight (right - left) - y|^2; `right` is read where `between` alone.
template <class T, bool between>
T squared_distance(const T* left, const T* right, T weight, const T* y, int64_t dim) {
  constexpr int w = kWidth<T>, chains = 4;  // of additions, each of which waits for itself
  const auto add = [&]<int W>(std::integral_constant<int, W>, int64_t k, Vec<T, W>& sum) {
    Vec<T, W> x = load<T, W>(left + k);
    if constexpr (between) {
      x += weight * (load<T, W>(right + k) - x);
    }
    const Vec<T, W> difference = x - load<T, W>(y + k);
    sum += difference * difference;
  };
  constexpr std::integral_constant<int, w> vector;
  Vec<T, w> sums[chains] = {};
  int64_t k = 0;
  for (; k + chains * w <= dim; k += chains * w) {
    for (int j = 0; j < chains; ++j) {
      add(vector, k + j * w, sums[j]);
    }
  }
  for (; k + w <= dim; k += w) {
    add(vector, k, sums[0]);
  }
  Vec<T, 1> rest{};
  for (; k < dim; ++k) {
    add(std::integral_constant<int, 1>{}, k, rest);
  }
  return horizontal_sum<T, w>((sums[0] + sums[1]) + (sums[2] + sums[3])) + rest[0];
}

// Which sequences are nonfinite, for the forward to write.
template <class T>
struct ResamplingNonfinite {
  T *source, *target;
};

// Mean over the steps of target `b` of its distances from source `b`. Writes whether they are nonfinite, which brings
// their rows into cache.
template <class T>
__attribute__((noinline)) T resampled_distance(const Resampling<T>& direction, int64_t b,
                                               const ResamplingNonfinite<T>& nonfinite) {
  const Sequences<T>&source = direction.source, &target = direction.target;
  measure<T>(source.row(b, 0), source.lengths + b, 1, source.steps, source.dim, nullptr, nonfinite.source + b);
  measure<T>(target.row(b, 0), target.lengths + b, 1, target.steps, target.dim, nullptr, nonfinite.target + b);
  if (nonfinite.source[b] + nonfinite.target[b] != 0) {
    return 0;  // spread_nonfinite() sets it
  }
  const int64_t n = source.lengths[b], m = target.lengths[b];
  T sum = 0;
  for (int64_t t = 0; t < m; ++t) {
    const Interpolation at = interpolation_at(t, n, m);
    const T *left = source.row(b, at.left), *right = source.row(b, at.right), *y = target.row(b, t);
    const T weight = static_cast<T>(at.weight);
    const T square = at.left == at.right ? squared_distance<T, false>(left, right, weight, y, source.dim)
                                         : squared_distance<T, true>(left, right, weight, y, source.dim);
    sum += direction.squared ? square : std::sqrt(square);
  }
  return sum / static_cast<T>(m);
}

// All pairs of their own that the direction takes. Forward where `grads` is null: writes `out` and `nonfinite`. Else
// backward: adds to the gradients.
template <class T>
void resampling_pairs(const Resampling<T>& direction, const ResamplingNonfinite<T>& nonfinite, T* out,
                      const ResamplingGrads<T>* grads) {
  const int64_t batch = direction.source.batch, parts = std::min(thread_count(), batch);
  run_parts(parts, [&](int64_t part) {
    DirectCells<T> cells(direction, grads != nullptr);
    for (int64_t i = batch * part / parts; i < batch * (part + 1) / parts; ++i) {
      const int64_t m = direction.target.lengths[i];
      if (!direction.takes_pair(direction.source.lengths[i], m)) {
        continue;
      }
      poll(m * direction.source.dim);
      if (grads) {
        cells.add_gradients(&i, 1, &i, 1, m, 0, m, *grads, [&](int64_t, int64_t row) {
          return grads->source + (i * direction.source.steps + row) * direction.source.dim;
        });
      } else {
        out[i] = resampled_distance(direction, i, nonfinite);
      }
    }
  });
}

}  // namespace scav::SCAV_LEVEL
