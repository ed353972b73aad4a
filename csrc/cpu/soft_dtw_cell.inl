// One cell of soft-DTW.
// Included once per SIMD level (foreach_level.h): no include guard.

namespace scav::SCAV_LEVEL {

template <class T>
struct SoftDtw {
  T gamma, inverse_gamma;

  explicit SoftDtw(double smoothing) : gamma(static_cast<T>(smoothing)), inverse_gamma(static_cast<T>(1 / smoothing)) {}

  // Only the larger two of the three cost an exponential.
  template <int W>
  SCAV_INLINE Vec<T, W> cell(Vec<T, W> cost, Vec<T, W> diagonal, Vec<T, W> up, Vec<T, W> left) const {
    const Vec<T, W> low = vmin(diagonal, up), high = vmax(diagonal, up);
    const Vec<T, W> smallest = vmin(low, left), largest = vmax(high, left), middle = vmax(low, vmin(high, left));
    const Vec<T, W> sum =
        vexp<T, W>((smallest - middle) * inverse_gamma) + vexp<T, W>((smallest - largest) * inverse_gamma);
    return cost + (smallest - gamma * vlog<T, W>(T(1) + sum));
  }

  // The same, which also stores the weights of the diagonal and of s - 1 in the softmin. The weight of t - 1 is what
  // they leave of 1, so that the adjoint neither loses nor gains: rebuilt from differences of r it would drift.
  template <int W>
  SCAV_INLINE Vec<T, W> cell(Vec<T, W> cost, Vec<T, W> diagonal, Vec<T, W> up, Vec<T, W> left, T* diagonal_weight,
                             T* up_weight) const {
    const Vec<T, W> smallest = vmin(vmin(diagonal, up), left);
    const Vec<T, W> d = vexp<T, W>((smallest - diagonal) * inverse_gamma);
    const Vec<T, W> u = vexp<T, W>((smallest - up) * inverse_gamma);
    const Vec<T, W> sum = d + u + vexp<T, W>((smallest - left) * inverse_gamma);
    const Vec<T, W> scale = T(1) / sum;
    store<T, W>(diagonal_weight, d * scale);
    store<T, W>(up_weight, u * scale);
    return cost + (smallest - gamma * vlog<T, W>(sum));
  }
};

// Limits sums where cells may be forbidden: infinities would become NaN in a softmin's differences.
template <class Pairs, class T, int W>
SCAV_INLINE Vec<T, W> within_reach(Vec<T, W> r) {
  if constexpr (Pairs::kForbids) {
    r = vmin(r, splat<T, W>(kUnreachable<T>));
  }
  return r;
}

}  // namespace scav::SCAV_LEVEL
