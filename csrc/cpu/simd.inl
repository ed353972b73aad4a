// Vectors of the current SIMD level, and the few functions that the compiler's vector extension lacks.
// Included once per level (foreach_level.h): no include guard.

namespace scav::SCAV_LEVEL {

// Lanes of one register.
template <class T>
inline constexpr int kWidth = SCAV_VECTOR_BYTES / static_cast<int>(sizeof(T));

// W numbers, added, multiplied and compared lane by lane; W is a power of two of at most kWidth<T>.
template <class T, int W>
struct VecOf {
  typedef T type __attribute__((vector_size(W * sizeof(T))));
  typedef T unaligned __attribute__((vector_size(W * sizeof(T)), aligned(sizeof(T)), may_alias));
};
template <class T, int W>
using Vec = typename VecOf<T, W>::type;

template <class T>
using IntOf = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
template <class T>
using BitsOf = std::make_unsigned_t<IntOf<T>>;

#define SCAV_INLINE inline __attribute__((always_inline))

template <class T, int W>
SCAV_INLINE Vec<T, W> load(const T* from) {
  return *reinterpret_cast<const typename VecOf<T, W>::unaligned*>(from);
}

template <class T, int W>
SCAV_INLINE void store(T* to, Vec<T, W> value) {
  *reinterpret_cast<typename VecOf<T, W>::unaligned*>(to) = value;
}

template <class T, int W>
SCAV_INLINE Vec<T, W> splat(T value) {
  return value - Vec<T, W>{};
}

template <class V>
SCAV_INLINE V vmin(V a, V b) {
  return a < b ? a : b;
}

template <class V>
SCAV_INLINE V vmax(V a, V b) {
  return a > b ? a : b;
}

// Halves are added until one number is left: a chain of log2 W additions.
template <class T, int W>
SCAV_INLINE T horizontal_sum(Vec<T, W> value) {
  if constexpr (W == 1) {
    return value[0];
  } else {
    Vec<T, W / 2> halves[2];
    std::memcpy(halves, &value, sizeof value);
    return horizontal_sum<T, W / 2>(halves[0] + halves[1]);
  }
}

template <class T, int W>
SCAV_INLINE bool any_negative(Vec<T, W> value) {
  bool any = false;
  for (int lane = 0; lane < W; ++lane) {
    any |= value[lane] < 0;
  }
  return any;
}

// Same bits, other type.
template <class To, class From>
SCAV_INLINE To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  return reinterpret_cast<To>(from);
}

// The root of each lane; of whole vectors of float32 with AVX-512, within 1.1 · 2^-24 of it.
template <class T, int W>
SCAV_INLINE Vec<T, W> vsqrt(Vec<T, W> value) {
  Vec<T, W> root;
  for (int lane = 0; lane < W; ++lane) {
    root[lane] = std::sqrt(value[lane]);
  }
#if SCAV_VECTOR_BYTES == 64
  // The instruction for roots takes more than twice as long as an estimate of 1 / root and a step of Newton's method.
  // The compiler makes multiply-adds of the step, without which its error would be larger.
  if constexpr (std::is_same_v<T, float> && W == kWidth<T>) {
    using V = Vec<T, W>;
    using Bits = Vec<uint32_t, W>;
    constexpr uint16_t all = -1;
    const V estimate = __builtin_ia32_rsqrt14ps512_mask(value, V{}, all);
    const V near = value * estimate;
    const V refined = near + (value - near * near) * (estimate * T(0.5));
    // Left to the instruction: numbers below 2^-100, as their error may be denormal, infinity and what has larger bits.
    constexpr uint32_t smallest = 0x0d800000, infinity = 0x7f800000;
    const Bits bits = bits_as<Bits>(value) - smallest;
    const Bits range = splat<uint32_t, W>(infinity - smallest);
    constexpr int at_least = 5;
    if (__builtin_ia32_ucmpd512_mask(bits_as<Vec<int, W>>(bits), bits_as<Vec<int, W>>(range), at_least, all) == 0) {
      return refined;
    }
    return bits < range ? refined : root;
  }
#endif
  return root;
}

// exp for finite arguments of at most 0 (and a little above), within 1.5 ulp; 0 where the result would be denormal.
// exp(v) = 2^k exp(r) with |r| <= ln 2 / 2, exp(r) by its Taylor series, long enough for the dtype.
template <class T, int W>
SCAV_INLINE Vec<T, W> vexp(Vec<T, W> v) {
  using V = Vec<T, W>;
  using Bits = Vec<BitsOf<T>, W>;
  constexpr bool single = sizeof(T) == 4;
  constexpr T lowest = single ? T(-87.3) : T(-708.3);
  // Adding and subtracting 1.5 * 2^mantissa rounds to the nearest integer, and leaves it in the low bits.
  constexpr T rounder = single ? T(12582912.0) : T(6755399441055744.0);
  constexpr T ln2_high = single ? T(0.693145751953125) : T(0.69314718036912381649);
  constexpr T ln2_low = single ? T(1.428606765330187045e-06) : T(1.9082149292705877e-10);
  const V clamped = vmax(v, splat<T, W>(lowest));
  const V shifted = clamped * T(1.4426950408889634) + rounder;
  const V k = shifted - rounder;
  const V r = (clamped - k * ln2_high) - k * ln2_low;
  V p;
  if constexpr (single) {
    p = r * T(1.0 / 5040) + T(1.0 / 720);
    p = p * r + T(1.0 / 120);
    p = p * r + T(1.0 / 24);
    p = p * r + T(1.0 / 6);
    p = p * r + T(0.5);
  } else {
    p = r * T(1.0 / 6227020800.0) + T(1.0 / 479001600.0);
    p = p * r + T(1.0 / 39916800.0);
    p = p * r + T(1.0 / 3628800.0);
    p = p * r + T(1.0 / 362880.0);
    p = p * r + T(1.0 / 40320.0);
    p = p * r + T(1.0 / 5040.0);
    p = p * r + T(1.0 / 720.0);
    p = p * r + T(1.0 / 120.0);
    p = p * r + T(1.0 / 24.0);
    p = p * r + T(1.0 / 6.0);
    p = p * r + T(0.5);
  }
  const V mantissa = (p * r) * r + r + T(1);
  constexpr int shift = single ? 23 : 52;
  // Unsigned, as arguments that are far too large wrap around.
  const Bits exponent = bits_as<Bits>(shifted) << shift;
  const V scaled = bits_as<V>(bits_as<Bits>(mantissa) + exponent);
  return v < lowest ? V{} : scaled;
}

// log for positive, finite, normal arguments, within 2 ulp.
// log(v) = k ln 2 + log(m), m in [sqrt(1/2), sqrt(2)), log(m) = 2 atanh(f) with f = (m - 1) / (m + 1).
template <class T, int W>
SCAV_INLINE Vec<T, W> vlog(Vec<T, W> v) {
  using V = Vec<T, W>;
  using I = Vec<IntOf<T>, W>;
  constexpr bool single = sizeof(T) == 4;
  constexpr int shift = single ? 23 : 52;
  constexpr IntOf<T> root_half = single ? IntOf<T>(0x3f3504f3) : IntOf<T>(0x3fe6a09e667f3bcd);
  const I bits = bits_as<I>(v);
  const I k = (bits - root_half) >> shift;
  const V m = bits_as<V>(bits - (k << shift));
  const V exponent = __builtin_convertvector(k, V);
  const V d = m - T(1);
  const V f = d / (m + T(1));
  const V z = f * f;
  V p;
  if constexpr (single) {
    p = z * T(2.0 / 11) + T(2.0 / 9);
    p = p * z + T(2.0 / 7);
    p = p * z + T(2.0 / 5);
    p = p * z + T(2.0 / 3);
  } else {
    p = z * T(2.0 / 23) + T(2.0 / 21);
    p = p * z + T(2.0 / 19);
    p = p * z + T(2.0 / 17);
    p = p * z + T(2.0 / 15);
    p = p * z + T(2.0 / 13);
    p = p * z + T(2.0 / 11);
    p = p * z + T(2.0 / 9);
    p = p * z + T(2.0 / 7);
    p = p * z + T(2.0 / 5);
    p = p * z + T(2.0 / 3);
  }
  // 2 f = d - f d keeps the leading term exact where v is close to 1.
  const V tail = f * (z * p - d);
  constexpr T ln2_high = single ? T(0.693145751953125) : T(0.69314718036912381649);
  constexpr T ln2_low = single ? T(1.428606765330187045e-06) : T(1.9082149292705877e-10);
  return exponent * ln2_high + (d + (tail + exponent * ln2_low));
}

}  // namespace scav::SCAV_LEVEL
