#include "cpu/library_gemm.h"

#include <dlfcn.h>

#include <array>
#include <exception>

#include "cpu/level.h"
#include "cpu/torch_settings.h"

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

// at::native::cpublas::brgemm of float32 and of bfloat16 (`vnni`: of words of two), and brgemm_release. Their names
// have been the same since torch 2.5, but are not part of its stable ABI: null where they are missing.
using Float32Gemm = void (*)(int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, bool accumulate, const float*,
                             const float*, float*, bool vnni);
using Bfloat16Gemm = void (*)(int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, bool accumulate, const void*,
                              const void*, float*, bool vnni);
using Release = void (*)(bool vnni);

template <class Function>
Function find_in_torch(const char* name) {
  void* const torch = dlopen("libtorch_cpu.so", RTLD_LAZY | RTLD_NOLOAD);
  return torch == nullptr ? nullptr : reinterpret_cast<Function>(dlsym(torch, name));
}

const auto float32_gemm = find_in_torch<Float32Gemm>("_ZN2at6native7cpublas6brgemmEllllllbPKfS3_Pfb");
const auto bfloat16_words_gemm =
    find_in_torch<Bfloat16Gemm>("_ZN2at6native7cpublas6brgemmEllllllbPKN3c108BFloat16ES5_Pfb");
const auto release = find_in_torch<Release>("_ZN2at6native7cpublas14brgemm_releaseEb");

}  // namespace

void library_gemm(int64_t m, int64_t n, int64_t k, int64_t stride_a, int64_t stride_b, int64_t stride_c,
                  bool accumulate, const float* a, const float* b, float* c) {
  float32_gemm(m, n, k, stride_a, stride_b, stride_c, accumulate, a, b, c, false);
}

bool has_library_gemm() {
  static const bool works = [] {
    if (float32_gemm == nullptr || current_level() != available_levels().back()) {
      return false;
    }
    // ATen has no query for float32: it throws where the platform or the CPU has no micro-kernel.
    try {
      const float a[1] = {2}, b[1] = {3};
      float c[1] = {0};
      library_gemm(1, 1, 1, 1, 1, 1, false, a, b, c);
      return c[0] == 6;
    } catch (const std::exception&) {
      return false;
    }
  }();
  return works;
}

void bfloat16_gemm(int64_t m, int64_t n, int64_t k, int64_t stride_a, int64_t stride_b, int64_t stride_c,
                   const uint32_t* a, const uint32_t* b, float* c) {
  bfloat16_words_gemm(m, n, 2 * k, 2 * stride_a, stride_b, stride_c, false, a, b, c, true);
  // With AMX the product leaves its sources configured, which other code on this thread must not find.
  release(true);
}

bool has_bfloat16_gemm() {
  static const bool works = [] {
    if (bfloat16_words_gemm == nullptr || release == nullptr || !has_library_gemm() || !cpu_multiplies_bfloat16()) {
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
  // Where oneDNN is disabled, torch's float32 products fall back to BLAS; these have nothing to fall back to.
  return works && onednn_is_enabled();
}

}  // namespace scav
