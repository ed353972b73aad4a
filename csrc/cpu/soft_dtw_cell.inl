// One cell of soft-DTW.
// Included once per SIMD level (foreach_level.h): no include guard.

namespace scav::SCAV_LEVEL {

template <class T>
struct SoftDtw {
  T gamma, inverse_gamma;
  OpenEnds open;

  explicit SoftDtw(const SoftDtwOptions& options)
      : gamma(static_cast<T>(options.gamma)), inverse_gamma(static_cast<T>(1 / options.gamma)), open(options.open) {}

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

// The softmin over `count` vectors of ends, `stride` apart, lane by lane. Ends that no path comes to are unreachable.
template <class T, int W>
struct EndSoftmin {
  Vec<T, W> smallest = splat<T, W>(kUnreachable<T>), sum{};

  EndSoftmin(const SoftDtw<T>& recurrence, const T* ends, int64_t count, int64_t stride) {
    for (int64_t i = 0; i < count; ++i) {
      smallest = vmin(smallest, load<T, W>(ends + i * stride));
    }
    for (int64_t i = 0; i < count; ++i) {
      sum += vexp<T, W>((smallest - load<T, W>(ends + i * stride)) * recurrence.inverse_gamma);
    }
  }

  // Makes one lane of all.
  EndSoftmin<T, 1> over_lanes(const SoftDtw<T>& recurrence) const {
    T all_sum = 0, all_smallest = smallest[0];
    for (int lane = 1; lane < W; ++lane) {
      all_smallest = std::min(all_smallest, smallest[lane]);
    }
    for (int lane = 0; lane < W; ++lane) {
      all_sum += sum[lane] * std::exp((all_smallest - smallest[lane]) * recurrence.inverse_gamma);
    }
    return {Vec<T, 1>{all_smallest}, Vec<T, 1>{all_sum}};
  }

  Vec<T, W> value(const SoftDtw<T>& recurrence) const {
    const Vec<T, W> r = smallest - recurrence.gamma * vlog<T, W>(sum);
    return smallest < kReached<T> ? r : splat<T, W>(std::numeric_limits<T>::infinity());
  }

  // Replaces the ends by their weights times `grads`.
  void to_weights(const SoftDtw<T>& recurrence, Vec<T, W> grads, T* ends, int64_t count, int64_t stride) const {
    const Vec<T, W> scale = smallest < kReached<T> ? grads / sum : Vec<T, W>{};
    for (int64_t i = 0; i < count; ++i) {
      const Vec<T, W> weight = vexp<T, W>((smallest - load<T, W>(ends + i * stride)) * recurrence.inverse_gamma);
      store<T, W>(ends + i * stride, weight * scale);
    }
  }

  EndSoftmin(Vec<T, W> least, Vec<T, W> total) : smallest(least), sum(total) {}
};

}  // namespace scav::SCAV_LEVEL
