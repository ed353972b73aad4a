#pragma once
// Launchers of soft_dtw_kernels.cu.

#include <type_traits>

#include "cuda/cut.h"
#include "cuda/sweep.h"
#include "shared/dtw.h"

namespace scav::device {

// Words in which a sweep keeps the weights of a cell's softmin: two numbers, or one that holds both.
using PackedWeights = uint32_t;
template <class T, class Word>
inline constexpr int kKeptWords = std::is_same_v<T, Word> ? 2 : 1;
template <class T, class Word>
inline constexpr int64_t kKeptBytes = kKeptWords<T, Word> * int64_t(sizeof(Word));

// Scratch for the sweeps of pairs of up to N by M steps, without the costs; numbers have `element` bytes. Forward, and
// backward, with `kept` bytes for a cell's softmin, and where paths end anywhere in the last row, its weights.
Needs soft_dtw_needs(Sweep sweep, int64_t n, int64_t m, int64_t element);
Needs soft_dtw_adjoint_needs(Sweep sweep, int64_t n, int64_t m, int64_t element, int64_t kept, bool open_end);

// True if paths lead from corner to corner: kernels of their own have open ends.
inline bool has_closed_ends(const SoftDtwOptions& options) { return !options.open.begin && !options.open.end; }

// `out` by result; `carry` as SweepShape says.
template <class T>
void launch_soft_dtw_forward(const Costs<T>& costs, const SweepShape& shape, const SoftDtwOptions& options, T* carry,
                             T* out, Stream stream);

// The same with closed ends by a fused sweep, of rows of 16-bit numbers. A negative `band` is none.
void launch_soft_dtw_fused(const Costs<float>& costs, const FusedShape& shape, double gamma, int64_t band, float* carry,
                           float* out, Stream stream);

// The forward again, for `softmin` (kKeptWords, columns of the shape, K): the weights of the diagonal and of s - 1 in
// each cell's softmin; and from them the weights of all cells, `grads` by result. `to` is zero on entry, `out` is
// scratch. What crosses panels forward is in `carry`, what does backward in `message`. `ends` (M, pairs), scratch for
// open_end: the weights of the cells of the last row in its softmin.
template <class T, class Word>
void launch_soft_dtw_backward(const Costs<T>& costs, const SweepShape& shape, const SoftDtwOptions& options,
                              const T* grads, T* carry, T* message, Word* softmin, T* ends, T* out,
                              const Weights<T>& to, Stream stream);

}  // namespace scav::device
