#pragma once
// CUDA's threads on a CPU: the threads of a block are fibers of one thread, which run in turn until each waits at a
// barrier or a warp's collective, in a chosen order. An order that changes a result shows a race.

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__

using cudaStream_t = void*;

namespace simt {

struct Index {
  unsigned x = 0;
};
// Of the fiber that runs.
inline Index thread, block, threads, blocks;

// Runs `kernel` for every thread of every block. Shared memory is NaN when a block starts.
void run(int64_t grid, int block_size, size_t shared, const std::function<void()>& kernel);

void* shared_memory();

// Waits for all threads of the block that have not ended.
void wait_for_block();

// Gives each lane of the warp the values of all: `size` bytes from `value`, 32 of them in the result, valid until the
// warp's next but one exchange. All lanes must come here, or have ended.
const void* exchange(const void* value, size_t size);

// The environment's SCAV_SIMT_<name>.
int64_t setting(const char* name, int64_t otherwise);

template <class T>
T from_lane(T value, int lane) {
  const T* all = static_cast<const T*>(exchange(&value, sizeof(T)));
  return lane >= 0 && lane < 32 ? all[lane] : value;
}

}  // namespace simt

#define threadIdx simt::thread
#define blockIdx simt::block
#define blockDim simt::threads
#define gridDim simt::blocks

inline void __syncthreads() { simt::wait_for_block(); }

template <class T>
T __shfl_sync(unsigned, T value, int lane) {
  return simt::from_lane(value, lane);
}
template <class T>
T __shfl_up_sync(unsigned, T value, int delta) {
  return simt::from_lane(value, static_cast<int>(simt::thread.x % 32) - delta);
}
template <class T>
T __shfl_down_sync(unsigned, T value, int delta) {
  return simt::from_lane(value, static_cast<int>(simt::thread.x % 32) + delta);
}
template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return simt::from_lane(value, static_cast<int>(simt::thread.x % 32) ^ mask);
}
