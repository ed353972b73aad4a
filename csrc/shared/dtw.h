#pragma once
// Options of DTW and soft-DTW, and DTW's saved paths. The CPU's and the GPU's kernels share them.

#include <cstdint>
#include <optional>

namespace scav {

// Where paths may start and end: `begin` in any cell of the first row, `end` in any cell of the last row.
struct OpenEnds {
  bool begin = false, end = false;
};

enum class Normalize { none, path, steps };

// r[s, t] = min(r[s-1, t-1] + w c[s, t], r[s-1, t] + c[s, t] + p, r[s, t-1] + c[s, t] + p), with the step penalty p and
// the diagonal weight w. A distance is divided by the cells of its path, or by the steps of both sequences.
struct DtwOptions {
  std::optional<int64_t> band;
  double step_penalty, diagonal_weight;
  OpenEnds open;
  Normalize normalize;

  bool weighted() const { return step_penalty != 0 || diagonal_weight != 1; }
};

struct SoftDtwOptions {
  double gamma;
  std::optional<int64_t> band;
  OpenEnds open;
};

// The options on which the gradient of a saved path depends.
struct PathOptions {
  double diagonal_weight;
  Normalize normalize;
};

// The step that leads to a cell on an optimal path. Ties take the diagonal, then s - 1, then t - 1. A saved path goes
// from its end to its start. Before it comes a kSkip for each step of y after its end. kPathEnd also pads a path to its
// full length, so that equal calls return equal tensors.
inline constexpr uint8_t kDiagonal = 0, kUp = 1, kLeft = 2, kPathEnd = 3, kSkip = 4;

// Calls f(s, t, weight) for the cells of a saved path of n by m steps, from its end to its start.
template <class T, class F>
void for_each_path_cell(int64_t n, int64_t m, const uint8_t* path, T diagonal_weight, const F& f) {
  int64_t s = n - 1, t = m - 1;
  for (; t >= 0 && *path == kSkip; ++path) {
    --t;
  }
  for (; s >= 0 && t >= 0; ++path) {
    f(s, t, *path == kDiagonal ? diagonal_weight : T(1));
    if (*path >= kPathEnd) {
      break;
    }
    s -= *path != kLeft;
    t -= *path != kUp;
  }
}

// What the distance of a saved path was divided by.
inline int64_t path_divisor(Normalize normalize, int64_t n, int64_t m, const uint8_t* path) {
  int64_t cells = 0;
  if (normalize == Normalize::path) {
    for_each_path_cell(n, m, path, 1, [&](int64_t, int64_t, int) { ++cells; });
  }
  return normalize == Normalize::path ? cells : normalize == Normalize::steps ? n + m : 1;
}

}  // namespace scav
