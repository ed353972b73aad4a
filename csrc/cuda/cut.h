#pragma once
// Divides a batch into tiles of pairs, and a pair that is too large into parts of rows.

#include <algorithm>
#include <cstdint>
#include <functional>

namespace scav::device {

// Scratch that a tile needs, with `rows` of each of its pairs at a time, and the number of rows that parts are
// multiples of.
struct Needs {
  std::function<int64_t(int64_t pairs, int64_t rows)> bytes;
  int64_t unit;
};

// x's and y's of a tile; where paired, `x` of both. Rows of a part: all, where there are several pairs.
struct Extent {
  int64_t x, y, rows;
};

// Halves the longer side until the tile fits the budget, then divides the last pair into the fewest parts of equal
// heights that fit.
inline Extent within(int64_t budget, Extent extent, const Needs& needs) {
  const auto fits = [&] { return needs.bytes(extent.x * extent.y, extent.rows) <= budget; };
  while (extent.x * extent.y > 1 && !fits()) {
    int64_t& larger = extent.x >= extent.y ? extent.x : extent.y;
    larger = (larger + 1) / 2;
  }
  const int64_t all = extent.rows;
  for (int64_t parts = 2; extent.rows > needs.unit && !fits(); ++parts) {
    const int64_t height = (all + parts - 1) / parts;
    extent.rows = (height + needs.unit - 1) / needs.unit * needs.unit;
  }
  return extent;
}

}  // namespace scav::device
