#pragma once
// Layout of the packed steps of the y's: which y's share a group, and which column of the costs each step becomes.
// shared/constants.h defines lanes, panels, groups and parts.

#include <cstdint>
#include <vector>

namespace scav {

// y's whose costs against one x are computed together. Step t of the group's sequence `lane` is column t * lanes +
// lane. Panel p holds columns [p * panel, (p + 1) * panel) as (D, panel).
struct Group {
  int64_t first;    // index into Layout::order of lane 0
  int64_t count;    // sequences; lanes beyond are empty
  int64_t lanes;    // sequences that fit
  int64_t steps;    // of the longest sequence
  int64_t panel;    // columns of a panel
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

// Puts `lanes` y's in a group.
Layout interleave(const int64_t* lengths, int64_t batch, int64_t lanes);

// Puts `lanes` pairs, of x number i with y number i, in a group: those whose x's and whose y's are about equally long.
Layout interleave_pairs(const int64_t* x_lengths, const int64_t* y_lengths, int64_t batch, int64_t lanes);

// Puts each y in a group of its own, in the caller's order: a pair's costs lie together, row by row.
Layout one_by_one(const int64_t* lengths, int64_t batch);

// The one group of y number `index`, in narrow panels.
Layout alone(int64_t index, int64_t length);

// Columns of the widest panel.
inline constexpr int64_t kPanel = 64;
// Columns that fill the widest vector of float32.
inline constexpr int64_t kNarrowPanel = 16;

// Checkpoints of a recursion over a (rows, steps) grid that is walked backwards later. The state is saved at each
// checkpoint, and the cells up to the next checkpoint are kept one range at a time: memory grows with the root of the
// number of steps.
struct CheckpointPlan {
  int64_t steps;        // from one checkpoint to the next, a multiple of `panel_steps` if there are several
  int64_t checkpoints;  // the first is the start
  int64_t bytes;
};
// What such a recursion keeps of a cell, and of a row at a checkpoint, in one lane.
struct KeptBytes {
  int64_t cell, state;
  // Costs of few features are computed again in less time than kept cells take from the last-level cache.
  bool few_features = false;
};
CheckpointPlan plan_checkpoints(int64_t rows, int64_t steps, int64_t lanes, int64_t panel_steps, const KeptBytes& kept);

}  // namespace scav
