// Summaries that bounds of a search compare, on the CPU at one SIMD level (foreach_level.h): no include guard.

#include "cpu/simd.inl"
#include "cpu/gemm.inl"
#include "cpu/squares.inl"
#include "cpu/interpolation.inl"
#include "cpu/stored.inl"

namespace scav::SCAV_LEVEL {

// Resamples sequences to `target` steps and writes the mean of each segment, times the segment's fraction of the steps
// or, where `squared`, times the root of the fraction -> out (count, segments, dim). Segment s begins at step s *
// target / segments.
template <class T>
void segment_means(const Selection<T>& from, int64_t target, int64_t segments, bool squared, T* out) {
  const int64_t dim = from.rows.dim, parts = std::min(thread_count(), from.count);
  run_parts(parts, [&](int64_t part) {
    std::vector<T> left(dim), right(dim), scratch(dim);
    for (int64_t i = from.count * part / parts; i < from.count * (part + 1) / parts; ++i) {
      const int64_t b = from.places[i], length = from.rows.lengths[b];
      poll(target * dim);
      for (int64_t s = 0; s < segments; ++s) {
        const int64_t begin = target * s / segments, end = target * (s + 1) / segments;
        T* mean = out + (i * segments + s) * dim;
        std::fill_n(mean, dim, T(0));
        for (int64_t t = begin; t < end; ++t) {
          const T* row = resampled_row(from.rows, b, interpolation_at(t, length, target), left.data(), right.data(),
                                       scratch.data());
          for (int64_t k = 0; k < dim; ++k) {
            mean[k] += row[k];
          }
        }
        const double steps = static_cast<double>(end - begin), fraction = steps / static_cast<double>(target);
        const T scale = static_cast<T>((squared ? std::sqrt(fraction) : fraction) / steps);
        for (int64_t k = 0; k < dim; ++k) {
          mean[k] *= scale;
        }
      }
    }
  });
}

// Writes the largest norm of each sequence's steps -> out (batch,); inf where one is not finite.
template <class T>
void largest_norms(const StoredRows<T>& from, int64_t batch, T* out) {
  const int64_t dim = from.dim, parts = std::min(thread_count(), batch);
  run_parts(parts, [&](int64_t part) {
    std::vector<T> scratch(dim);
    for (int64_t b = batch * part / parts; b < batch * (part + 1) / parts; ++b) {
      T largest = 0;
      poll(from.lengths[b] * dim);
      for (int64_t s = 0; s < from.lengths[b]; ++s) {
        const T* row = stored_row(from, b, s, scratch.data());
        const T square = sum_of_squares<T, false>(row, nullptr, dim);
        // Neither NaN nor inf is at most a finite number.
        largest =
            square <= std::numeric_limits<T>::max() ? std::max(largest, square) : std::numeric_limits<T>::infinity();
      }
      out[b] = std::sqrt(largest);
    }
  });
}

}  // namespace scav::SCAV_LEVEL
