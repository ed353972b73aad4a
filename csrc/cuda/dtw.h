#pragma once
// Launchers of dtw_kernels.cu.

#include "cuda/cut.h"
#include "cuda/sweep.h"
#include "shared/dtw.h"

namespace scav::device {

// Bytes of the codes that a sweep with paths saves: of all rows, from wherever they are swept.
int64_t dtw_code_bytes(const SweepShape& shape, int64_t pairs);

// Scratch for a forward sweep of pairs of up to N by M steps, without the costs; numbers have `element` bytes.
Needs dtw_needs(Sweep sweep, int64_t n, int64_t m, int64_t element, bool save_path);

// Bytes of the codes of a column of kLaneRows cells.
inline constexpr int64_t kDtwColumnBytes = kLaneRows / 4;

// True if only the band differs from the defaults: kernels of their own have the other options.
inline bool has_plain_paths(const DtwOptions& options) {
  return !options.weighted() && !options.open.begin && !options.open.end && options.normalize == Normalize::none;
}
// True if paths are walked.
inline bool walks_paths(const DtwOptions& options, const uint8_t* paths) {
  return paths != nullptr || options.normalize == Normalize::path;
}

// `out` by result; `carry` as SweepShape says. `paths` (results, N + M), filled with end marks, or null. `codes` are
// there if paths are walked.
template <class T>
void launch_dtw_forward(const Costs<T>& costs, const SweepShape& shape, const DtwOptions& options, T* carry,
                        void* codes, uint8_t* paths, T* out, Stream stream);

// The same with plain paths by a fused sweep, of rows of 16-bit numbers. A negative `band` is none.
void launch_dtw_fused(const Costs<float>& costs, const FusedShape& shape, int64_t band, float* carry, void* codes,
                      uint8_t* paths, float* out, Stream stream);

// The weights of the cells of each pair's path that are in the tile's rows, `grads` by result; `to` is zero on entry.
template <class T>
void launch_dtw_backward(const Costs<T>& costs, const PathOptions& options, const T* grads, const uint8_t* paths,
                         const Weights<T>& to, Stream stream);

}  // namespace scav::device
