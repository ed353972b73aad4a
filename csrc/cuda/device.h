#pragma once
// Language of the kernels for GPUs: CUDA C++, or the shim of tests/simt that runs the same source on a CPU.

#if defined(SCAV_SIMT)
#include "simt.h"
#else
#include <cuda_runtime.h>
#endif

#include <cmath>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>

#include "shared/constants.h"

#define SCAV_DEVICE __device__ __forceinline__

namespace scav::device {

using Stream = cudaStream_t;

inline constexpr int kWarp = 32;
inline constexpr unsigned kAllLanes = 0xffffffffu;

template <class I>
constexpr I ceil_div(I value, I by) {
  return (value + by - 1) / by;
}

#if !defined(SCAV_SIMT)

inline void check(const char* what, cudaError_t status) {
  if (status != cudaSuccess) {
    throw std::runtime_error(std::string("scav_kernels: ") + what + ": " + cudaGetErrorString(status));
  }
}

#endif

#if defined(__CUDACC__) || defined(SCAV_SIMT)

SCAV_DEVICE float min(float a, float b) { return fminf(a, b); }
SCAV_DEVICE double min(double a, double b) { return fmin(a, b); }
SCAV_DEVICE float max(float a, float b) { return fmaxf(a, b); }
SCAV_DEVICE double max(double a, double b) { return fmax(a, b); }
SCAV_DEVICE int min(int a, int b) { return a < b ? a : b; }
SCAV_DEVICE int max(int a, int b) { return a < b ? b : a; }
SCAV_DEVICE float exponential(float a) { return expf(a); }
SCAV_DEVICE double exponential(double a) { return exp(a); }
SCAV_DEVICE float logarithm(float a) { return logf(a); }
SCAV_DEVICE double logarithm(double a) { return log(a); }
SCAV_DEVICE float root(float a) { return sqrtf(a); }
SCAV_DEVICE double root(double a) { return sqrt(a); }

struct ExactRoot {
  template <class T>
  SCAV_DEVICE static T of(T a) {
    return root(a);
  }
};
// Within 2^-23 of it, in a tenth of the instructions.
struct FastRoot {
#if defined(SCAV_SIMT)
  static float of(float a) { return sqrtf(a); }
#else
  SCAV_DEVICE static float of(float a) {
    float result;
    asm("sqrt.approx.f32 %0, %1;" : "=f"(result) : "f"(a));
    return result;
  }
#endif
};

// a / b within 2^-22 of it, in a fifth of the instructions.
#if defined(SCAV_SIMT)
inline float fast_quotient(float a, float b) { return a / b; }
#else
SCAV_DEVICE float fast_quotient(float a, float b) { return __fdividef(a, b); }
#endif

// The same sum in every lane, and in every run.
template <class T>
SCAV_DEVICE T warp_sum(T value) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, offset);
  }
  return value;
}

template <class T>
SCAV_DEVICE T warp_max(T value) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    value = max(value, __shfl_xor_sync(kAllLanes, value, offset));
  }
  return value;
}

// The same sum in every thread and run; `shared` has room for a number per warp.
template <class T>
SCAV_DEVICE T block_sum(T value, T* shared) {
  value = warp_sum(value);
  if (threadIdx.x % kWarp == 0) {
    shared[threadIdx.x / kWarp] = value;
  }
  __syncthreads();
  T sum = 0;
  for (int warp = 0; warp < static_cast<int>(blockDim.x) / kWarp; ++warp) {
    sum += shared[warp];
  }
  __syncthreads();
  return sum;
}

// The same of maxima.
template <class T>
SCAV_DEVICE T block_max(T value, T* shared) {
  value = warp_max(value);
  if (threadIdx.x % kWarp == 0) {
    shared[threadIdx.x / kWarp] = value;
  }
  __syncthreads();
  for (int warp = 0; warp < static_cast<int>(blockDim.x) / kWarp; ++warp) {
    value = max(value, shared[warp]);
  }
  __syncthreads();
  return value;
}

#if defined(SCAV_SIMT)

template <class T>
T* shared_memory() {
  return static_cast<T*>(simt::shared_memory());
}

template <class... P, class... A>
void launch(const char*, void (*kernel)(P...), int64_t blocks, int threads, size_t shared, Stream, A... args) {
  simt::run(blocks, threads, shared, [&] { kernel(P(args)...); });
}

#else

// The block's dynamic shared memory.
template <class T>
SCAV_DEVICE T* shared_memory() {
  extern __shared__ __align__(16) unsigned char memory[];
  return reinterpret_cast<T*>(memory);
}

// A one-dimensional launch; none for no blocks. `shared` bytes of dynamic shared memory.
template <class... P, class... A>
void launch(const char* what, void (*kernel)(P...), int64_t blocks, int threads, size_t shared, Stream stream,
            A... args) {
  if (blocks == 0) {
    return;
  }
  constexpr size_t kWithoutAsking = size_t(48) << 10;
  if (shared > kWithoutAsking) {
    check(what, cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)));
  }
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = shared;
  config.stream = stream;
  check(what, cudaLaunchKernelEx(&config, kernel, P(args)...));
  check(what, cudaGetLastError());
}

#endif
#endif

}  // namespace scav::device
