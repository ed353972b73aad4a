#pragma once
// The products of a fused sweep (cuda/fused.h): what a block has, where things lie in its shared memory, and the
// threads that multiply.

#include "cuda/device_costs.h"
#include "cuda/sweep_shape.h"
#include "cuda/tensor_cores.h"

#if defined(__CUDACC__) || defined(SCAV_SIMT)

namespace scav::device {

// __syncthreads() is 0.
inline constexpr int kTurn = 1, kOperands = 2, kNorms = 3;
inline constexpr int kVectors = kDepth * 2 / 16;  // of a slot's row, 16 bytes each

// A block's pairs, steps and lengths: in shared memory, because registers are scarce.
struct FusedBlock {
  int64_t first_x, first_y;                    // in the batches
  int64_t first_edge, first_column;            // of what crosses panels, and of what is saved of columns
  int xs, ys;                                  // at most kFusedX, kFusedY
  int panels, steps;                           // of its longest sequences
  int x_lengths[kFusedX], y_lengths[kFusedY];  // 0 beyond xs, ys

  // By the first warp.
  SCAV_DEVICE void fill(const Costs<float>& costs) {
    const int64_t rows = costs.count / costs.columns, x_blocks = ceil_div<int64_t>(rows, kFusedX);
    // Blocks that run at a time share their y's.
    const int64_t block = blockIdx.x, x = block % x_blocks * kFusedX, y = block / x_blocks * kFusedY;
    const int x_count = static_cast<int>(rows - x < kFusedX ? rows - x : kFusedX);
    const int y_count = static_cast<int>(costs.columns - y < kFusedY ? costs.columns - y : kFusedY);
    const int lane = threadIdx.x;
    const int n = lane < x_count ? length(costs.x_lengths, costs.first_x + x + lane, costs.steps_x) : 0;
    int m = 0;
    for (int j = lane; j < kFusedY; j += kWarp) {
      y_lengths[j] = j < y_count ? length(costs.y_lengths, costs.first_y + y + j, costs.steps_y) : 0;
      m = max(m, y_lengths[j]);
    }
    const int longest_x = warp_max(n), longest_y = warp_max(m);
    if (lane < kFusedX) {
      x_lengths[lane] = n;
    }
    if (lane == 0) {
      first_edge = block * costs.steps_y * kFusedPairs;
      first_column = first_edge * ceil_div<int64_t>(costs.steps_x, kLaneRows);
      first_x = costs.first_x + x;
      first_y = costs.first_y + y;
      xs = x_count;
      ys = y_count;
      panels = ceil_div(longest_x, kLaneRows);
      steps = longest_y;
    }
  }

  SCAV_DEVICE static int length(const int64_t* lengths, int64_t sequence, int64_t steps) {
    return static_cast<int>(lengths != nullptr ? lengths[sequence] : steps);
  }
};
static_assert(sizeof(FusedBlock) <= FusedShape::kBlock);

// The product of row k of the panel of x number i and y number j: neighboring y's in neighboring banks, and likewise
// the lanes that store a fragment, which have eight y's and every other row.
SCAV_DEVICE int product_at(int i, int k, int j) { return (i * kLaneRows + k) * kFusedY + (j ^ ((k >> 1 & 3) << 3)); }

// Place of 16 bytes of a slot's row: eight rows' vectors of one number are in different banks.
SCAV_DEVICE int vector_at(int row, int vector) { return (row * kVectors + (vector ^ (row >> 1 & 3))) * 8; }

// A thread of those that multiply. A warp has 64 y's and two x's: four tiles of 16 y's by four of 8 rows.
template <Half Kind>
class Multiplier {
 public:
  SCAV_DEVICE Multiplier(const Costs<float>& costs, const FusedBlock& block, int x_slots, unsigned char* shared)
      : costs_(costs),
        block_(block),
        x_slots_(x_slots),
        groups_(static_cast<int>(ceil_div<int64_t>(costs.x.dim, kDepth))),
        y_operands_(reinterpret_cast<uint16_t*>(shared + FusedShape::kOperands)),
        x_operands_(y_operands_ + kStages * kSlot),
        products_(reinterpret_cast<float*>(shared)),
        lane_(threadIdx.x % kWarp),
        warp_y_(threadIdx.x / kWarp % 2 * 64),
        warp_x_(threadIdx.x / kWarp / 2 * 2) {}

  SCAV_DEVICE void panel(int s0) {
    // Rows that the longer of the warp's two x's has left.
    int rows = 0;
    for (int i = warp_x_; i < warp_x_ + 2 && warp_y_ < block_.ys; ++i) {
      rows = max(rows, block_.x_lengths[i] - s0);
    }
    const int count = block_.steps * groups_;
    for (int ahead = 0; ahead < kStages - 1; ++ahead) {
      load(s0, ahead, count);
    }
    float sums[4][4][4] = {};
    for (int number = 0, group = 0; number < count; ++number) {
      wait_for_copies<kStages - 2>();
      // Everyone's copies are there, and everyone has read the slot that is filled next.
      barrier(kOperands, kMultipliers);
      load(s0, number + kStages - 1, count);
      if (rows > 0) {
        add(sums, number, group, rows > 8);
      }
      if (++group == groups_) {
        barrier(kTurn, kMultipliers + kSweepers);
        store(sums);
        barrier(kTurn, kMultipliers + kSweepers);
        group = 0;
      }
    }
    // Nobody's operands are overwritten by the next panel's.
    wait_for_copies<0>();
    barrier(kOperands, kMultipliers);
  }

 private:
  static constexpr int kSlot = kFusedY * kDepth;

  SCAV_DEVICE bool stays() const { return x_slots_ > kStages; }

  // Operands of group `number` of the panel's, step by step; none beyond the last, as a group of copies.
  SCAV_DEVICE void load(int s0, int number, int count) {
    if (number < count) {
      const int t = number / groups_, group = number % groups_;
      const int64_t dim = costs_.x.dim;
#pragma unroll 1
      for (int index = threadIdx.x; index < kFusedY * kVectors; index += kMultipliers) {
        const int row = index / kVectors, vector = index % kVectors;
        const int64_t feature = int64_t(group) * kDepth + vector * 8;
        const bool any = row < block_.ys && feature < dim;
        const int64_t from = any ? ((block_.first_y + row) * costs_.steps_y + t) * dim + feature : 0;
        copy_async(y_operands_ + number % kStages * kSlot + vector_at(row, vector),
                   static_cast<const uint16_t*>(costs_.y.data) + from, any);
      }
      const int slot = stays() ? group : number % kStages;
#pragma unroll 1
      for (int index = threadIdx.x; (t == 0 || !stays()) && index < kFusedY * kVectors; index += kMultipliers) {
        const int row = index / kVectors, vector = index % kVectors, i = row / kLaneRows, s = s0 + row % kLaneRows;
        const int64_t feature = int64_t(group) * kDepth + vector * 8;
        const bool any = i < block_.xs && s < costs_.steps_x && feature < dim;
        const int64_t from = any ? ((block_.first_x + i) * costs_.steps_x + s) * dim + feature : 0;
        copy_async(x_operands_ + slot * kSlot + vector_at(row, vector),
                   static_cast<const uint16_t*>(costs_.x.data) + from, any);
      }
    }
    commit_copies();
  }

  // `whole`: an x has more than the first eight rows of the panel.
  SCAV_DEVICE void add(float (&sums)[4][4][4], int number, int group, bool whole) const {
    const uint16_t* const y = y_operands_ + number % kStages * kSlot;
    const uint16_t* const x = x_operands_ + (stays() ? group : number % kStages) * kSlot;
#pragma unroll
    for (int k = 0; k < kDepth / 16; ++k) {
      uint32_t a[4][4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        load_matrices(a[i], y + vector_at(warp_y_ + i * 16 + lane_ % 16, 2 * k + lane_ / 16));
      }
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        uint32_t b[4];
        load_matrices(b, x + vector_at((warp_x_ + j) * kLaneRows + lane_ / 16 * 8 + lane_ % 8, 2 * k + lane_ / 8 % 2));
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          multiply<Kind>(sums[i][2 * j], a[i], b[0], b[1]);
        }
        if (whole) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            multiply<Kind>(sums[i][2 * j + 1], a[i], b[2], b[3]);
          }
        }
      }
    }
  }

  // Leaves zeros.
  SCAV_DEVICE void store(float (&sums)[4][4][4]) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int x = warp_x_ + j / 2, k = j % 2 * 8 + lane_ % 4 * 2 + e % 2;
          products_[product_at(x, k, warp_y_ + i * 16 + e / 2 * 8 + lane_ / 4)] = sums[i][j][e];
          sums[i][j][e] = 0;
        }
      }
    }
  }

  const Costs<float>& costs_;
  const FusedBlock& block_;
  const int x_slots_, groups_;
  uint16_t* const y_operands_;
  uint16_t* const x_operands_;
  float* const products_;
  const int lane_, warp_y_, warp_x_;
};

}  // namespace scav::device

#endif
