#pragma once
// The fused form of a forward sweep: tensor cores leave the products of 8 x's, 16 rows s each, and 128 y's at one step
// t in shared memory, from where the recursion takes them; no cost cell reaches device memory.
//
// A block has 512 threads. Half of them multiply: for each panel of 16 rows and each t, y's (128, D) by x's rows
// (D, 8 x 16), operands coming in `kDepth` features at a time through a ring of `kStages` slots. The other half sweep
// the products of t - 1 meanwhile, four pairs of one y a thread, as lanes do (cuda/sweep.h): state in registers,
// one number of each pair and t in memory between panels. Two barriers a step: the products of t - 1 have been read;
// those of t are there.

#include "cuda/fused_products.h"
#include "cuda/sweep.h"

#if defined(__CUDACC__) || defined(SCAV_SIMT)

namespace scav::device {

// True if a recorder keeps anything of a column: then save() changes it.
template <class Recorder>
inline constexpr bool kSaves = !requires(const Recorder& recorder) { recorder.save(int64_t(0)); };

// A thread of those that sweep: y number threadIdx % kFusedY of the block against kEach x's.
template <Half Kind, class Recorder>
class Sweeper {
 public:
  SCAV_DEVICE Sweeper(const Costs<float>& costs, const FusedBlock& block, int64_t radius, const Recorder& initial,
                      float* carry, float* out, const float* products, float* x_norms)
      : costs_(costs),
        block_(block),
        recorder_(initial),
        radius_(radius),
        carry_(carry),
        out_(out),
        products_(products),
        x_norms_(x_norms),
        thread_(threadIdx.x - kMultipliers),
        j_(thread_ % kFusedY),
        first_(thread_ / kFusedY * kEach) {}

  SCAV_DEVICE void panel(int s0) {
    keep_norms(s0);
    float left[kEach][kLaneRows], diagonal[kEach];
#pragma unroll
    for (int p = 0; p < kEach; ++p) {
      diagonal[p] = s0 == 0 ? 0.0f : kUnreachable<float>;
#pragma unroll
      for (int k = 0; k < kLaneRows; ++k) {
        left[p][k] = kUnreachable<float>;
      }
    }
    for (int t = 0; t < block_.steps; ++t) {
      barrier(kTurn, kMultipliers + kSweepers);
      barrier(kTurn, kMultipliers + kSweepers);
      if (t < m()) {
        const float y_norm = costs_.y_norms[y_row(t)];
#pragma unroll
        for (int p = 0; p < kEach; ++p) {
          if (s0 < n(p)) {
            step(p, s0, t, y_norm, left[p], diagonal[p]);
          }
        }
      }
    }
#pragma unroll
    for (int p = 0; p < kEach; ++p) {
      float result = 0;
#pragma unroll
      for (int k = 0; k < kLaneRows; ++k) {
        result = s0 + k == n(p) - 1 ? left[p][k] : result;
      }
      if (m() > 0 && s0 < n(p) && n(p) <= s0 + kLaneRows) {
        out_[(block_.first_x + first_ + p) * costs_.batch_y + block_.first_y + j_] = result_of(result);
      }
    }
  }

  SCAV_DEVICE void finish() const {
#pragma unroll 1
    for (int p = 0; p < kEach; ++p) {
      if (n(p) > 0 && m() > 0) {
        const int64_t x = block_.first_x - costs_.first_x + first_ + p, y = block_.first_y - costs_.first_y + j_;
        const Pair<float> pair(costs_, x * costs_.columns + y);
        recorder_.finish(pair, [&](int s, int t) { return column_at(s / kLaneRows, t, p); });
      }
    }
  }

 private:
  static constexpr int kEach = kFusedPairs / kSweepers;

  // Valid steps of x number p of the thread's, and of its y.
  SCAV_DEVICE int n(int p) const { return block_.x_lengths[first_ + p]; }
  SCAV_DEVICE int m() const { return block_.y_lengths[j_]; }

  SCAV_DEVICE int64_t y_row(int t) const { return (block_.first_y + j_) * costs_.steps_y + t; }

  SCAV_DEVICE void keep_norms(int s0) {
    // The panel before has been read by all who sweep.
    barrier(kNorms, kSweepers);
    if (thread_ < kFusedX * kLaneRows) {
      const int i = thread_ / kLaneRows, s = s0 + thread_ % kLaneRows;
      const bool any = i < block_.xs && s < costs_.steps_x;
      x_norms_[thread_] = any ? costs_.x_norms[(block_.first_x + i) * costs_.steps_x + s] : 0.0f;
    }
    barrier(kNorms, kSweepers);
  }

  // At one step, the numbers of neighboring threads are adjacent.
  SCAV_DEVICE int64_t place_at(int64_t step, int p) const {
    int thread = thread_;
    if constexpr (kSaves<Recorder>) {
      // Places are found anew for each column: there are no registers to keep them in.
      asm volatile("" : "+r"(thread));
    }
    return step * kFusedPairs + p * kSweepers + thread;
  }

  SCAV_DEVICE int64_t column_at(int64_t panel, int t, int p) const {
    return block_.first_column + place_at(panel * costs_.steps_y + t, p);
  }

  SCAV_DEVICE void step(int p, int s0, int t, float y_norm, float (&left)[kLaneRows], float& diagonal) {
    const auto product = [&](int k) { return products_[product_at(first_ + p, k, j_)]; };
    const auto x_norm = [&](int k) { return x_norms_[(first_ + p) * kLaneRows + k]; };
    float cost[kLaneRows];
    if (costs_.kind == CellKind::cosine) {
#pragma unroll
      for (int k = 0; k < kLaneRows; ++k) {
        cost[k] = 1.0f - product(k) * (x_norm(k) * y_norm);
      }
    } else {
      costs_of_products<FastRoot>(costs_.kind, cost, x_norm, y_norm, product, product, [&](int k) {
        return squared_difference<NumberOf<Kind>>(costs_, (block_.first_x + first_ + p) * costs_.steps_x + s0 + k,
                                                  y_row(t));
      });
    }
    const int64_t edge = block_.first_edge + place_at(t, p);
    const float up = s0 == 0 ? kUnreachable<float> : carry_[edge];
    const Band band(radius_, n(p), m());
    const float bottom = advance<kLaneRows>(left, cost, diagonal, up, band, t - s0, recorder_);
    diagonal = up;
    if (s0 + kLaneRows < n(p)) {
      carry_[edge] = bottom;
    }
    if constexpr (kSaves<Recorder>) {
      recorder_.save(column_at(s0 / kLaneRows, t, p));
    }
  }

  const Costs<float>& costs_;
  const FusedBlock& block_;
  Recorder recorder_;  // which keeps nothing between columns
  const int64_t radius_;
  float* const carry_;
  float* const out_;
  const float* const products_;
  float* const x_norms_;
  const int thread_, j_, first_;
};

// For sm_90 and later: on sm_80 the compiler lacks a few registers, and choose_sweep picks another sweep.
template <Half Kind, class Recorder>
__global__ void __launch_bounds__(kMultipliers + kSweepers, 1)
    sweep_fused(const __grid_constant__ Costs<float> costs, int x_slots, int64_t radius, Recorder initial, float* carry,
                float* out) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  unsigned char* const shared = shared_memory<unsigned char>();
  float* const products = reinterpret_cast<float*>(shared);
  float* const x_norms = reinterpret_cast<float*>(shared + FusedShape::kTile);
  FusedBlock& block = *reinterpret_cast<FusedBlock*>(shared + FusedShape::kTile + FusedShape::kRowNorms);
  if (threadIdx.x < kWarp) {
    block.fill(costs);
  }
  __syncthreads();
  // Warps of either kind; they meet at kTurn.
  if (threadIdx.x < kMultipliers) {
    Multiplier<Kind> multiplier(costs, block, x_slots, shared);
    for (int panel = 0; panel < block.panels; ++panel) {
      multiplier.panel(panel * kLaneRows);
    }
  } else {
    Sweeper<Kind, Recorder> sweeper(costs, block, radius, initial, carry, out, products, x_norms);
    for (int panel = 0; panel < block.panels; ++panel) {
      sweeper.panel(panel * kLaneRows);
    }
    sweeper.finish();
  }
#endif
}

// Runs the sweep of rows of 16-bit numbers, `make(K)` being its recorder for columns of K cells.
template <class Make>
void launch_fused(const char* what, const Costs<float>& costs, const FusedShape& shape, int64_t band, float* carry,
                  float* out, Stream stream, const Make& make) {
  auto recorder = make(std::integral_constant<int, kLaneRows>());
  const int64_t blocks = FusedShape::blocks(costs.count / costs.columns, costs.columns);
  const auto run = [&](auto kernel) {
    launch(what, kernel, blocks, kMultipliers + kSweepers, static_cast<size_t>(shape.shared_bytes()), stream, costs,
           static_cast<int>(shape.x_slots), band, recorder, carry, out);
  };
  if (costs.x.kind == Rows::Kind::bfloat16) {
    run(sweep_fused<Half::bfloat16, decltype(recorder)>);
  } else {
    run(sweep_fused<Half::float16, decltype(recorder)>);
  }
}

}  // namespace scav::device

#endif
