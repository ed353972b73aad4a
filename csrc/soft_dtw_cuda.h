#pragma once
// Launchers of soft_dtw_kernels.cu.

#include "common/cut.h"
#include "common/warping.h"

namespace scav::device {

// What the sweeps of pairs of up to N by M steps need beside their costs, numbers of `element` bytes: forward, and
// backward.
Needs soft_dtw_needs(Sweep sweep, int64_t n, int64_t m, int64_t element);
Needs soft_dtw_adjoint_needs(Sweep sweep, int64_t n, int64_t m, int64_t element);

// `out` by result; `carry` as SweepShape says. A negative `band` is none.
template <class T>
void launch_soft_dtw_forward(const Costs<T>& costs, const SweepShape& shape, double gamma, int64_t band, T* carry,
                             T* out, Stream stream);

// The same by a fused sweep, of rows of 16-bit numbers.
void launch_soft_dtw_fused(const Costs<float>& costs, const FusedShape& shape, double gamma, int64_t band, float* carry,
                           float* out, Stream stream);

// The forward again, for `softmin` (2, columns of the shape, K): the weights of the diagonal and of s - 1 in each
// cell's softmin; and from them the weights of all cells, `grads` by result. `to` is zero on entry, `out` is scratch.
// What crosses strips forward is in `carry`, what does backward in `message`.
template <class T>
void launch_soft_dtw_backward(const Costs<T>& costs, const SweepShape& shape, double gamma, int64_t band,
                              const T* grads, T* carry, T* message, T* softmin, T* out, const Weights<T>& to,
                              Stream stream);

}  // namespace scav::device
