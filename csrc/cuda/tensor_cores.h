#pragma once
// Products of 16-bit numbers by tensor cores, and copies into shared memory that a thread does not wait for: what every
// architecture since sm_80 has. The shim has scalar equivalents of the same interface, fragments included.

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <type_traits>

#include "cuda/device.h"

#if defined(__CUDACC__) || defined(SCAV_SIMT)

namespace scav::device {

enum class Half { bfloat16, float16 };

template <Half Kind>
using NumberOf = std::conditional_t<Kind == Half::bfloat16, torch::headeronly::BFloat16, torch::headeronly::Half>;

#if defined(SCAV_SIMT)

inline void barrier(int name, int threads) { simt::wait_for(name, threads); }

inline void copy_async(void* shared, const void* memory, bool any) { simt::copy_later(shared, any ? memory : nullptr); }
inline void commit_copies() { simt::commit_copies(); }
template <int Groups>
void wait_for_copies() {
  simt::finish_copies(Groups);
}

inline void load_matrices(uint32_t (&to)[4], const void* row) { simt::load_matrices(to, row); }

template <Half Kind>
void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  simt::multiply<NumberOf<Kind>>(c, a, b0, b1);
}

#else

// Waits for `threads` threads of the block, in whole warps, at the barrier `name`; __syncthreads() is 0.
SCAV_DEVICE void barrier(int name, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(name), "r"(threads) : "memory");
}

// 16 bytes, or zeros; there when wait_for_copies says so.
SCAV_DEVICE void copy_async(void* shared, const void* memory, bool any) {
  const auto to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(memory), "r"(any ? 16 : 0) : "memory");
}
// The thread's copies since the last call are a group.
SCAV_DEVICE void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Until all but the thread's last `Groups` groups are there.
template <int Groups>
SCAV_DEVICE void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(Groups) : "memory");
}

// Four 8 x 8 matrices, of which lane l gives the address of row l % 8 of matrix l / 8, 16 bytes, and receives elements
// 2 (l % 4) and the next of row l / 4 of each.
SCAV_DEVICE void load_matrices(uint32_t (&to)[4], const void* row) {
  const auto from = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(from)
               : "memory");
}

// c += a b for a (16, 16), b (16, 8), c (16, 8). With g = lane / 4, q = 2 (lane % 4), a lane has of a the pairs at
// (g, q), (g + 8, q), (g, q + 8), (g + 8, q + 8); of b those at (q, g), (q + 8, g), along the first index; and c at
// (g, q), (g, q + 1), (g + 8, q), (g + 8, q + 1).
template <Half Kind>
SCAV_DEVICE void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  if constexpr (Kind == Half::bfloat16) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
}

#endif

}  // namespace scav::device

#endif
