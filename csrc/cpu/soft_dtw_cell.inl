// Soft-DTW: r[s, t] = c[s, t] + softmin(r[s-1, t-1], r[s-1, t], r[s, t-1]), softmin(a) = -gamma log sum exp(-a /
// gamma). Included once per SIMD level or device: no include guard.

namespace scav::SCAV_LEVEL {

template <class T>
struct SoftDtw {
  T gamma, inverse_gamma;

  explicit SoftDtw(double smoothing) : gamma(static_cast<T>(smoothing)), inverse_gamma(static_cast<T>(1 / smoothing)) {}

  // The smallest of the three stands for itself; only the other two cost an exponential.
  template <int W>
  SCAV_INLINE Vec<T, W> cell(Vec<T, W> cost, Vec<T, W> diagonal, Vec<T, W> up, Vec<T, W> left) const {
    const Vec<T, W> low = vmin(diagonal, up), high = vmax(diagonal, up);
    const Vec<T, W> least = vmin(low, left), most = vmax(high, left), middle = vmax(low, vmin(high, left));
    const Vec<T, W> sum = vexp<T, W>((least - middle) * inverse_gamma) + vexp<T, W>((least - most) * inverse_gamma);
    return cost + (least - gamma * vlog<T, W>(T(1) + sum));
  }

  // The same, with the weights of the diagonal and of s - 1 in the softmin. The weight of t - 1 is what they leave of
  // 1, so that the adjoint neither loses nor gains: rebuilt from differences of r it would drift.
  template <int W>
  SCAV_INLINE Vec<T, W> cell(Vec<T, W> cost, Vec<T, W> diagonal, Vec<T, W> up, Vec<T, W> left, T* diagonal_weight,
                             T* up_weight) const {
    const Vec<T, W> least = vmin(vmin(diagonal, up), left);
    const Vec<T, W> d = vexp<T, W>((least - diagonal) * inverse_gamma);
    const Vec<T, W> u = vexp<T, W>((least - up) * inverse_gamma);
    const Vec<T, W> sum = d + u + vexp<T, W>((least - left) * inverse_gamma);
    const Vec<T, W> scale = T(1) / sum;
    store<T, W>(diagonal_weight, d * scale);
    store<T, W>(up_weight, u * scale);
    return cost + (least - gamma * vlog<T, W>(sum));
  }
};

}  // namespace scav::SCAV_LEVEL
