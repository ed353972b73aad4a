// Powers of two, lane by lane: rounding to whole exponents, scaling by them, and the exponent of a number.
// AVX-512 has an instruction for each (immintrin.h).
// Included once per SIMD level (foreach_level.h): no include guard.

namespace scav::SCAV_LEVEL {

template <class T, int W>
struct Powers {
  using V = Vec<T, W>;
  using Bits = Vec<BitsOf<T>, W>;
  static constexpr bool kSingle = sizeof(T) == 4;
  static constexpr int kShift = kSingle ? 23 : 52;
  static constexpr int kBias = kSingle ? 127 : 1023;
  static constexpr T kWhole = kSingle ? T(8388608.0) : T(4503599627370496.0);  // larger numbers are whole
  static constexpr T kRounder = kWhole + kWhole / 2;

  static SCAV_INLINE V round(V v) {
    const V magnitude = bits_as<V>(bits_as<Bits>(v) & (~BitsOf<T>(0) >> 1));
    const V rounded = (v + kRounder) - kRounder;
    return magnitude < kWhole / 2 ? rounded : v;
  }
  // v * 2^exponent for whole exponents of at most kBias; 0 for those below -kBias.
  static SCAV_INLINE V scale(V v, V exponent) {
    const V biased = vmax(exponent, splat<T, W>(-kBias)) + (kRounder + kBias);
    return v * bits_as<V>(bits_as<Bits>(biased) << kShift);
  }
  // Of positive normal numbers.
  static SCAV_INLINE V exponent(V v) {
    const Bits whole = bits_as<Bits>(splat<T, W>(kWhole));
    return bits_as<V>((bits_as<Bits>(v) >> kShift) | whole) - (kWhole + kBias);
  }
};

#if SCAV_VECTOR_BYTES == 64
// With a mask of all lanes, which leaves no register undefined.
#define SCAV_POWERS(T, W, Mask, prefix, suffix)                                                                  \
  template <>                                                                                                    \
  struct Powers<T, W> {                                                                                          \
    using V = Vec<T, W>;                                                                                         \
    static constexpr Mask kAll = static_cast<Mask>(-1);                                                          \
    static SCAV_INLINE V round(V v) { return (V)prefix##_maskz_roundscale_##suffix(kAll, v, 0); }                \
    static SCAV_INLINE V scale(V v, V exponent) { return (V)prefix##_maskz_scalef_##suffix(kAll, v, exponent); } \
    static SCAV_INLINE V exponent(V v) { return (V)prefix##_maskz_getexp_##suffix(kAll, v); }                    \
  };
SCAV_POWERS(float, 16, __mmask16, _mm512, ps)
SCAV_POWERS(float, 8, __mmask8, _mm256, ps)
SCAV_POWERS(float, 4, __mmask8, _mm, ps)
SCAV_POWERS(double, 8, __mmask8, _mm512, pd)
SCAV_POWERS(double, 4, __mmask8, _mm256, pd)
#undef SCAV_POWERS
#endif

// 2^v - 1 for v in [-1/2, 1/2], with the digits of a small v. Interpolates (2^v - 1) / v in Chebyshev's nodes.
template <class T, int W>
SCAV_INLINE Vec<T, W> small_power_excess(Vec<T, W> v) {
  constexpr auto coefficients = [] {
    if constexpr (sizeof(T) == 4) {
      return std::array{1.54531629451206902e-4, 1.33908633646712344e-3, 9.61808255727785149e-3,
                        5.55035711421907782e-2, 2.40226507605681269e-1, 6.93147188026228781e-1};
    } else {
      return std::array{2.57293241773623042e-11, 4.45581790833606449e-10, 7.05489730415549928e-9,
                        1.01780570877339411e-7,  1.32154868087055628e-6,  1.52527338415567726e-5,
                        1.54035303933707334e-4,  1.33335581464064707e-3,  9.61812910762847949e-3,
                        5.55041086648216270e-2,  2.40226506959100712e-1,  6.93147180559945309e-1};
    }
  }();
  Vec<T, W> power = splat<T, W>(T(coefficients[0]));
#pragma GCC unroll 12
  for (size_t i = 1; i < coefficients.size(); ++i) {
    power = power * v + T(coefficients[i]);
  }
  return power * v;
}

}  // namespace scav::SCAV_LEVEL
