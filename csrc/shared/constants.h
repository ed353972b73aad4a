#pragma once
// Constants and words on which the kernels of every device agree.
//
// Kernels divide their work in four ways:
//   lane   one element of a SIMD vector, or one thread of a warp: usually one pair of sequences
//   panel  neighboring columns, or rows on a GPU, that one tile of registers covers
//   group  sequences, pairs or columns that are computed together because they share data or fit in cache
//   part   a range of a loop: one thread's, or as much as the scratch holds at a time
// Block, warp, grid and tile are those of CUDA; a tile of registers is the same on a CPU.

#include <limits>

namespace scav {

// The value of an unreachable cell of an alignment: large, and still finite after any sum of costs.
template <class T>
inline constexpr T kUnreachable = std::numeric_limits<T>::max() / 16;
// Every reached cell is below this, even where negative costs follow an unreachable cell.
template <class T>
inline constexpr T kReached = kUnreachable<T> / 2;

// |x|^2 + |y|^2 - 2 <x, y> keeps few digits where it is smaller than this fraction of |x|^2 + |y|^2. Such cells are
// rare. The kernels compute them again from the difference of the rows, forward and backward.
template <class T>
inline constexpr T kNear = T(1) / 256;

// A cosine divides by norms of at least this, as torch.nn.functional.cosine_similarity does.
inline constexpr double kSmallestNorm = 1e-8;

}  // namespace scav
