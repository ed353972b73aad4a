// How a recursion holds r, the smallest sum or the softmin of sums up to a cell, lane by lane.
// Included once per SIMD level (foreach_level.h): no include guard.

namespace scav::SCAV_LEVEL {

// As the number that it is.
template <class T, int W>
struct PlainValues {
  using Scalar = T;
  using Value = Vec<T, W>;
  using Lane = T;
  static constexpr int kLanes = W;
  static constexpr int kParts = 1;  // vectors of a value

  static SCAV_INLINE Value zero() { return Value{}; }
  static SCAV_INLINE Value unreachable() { return splat<T, W>(kUnreachable<T>); }
  template <class Mask>
  static SCAV_INLINE Value reachable_where(Mask inside, Value value) {
    return inside ? value : unreachable();
  }
  static SCAV_INLINE Vec<T, W>& part(Value& value, int) { return value; }
  static Lane lane(const Value& value, int64_t at) { return value[at]; }
};

// exp(-r / gamma) as (1 + excess) * 2^exponent: a softmin is a sum of such numbers, without exponentials or logarithms,
// and no r is too large for them. Exponents are whole numbers, excesses are in [-1/4, 1): near 1, where r is far below
// gamma, the excess has the digits that 1 + excess would lose.
template <class T, int W>
struct Scaled {
  Vec<T, W> excess, exponent;
};

template <class T, int W>
struct ScaledValues {
  using Scalar = T;
  using Value = Scaled<T, W>;
  using Lane = Scaled<T, 1>;
  static constexpr int kLanes = W;
  static constexpr int kParts = 2;

  static SCAV_INLINE Value power(T exponent) { return {Vec<T, W>{}, splat<T, W>(exponent)}; }
  static SCAV_INLINE Value zero() { return power(0); }
  static SCAV_INLINE Value unreachable() { return power(-kUnreachable<T>); }
  template <class Mask>
  static SCAV_INLINE Value reachable_where(Mask inside, Value value) {
    // Elsewhere costs, and so excesses, may be anything.
    const Value elsewhere = unreachable();
    return {inside ? value.excess : elsewhere.excess, inside ? value.exponent : elsewhere.exponent};
  }
  static SCAV_INLINE Vec<T, W>& part(Value& value, int index) { return index == 0 ? value.excess : value.exponent; }
  static Lane lane(const Value& value, int64_t at) { return Lane{{value.excess[at]}, {value.exponent[at]}}; }
};

// The parts of a value lie one behind the other.
template <class Values>
SCAV_INLINE typename Values::Value load_value(const typename Values::Scalar* from) {
  constexpr int W = Values::kLanes;
  typename Values::Value value;
#pragma GCC unroll 2
  for (int p = 0; p < Values::kParts; ++p) {
    Values::part(value, p) = load<typename Values::Scalar, W>(from + p * W);
  }
  return value;
}

template <class Values>
SCAV_INLINE void store_value(typename Values::Scalar* to, typename Values::Value value) {
  constexpr int W = Values::kLanes;
#pragma GCC unroll 2
  for (int p = 0; p < Values::kParts; ++p) {
    store<typename Values::Scalar, W>(to + p * W, Values::part(value, p));
  }
}

// Fills a state of `count` vectors.
template <class Values>
void fill_unreachable(typename Values::Scalar* state, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    store_value<Values>(state + i * Values::kParts * Values::kLanes, Values::unreachable());
  }
}

}  // namespace scav::SCAV_LEVEL
