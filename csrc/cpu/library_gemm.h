#pragma once
// Small matrix products of oneDNN, if it has them for this CPU.

#include <cstdint>

namespace scav {

// True if `library_gemm` runs here: oneDNN's micro-kernels (through ATen's brgemm) on x86-64, at the best SIMD level of
// this CPU. They choose their instructions themselves, so at a forced lower level gemm.inl computes the products.
bool has_library_gemm();

// C (m, n) = A (m, k) B (k, n), or += where `accumulate`; row-major, row strides in elements.
void library_gemm(int64_t m, int64_t n, int64_t k, int64_t stride_a, int64_t stride_b, int64_t stride_c,
                  bool accumulate, const float* a, const float* b, float* c);

// True if `bfloat16_gemm` runs here: where `library_gemm` does, on a CPU with AVX512_BF16 (AMX included).
bool has_bfloat16_gemm();

// C (m, n) = A (m, 2 k) B (2 k, n) of bfloat16 numbers, summed in float32. A word holds numbers 2 i and 2 i + 1 of a
// row of A, or of a column of B, the first in its low half: `a` (m, k) and `b` (k, n) are row-major, row strides in
// words.
void bfloat16_gemm(int64_t m, int64_t n, int64_t k, int64_t stride_a, int64_t stride_b, int64_t stride_c,
                   const uint32_t* a, const uint32_t* b, float* c);

}  // namespace scav
