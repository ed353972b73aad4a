// One cell of soft-DTW, on values exp(-r / gamma) (values.inl).
// Included once per SIMD level (foreach_level.h): no include guard.

namespace scav::SCAV_LEVEL {

template <class T>
struct SoftDtw {
  T gamma, inverse_gamma;
  T scale;  // from costs to exponents of two: log2 e / gamma
  T unit;   // from exponents to costs
  OpenEnds open;

  explicit SoftDtw(const SoftDtwOptions& options)
      : gamma(static_cast<T>(options.gamma)),
        inverse_gamma(static_cast<T>(1 / options.gamma)),
        scale(static_cast<T>(std::numbers::log2e / options.gamma)),
        // Of the rounded scale, so that costs come back as they went in.
        unit(static_cast<T>(1 / static_cast<double>(scale))),
        open(options.open) {}

  // `forbids`: costs of kReached and more forbid their cells, which are out of reach whatever gamma.
  template <int W, bool forbids>
  SCAV_INLINE Scaled<T, W> cell(Vec<T, W> cost, Scaled<T, W> diagonal, Scaled<T, W> up, Scaled<T, W> left) const {
    const Terms<W> terms(diagonal, up, left);
    return after<W, forbids>(cost, terms.excess, terms.exponent);
  }

  // The same, which also stores the weights of the diagonal and of s - 1 in the softmin. The weight of t - 1 is what
  // they leave of 1, so that the adjoint neither loses nor gains: rebuilt from differences of r it would drift.
  template <int W, bool forbids>
  SCAV_INLINE Scaled<T, W> cell(Vec<T, W> cost, Scaled<T, W> diagonal, Scaled<T, W> up, Scaled<T, W> left,
                                T* diagonal_weight, T* up_weight) const {
    const Terms<W> terms(diagonal, up, left);
    const Vec<T, W> inverse = T(1) / terms.sum;
    store<T, W>(diagonal_weight, terms.share(terms.diagonal, inverse));
    store<T, W>(up_weight, terms.share(terms.up, inverse));
    return after<W, forbids>(cost, terms.excess, terms.exponent);
  }

  // r, unreachable where no path comes to.
  template <int W>
  SCAV_INLINE Vec<T, W> distance(Scaled<T, W> value) const {
    const Vec<T, W> exponent = value.exponent + log_of_excess<W>(value.excess) * std::numbers::log2e_v<T>;
    return is_reached(value) ? -exponent * unit : splat<T, W>(kUnreachable<T>);
  }

  template <int W>
  static SCAV_INLINE auto is_reached(Scaled<T, W> value) {
    return value.exponent > -kReached<T>;
  }

  // A distance r, infinite where no path comes to.
  template <int W>
  static SCAV_INLINE Vec<T, W> reached_or_infinite(Vec<T, W> r) {
    return r < kReached<T> ? r : splat<T, W>(std::numeric_limits<T>::infinity());
  }

 private:
  // What a cell adds, over 2^exponent: the largest is at least 3/4.
  template <int W>
  struct Terms {
    Vec<T, W> exponent, diagonal, up, left, sum, excess;

    SCAV_INLINE Terms(Scaled<T, W> d, Scaled<T, W> u, Scaled<T, W> l)
        : exponent(vmax(vmax(d.exponent, u.exponent), l.exponent)),
          diagonal(term(d)),
          up(term(u)),
          left(term(l)),
          sum(diagonal + up + left) {
      // One that is the whole sum keeps the digits of its excess.
      excess = sum - T(1);
      excess = diagonal == sum ? d.excess : excess;
      excess = up == sum ? u.excess : excess;
      excess = left == sum ? l.excess : excess;
    }

    // Weight of a term. Exactly 1 if it is the whole sum: else the cell of t - 1 would get what is left.
    SCAV_INLINE Vec<T, W> share(Vec<T, W> of, Vec<T, W> inverse) const {
      return of == sum ? splat<T, W>(T(1)) : of * inverse;
    }

   private:
    SCAV_INLINE Vec<T, W> term(Scaled<T, W> of) const {
      return Powers<T, W>::scale(T(1) + of.excess, of.exponent - exponent);
    }
  };

  // (1 + excess) * 2^exponent * exp(-cost / gamma). Behind cells out of reach, all are out of reach.
  template <int W, bool forbids>
  SCAV_INLINE Scaled<T, W> after(Vec<T, W> cost, Vec<T, W> excess, Vec<T, W> exponent) const {
    const Vec<T, W> most = splat<T, W>(kUnreachable<T>);
    Vec<T, W> halvings = vmin(cost * scale, most);
    if constexpr (forbids) {
      halvings = cost < kReached<T> ? halvings : most;
    }
    const Vec<T, W> whole = Powers<T, W>::round(halvings);
    const Vec<T, W> factor = small_power_excess<T, W>(whole - halvings);
    const Vec<T, W> product = excess * factor + (excess + factor);  // beyond 1
    // 0 for products within [3/4, 3/2), whose excess stays as it is.
    const Vec<T, W> shift = Powers<T, W>::exponent(product * T(4.0 / 3) + T(4.0 / 3));
    const Vec<T, W> unit_of_shift = Powers<T, W>::scale(splat<T, W>(T(1)), -shift);
    return {product * unit_of_shift + (unit_of_shift - T(1)),
            vmax((exponent - whole) + shift, splat<T, W>(-kUnreachable<T>))};
  }

  // log(1 + excess), with the digits of a small excess.
  template <int W>
  static SCAV_INLINE Vec<T, W> log_of_excess(Vec<T, W> excess) {
    const Vec<T, W> sum = T(1) + excess, rounded = sum - T(1);
    return rounded == T(0) ? excess : vlog<T, W>(sum) * (excess / rounded);
  }
};

// A cell of a recursion over pairs (sweep.inl), or along the anti-diagonals of one (wavefront.inl), that keeps nothing.
template <class T, int W, bool forbids>
struct SoftDtwCell {
  using Value = Scaled<T, W>;
  SoftDtw<T> recurrence;

  SCAV_INLINE Value operator()(int64_t, int64_t, int, Vec<T, W> cost, Value diagonal, Value up, Value left) const {
    return recurrence.template cell<W, forbids>(cost, diagonal, up, left);
  }
  SCAV_INLINE Value operator()(int64_t, int, Vec<T, W> cost, Value diagonal, Value up, Value left) const {
    return recurrence.template cell<W, forbids>(cost, diagonal, up, left);
  }
};

// The cell, which also stores the weights of its softmin. Where costs forbid cells, it marks those that no path enters
// by -1 for the diagonal's.
template <bool forbids, class T, int W>
SCAV_INLINE Scaled<T, W> soft_dtw_recorded(const SoftDtw<T>& recurrence, Vec<T, W> cost, Scaled<T, W> diagonal,
                                           Scaled<T, W> up, Scaled<T, W> left, T* diagonal_weight, T* up_weight) {
  const Scaled<T, W> r = recurrence.template cell<W, forbids>(cost, diagonal, up, left, diagonal_weight, up_weight);
  if constexpr (forbids) {
    const Vec<T, W> weight = load<T, W>(diagonal_weight);
    store<T, W>(diagonal_weight, recurrence.is_reached(r) ? weight : splat<T, W>(T(-1)));
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
