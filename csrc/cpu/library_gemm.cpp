#include "cpu/library_gemm.h"

#include <ATen/Context.h>
#include <ATen/native/CPUBlas.h>

#include <array>
#include <exception>

#include "cpu/level.h"

namespace scav {

namespace {

bool cpu_multiplies_bfloat16() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512bf16");
#else
  return false;
#endif
}

}  // namespace

void library_gemm(int64_t m, int64_t n, int64_t k, int64_t stride_a, int64_t stride_b, int64_t stride_c,
                  bool accumulate, const float* a, const float* b, float* c) {
  at::native::cpublas::brgemm(m, n, k, stride_a, stride_b, stride_c, accumulate, a, b, c);
}

bool has_library_gemm() {
  static const bool works = [] {
    if (current_level() != available_levels().back()) {
      return false;
    }
    // ATen has no query for float32: it throws where the platform or the CPU has no micro-kernel.
    try {
      const float a[1] = {2}, b[1] = {3};
      float c[1] = {0};
      library_gemm(1, 1, 1, 1, 1, 1, false, a, b, c);
      return c[0] == 6;
    } catch (const c10::Error&) {
      return false;
    }
  }();
  return works;
}

void bfloat16_gemm(int64_t m, int64_t n, int64_t k, int64_t stride_a, int64_t stride_b, int64_t stride_c,
                   const uint32_t* a, const uint32_t* b, float* c) {
  namespace blas = at::native::cpublas;
  blas::brgemm(m, n, 2 * k, 2 * stride_a, stride_b, stride_c, false, reinterpret_cast<const at::BFloat16*>(a),
               reinterpret_cast<const at::BFloat16*>(b), c, true);
  // With AMX the product leaves its sources configured, which other code on this thread must not find.
  blas::brgemm_release(true);
}

bool has_bfloat16_gemm() {
  // Set by torch.backends.mkldnn.enabled; float32 products fall back to BLAS then, these have nothing to fall back to.
  if (!at::globalContext().userEnabledMkldnn()) {
    return false;
  }
  static const bool works = [] {
    if (!has_library_gemm() || !cpu_multiplies_bfloat16()) {
      return false;
    }
    try {
      // oneDNN wants columns in multiples of 16.
      constexpr int64_t n = 16;
      std::array<uint32_t, n> ones;
      std::array<float, n> c;
      ones.fill(0x3f803f80);
      bfloat16_gemm(1, n, 1, 1, n, n, ones.data(), ones.data(), c.data());
      return c[0] == 2;
    } catch (const std::exception&) {
      return false;
    }
  }();
  return works;
}

}  // namespace scav
