#pragma once
// The forms of the sweeps of cuda/sweep.h and cuda/fused.h, what they take of memory, and the choice.

#include <algorithm>

#include "cuda/device.h"

namespace scav::device {

enum class Sweep { lanes, wavefront, fused };

// Rows of a thread's column, and threads of a block that has a pair to each.
inline constexpr int kLaneRows = 16, kLaneThreads = 128;
inline constexpr int kFewRows = 2, kManyRows = 8, kMaxWarps = 8;
// Columns that a warp's last row may be ahead of the next warp, rounded up to a power of two.
inline constexpr int kRing = 128;

// A fused block's x's and y's, its warps that multiply and those that have the pairs, and features at a time.
inline constexpr int kFusedX = 8, kFusedY = 128, kFusedPairs = kFusedX * kFusedY;
inline constexpr int kMultipliers = 256, kSweepers = 256;
inline constexpr int kDepth = 32, kStages = 4;

// Shape of a fused sweep of pairs of up to N by M steps of `dim` features.
struct FusedShape {
  // Bytes of the operands of one side, `kDepth` features of 128 rows, and of the products.
  static constexpr int64_t kSlot = int64_t(kFusedY) * kDepth * 2;
  static constexpr int64_t kTile = int64_t(kFusedX) * kLaneRows * kFusedY * 4;
  static constexpr int64_t kRowNorms = int64_t(kFusedX) * kLaneRows * 4;
  static constexpr int64_t kBlock = 640;  // see FusedBlock
  static constexpr int64_t kOperands = kTile + kRowNorms + kBlock;

  // Only sm_90 and later datacenter GPUs give a block as much: the kernel is for them.
  static constexpr int64_t kMinShared = int64_t(200) << 10;

  int64_t panels, steps, x_slots;

  // A panel's rows of x stay in shared memory where they fit, and else come as often as y's do.
  FusedShape(int64_t n, int64_t m, int64_t dim, int64_t shared_bytes)
      : panels(ceil_div<int64_t>(n, kLaneRows)), steps(m) {
    const int64_t slots = ceil_div<int64_t>(dim, kDepth);
    x_slots = slots > kStages && shared(slots) <= shared_bytes ? slots : kStages;
  }

  static int64_t shared(int64_t slots) { return kOperands + (slots + kStages) * kSlot; }
  int64_t shared_bytes() const { return shared(x_slots); }
  static int64_t blocks(int64_t batch_x, int64_t batch_y) {
    return ceil_div<int64_t>(batch_x, kFusedX) * ceil_div<int64_t>(batch_y, kFusedY);
  }
  // Numbers that cross panels.
  int64_t carried(int64_t blocks) const { return panels > 1 ? blocks * steps * kFusedPairs : 0; }
  // Columns of cells that a sweep saves.
  int64_t columns(int64_t blocks) const { return blocks * panels * steps * kFusedPairs; }
};

// Sizes and limits that choose_sweep compares.
struct Workload {
  int64_t batch_x, batch_y, steps_x, steps_y, dim;
  bool paired;
  int64_t cell_bytes;  // what a cell of the forms with a tile takes of the scratch
  // Whether the products may be left to a fused sweep, forward and of numbers of 16 bits, and what that saves of a
  // column of kLaneRows cells.
  bool may_fuse;
  int64_t column_bytes;
  int64_t multiprocessors, scratch_bytes, shared_bytes, block_pairs;  // see OnDevice
};

// A warp of lanes hides the latency of its own recursion behind that of a few others: with fewer pairs for each
// multiprocessor than this, they are given a block each.
inline constexpr int64_t kPairsPerMultiprocessor = 128;

inline Sweep choose_sweep(const Workload& of) {
  // The steps of one pair's y are adjacent, which is no order for neighbors that have a pair each.
  if (of.paired) {
    return Sweep::wavefront;
  }
  const int64_t pairs = of.batch_x * of.batch_y;
  const FusedShape fused(of.steps_x, of.steps_y, of.dim, of.shared_bytes);
  const int64_t blocks = FusedShape::blocks(of.batch_x, of.batch_y);
  const int64_t block_bytes = fused.carried(1) * 4 + fused.columns(1) * of.column_bytes;
  const int64_t max_blocks = block_bytes > 0 ? of.scratch_bytes / block_bytes : blocks;
  // A block for each multiprocessor at a time, and no more padding than pairs.
  if (of.may_fuse && of.shared_bytes >= FusedShape::kMinShared && std::min(blocks, max_blocks) >= of.multiprocessors &&
      pairs >= blocks * of.block_pairs) {
    return Sweep::fused;
  }
  const int64_t at_a_time = std::min(pairs, of.scratch_bytes / (of.steps_x * of.steps_y * of.cell_bytes));
  // A pair that does not fit is cut into parts, which only a wavefront hands on.
  return at_a_time > 0 && at_a_time >= kPairsPerMultiprocessor * of.multiprocessors ? Sweep::lanes : Sweep::wavefront;
}

// Shape of the other two sweeps of pairs of up to N by M steps, `height` rows at a time: N, or a part's.
struct SweepShape {
  Sweep sweep;
  int rows;        // K
  int64_t all;     // panels of the longest x
  int64_t panels;  // at a time
  int64_t visits;  // of a column of K cells by one thread in a panel, those before the first and after the last too
  int warps;       // of a block

  SweepShape(Sweep which, int64_t n, int64_t m, int64_t height) : sweep(which) {
    const bool lanes = which == Sweep::lanes;
    rows = lanes ? kLaneRows : (n <= kFewRows * kWarp ? kFewRows : kManyRows);
    all = ceil_div(n, panel_rows());
    panels = ceil_div(height, panel_rows());
    visits = lanes ? m : m + kWarp - 1;
    warps = lanes ? kLaneThreads / kWarp : static_cast<int>(panels < kMaxWarps ? panels : kMaxWarps);
  }

  int64_t panel_rows() const { return sweep == Sweep::lanes ? rows : rows * kWarp; }
  // Rows of which parts are multiples.
  int64_t part_unit() const { return sweep == Sweep::lanes ? all * rows : panel_rows(); }

  // Threads that a panel of all pairs takes, those without a pair too.
  int64_t threads(int64_t pairs) const {
    return sweep == Sweep::lanes ? ceil_div<int64_t>(pairs, kLaneThreads) * kLaneThreads : pairs * kWarp;
  }
  int64_t blocks(int64_t pairs) const { return sweep == Sweep::lanes ? threads(pairs) / kLaneThreads : pairs; }
  // Columns of K cells that a sweep saves.
  int64_t columns(int64_t pairs) const { return threads(pairs) * panels * visits; }
  // Numbers that cross panels by way of memory.
  int64_t carried(int64_t pairs, int64_t m) const {
    const bool crosses = sweep == Sweep::lanes ? all > 1 : all > warps;
    return crosses ? m * (sweep == Sweep::lanes ? threads(pairs) : pairs) : 0;
  }
  size_t shared_bytes(size_t element) const {
    return sweep == Sweep::wavefront && warps > 1 ? static_cast<size_t>(warps) * kRing * element : 0;
  }
};

}  // namespace scav::device
