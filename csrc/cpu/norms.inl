// Squared norms of one sequence, at one SIMD level (foreach_level.h): no include guard.

#include "cpu/simd.inl"
#include "cpu/squares.inl"

namespace scav::SCAV_LEVEL {

// As measure() of norms.h, for a sequence of `length` valid steps.
template <class T>
void measure_sequence(const T* rows, int64_t length, int64_t dim, T* norms, T* nonfinite) {
  T total = 0;
  for (int64_t s = 0; norms != nullptr && s < length; ++s) {
    norms[s] = sum_of_squares<T, false>(rows + s * dim, nullptr, dim);
    total += norms[s];
  }
  if (norms == nullptr) {
    total = sum_of_squares<T, false>(rows, nullptr, length * dim);
  }
  *nonfinite = 0;
  // Only where the sum over all steps is not finite can that of a step be so.
  for (int64_t s = 0; !std::isfinite(total) && s < length; ++s) {
    const T sum = sum_of_squares<T, false>(rows + s * dim, nullptr, dim);
    if (!std::isfinite(sum) && !std::isnan(*nonfinite)) {
      *nonfinite = sum;
    }
  }
}

}  // namespace scav::SCAV_LEVEL
