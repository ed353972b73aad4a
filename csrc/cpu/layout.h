#pragma once
// Where the steps of the y's lie once packed: which y's share a group, and which column of the cost each step becomes.

#include <cstdint>
#include <vector>

namespace scav {

// y's whose costs against one x are computed together. Step t of the group's sequence `lane` is column t * lanes +
// lane. Columns are stored in panels of `panel` columns: panel p holds columns [p * panel, (p + 1) * panel) as (D,
// panel).
struct Group {
  int64_t first;    // index into Layout::order of lane 0
  int64_t count;    // sequences; lanes beyond are empty
  int64_t lanes;    // sequences that fit
  int64_t steps;    // of the longest sequence
  int64_t panel;    // columns to a panel
  int64_t column;   // columns of all groups before this one
  int64_t columns;  // of this group, a multiple of `panel`

  int64_t panels() const { return columns / panel; }
};

struct Layout {
  std::vector<int64_t> order;  // y's by length, so that those of one group are about equally long
  std::vector<Group> groups;
  int64_t columns = 0;
};

// Indices of a batch, shortest sequence first; equal lengths keep their order.
std::vector<int64_t> by_length(const int64_t* lengths, int64_t batch);

// Groups of `lanes` y's.
Layout interleave(const int64_t* lengths, int64_t batch, int64_t lanes);

// One group to a y, in the order given: a pair's costs lie together, row by row. `narrow` keeps panels at 16 columns.
Layout one_by_one(const int64_t* lengths, int64_t batch, bool narrow = false);

inline constexpr int64_t kPanel = 64;
// Columns that fill the widest vector of float32.
inline constexpr int64_t kNarrowPanel = 16;

// How a recursion over a (rows, steps) grid that is later walked backwards is cut along the steps. The state before
// each stretch is kept, and the cells of one stretch at a time: memory grows with the root of the number of steps.
struct Plan {
  int64_t steps;  // of one stretch, a multiple of `granularity` unless there is only one stretch
  int64_t stretches;
  int64_t bytes;
};
Plan plan_stretches(int64_t rows, int64_t steps, int64_t lanes, int64_t granularity, int64_t bytes_per_cell,
                    int64_t bytes_per_state);

}  // namespace scav
