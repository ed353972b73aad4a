#pragma once
// Headers that every cuda/<distance>.cpp includes.

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <torch/library.h>

#include <algorithm>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "cuda/inputs.h"
#include "cuda/sweep.h"

// The key under which the ops are registered; the shim's runs on CPU tensors.
#if defined(SCAV_SIMT)
#define SCAV_DEVICE_KEY CPU
#else
#define SCAV_DEVICE_KEY CUDA
#endif

namespace scav::device {

// Memory that tiles use one after another, as large as the largest has asked for.
class Scratch {
 public:
  explicit Scratch(at::TensorOptions options) : options_(options) {}

  // Null where there is no need of any.
  template <class T>
  T* of(int64_t elements) {
    if (elements > 0 && (!memory_.defined() || memory_.numel() < elements)) {
      // Never both: the stream orders their uses.
      memory_.reset();
      memory_ = at::empty({elements}, options_);
    }
    return elements > 0 ? memory_.mutable_data_ptr<T>() : nullptr;
  }

 private:
  at::TensorOptions options_;
  at::Tensor memory_;
};

// Needs of a reducer that takes its cells one by one.
inline Needs no_needs() {
  return {[](int64_t, int64_t) { return 0; }, kWarp};
}

// `cell_bytes`: what a cell takes of the scratch, which is how many pairs there are at a time.
inline Workload workload(const OnDevice& on, const at::Tensor& x, const at::Tensor& y, bool paired,
                         int64_t cell_bytes) {
  return {x.size(0), y.size(0), x.size(1),          y.size(1),        x.size(2),       paired,        cell_bytes,
          false,     0,         on.multiprocessors, on.scratch_bytes, on.shared_bytes, on.block_pairs};
}

// Chooses the sweep of a forward pass, which keeps `column_bytes` of a column of kLaneRows cells.
inline Sweep choose_forward(const OnDevice& on, const at::Tensor& x, const at::Tensor& y, bool paired,
                            int64_t column_bytes) {
  Workload of = workload(on, x, y, paired, c10::elementSize(accumulation_dtype(x)));
  of.may_fuse = x.element_size() == 2;
  of.column_bytes = column_bytes;
  return choose_sweep(of);
}

// Chooses the sweep of a backward pass.
inline Sweep choose_backward(const DeviceInputs& inputs, const OnDevice& on, int64_t cell_bytes) {
  return choose_sweep(workload(on, inputs.x, inputs.y, inputs.paired, cell_bytes));
}

inline RowsFor rows_for(Sweep sweep) { return sweep == Sweep::fused ? RowsFor::fused : RowsFor::products; }

inline Order order_of(Sweep sweep) { return sweep == Sweep::lanes ? Order::by_step : Order::by_sequence; }

}  // namespace scav::device
