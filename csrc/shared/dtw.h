#pragma once
// Codes of the steps of DTW's paths. The CPU's and the GPU's kernels write and read the same ones.

#include <cstdint>

namespace scav {

// The step that leads to a cell on an optimal path. Ties take the diagonal, then s - 1, then t - 1. kPathEnd also pads
// a path to its full length, so that equal calls return equal tensors.
inline constexpr uint8_t kDiagonal = 0, kUp = 1, kLeft = 2, kPathEnd = 3;

}  // namespace scav
