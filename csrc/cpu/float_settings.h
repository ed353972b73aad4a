#pragma once
// Floating-point settings of a thread: whether its results below the smallest normal number are rounded to 0.

#include <cstdint>
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace scav {

#if defined(__x86_64__)
inline uint32_t float_settings() { return _mm_getcsr(); }
inline void set_float_settings(uint32_t settings) { _mm_setcsr(settings); }
inline constexpr uint32_t kFlush = _MM_FLUSH_ZERO_ON;
#else
inline uint32_t float_settings() { return 0; }
inline void set_float_settings(uint32_t) {}
inline constexpr uint32_t kFlush = 0;
#endif

// Gives this thread some settings until the end of the scope.
class FloatSettings {
 public:
  explicit FloatSettings(uint32_t settings) : before_(float_settings()) { set_float_settings(settings); }
  ~FloatSettings() { set_float_settings(before_); }
  FloatSettings(const FloatSettings&) = delete;
  FloatSettings& operator=(const FloatSettings&) = delete;

 private:
  uint32_t before_;
};

// Until the end of the scope, this thread and those of its parallel loops round denormal results to 0. Weights of
// soft-DTW and plans of Sinkhorn fall so low beside others that count, and operations with denormal numbers are slow on
// some CPUs.
struct FlushDenormals : FloatSettings {
  FlushDenormals() : FloatSettings(float_settings() | kFlush) {}
};

}  // namespace scav
