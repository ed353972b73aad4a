#pragma once
// How a batch is cut into tiles of pairs, and a pair that is too large into slabs of rows.

#include <algorithm>
#include <cstdint>
#include <functional>

namespace scav::device {

// What a tile needs of the scratch, `rows` of each of its pairs at a time, and what slabs are multiples of.
struct Needs {
  std::function<int64_t(int64_t pairs, int64_t rows)> bytes;
  int64_t unit;
};

// x's and y's of a tile; where paired, `x` of both. Rows of a slab: all, where there are several pairs.
struct Extent {
  int64_t x, y, rows;
};

// Halves the longer side until as many as there are take no more than the budget, then cuts the last pair into as few
// slabs as do, of equal heights.
inline Extent within(int64_t budget, Extent extent, const Needs& needs) {
  const auto fits = [&] { return needs.bytes(extent.x * extent.y, extent.rows) <= budget; };
  while (extent.x * extent.y > 1 && !fits()) {
    int64_t& larger = extent.x >= extent.y ? extent.x : extent.y;
    larger = (larger + 1) / 2;
  }
  const int64_t all = extent.rows;
  for (int64_t slabs = 2; extent.rows > needs.unit && !fits(); ++slabs) {
    const int64_t height = (all + slabs - 1) / slabs;
    extent.rows = (height + needs.unit - 1) / needs.unit * needs.unit;
  }
  return extent;
}

}  // namespace scav::device
