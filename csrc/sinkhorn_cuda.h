#pragma once
// Launchers of sinkhorn_kernels.cu.

#include "common/device_costs.h"
#include "sinkhorn.h"

namespace scav::device {

// Where a pair's K is held: spread over the registers of a block that covers 32 x 32, 64 x 64 or 128 x 128 steps, or in
// memory, from where the caches serve it.
enum class KernelPlace { registers_32, registers_64, registers_128, memory };

KernelPlace choose_kernel_place(int64_t n, int64_t m, bool float64);

// Scratch for `pairs` pairs in elements: their vectors, and K where it is in memory.
int64_t sinkhorn_scratch(KernelPlace place, int64_t pairs, int64_t n, int64_t m);

// `out` by result; `f` (results, N), zero on entry, or null. Products of a tile become its costs, where they lie.
template <class T>
void launch_sinkhorn_forward(const Costs<T>& costs, KernelPlace place, const SinkhornOptions& options, T* scratch,
                             T* out, T* f, Stream stream);

// The plan of each pair, as weights; `grads` by result, `f` (results, N).
template <class T>
void launch_sinkhorn_backward(const Costs<T>& costs, double epsilon, const T* grads, const T* f, const Weights<T>& to,
                              Stream stream);

}  // namespace scav::device
