#pragma once
// Headers that every cuda/<distance>.cpp includes.

#include <algorithm>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "cuda/aten.h"
#include "cuda/inputs.h"
#include "cuda/sweep.h"
#include "shared/boxed.h"
#include "shared/dtw_options.h"

// The key under which the ops are registered; the shim's runs on CPU tensors.
#if defined(SCAV_SIMT)
#define SCAV_DEVICE_KEY CPU
#else
#define SCAV_DEVICE_KEY CUDA
#endif

namespace scav::device {

// Memory that tiles use one after another, as large as the largest has asked for.
template <class T>
class Scratch {
 public:
  explicit Scratch(const Device& device) : device_(device) {}

  // Null where there is no need of any.
  T* of(int64_t elements) {
    if (elements > elements_) {
      // Never both: the stream orders their uses.
      memory_ = Tensor();
      memory_ = new_empty({elements * int64_t(sizeof(T))}, kByte, device_);
      elements_ = elements;
    }
    return elements > 0 ? static_cast<T*>(memory_.mutable_data_ptr()) : nullptr;
  }

 private:
  Device device_;
  Tensor memory_;
  int64_t elements_ = 0;
};

// Needs of a reducer that takes its cells one by one.
inline Needs no_needs() {
  return {[](int64_t, int64_t) { return 0; }, kWarp};
}

// `cell_bytes`: what a cell takes of the scratch, which is how many pairs there are at a time.
inline Workload workload(const OnDevice& on, const Tensor& x, const Tensor& y, bool paired, int64_t cell_bytes) {
  return {x.size(0), y.size(0), x.size(1),          y.size(1),        x.size(2),       paired,        cell_bytes,
          false,     0,         on.multiprocessors, on.scratch_bytes, on.shared_bytes, on.block_pairs};
}

// Chooses the sweep of a forward pass, which keeps `column_bytes` of a column of kLaneRows cells. `fusible`: a fused
// sweep has the options.
inline Sweep choose_forward(const OnDevice& on, const Tensor& x, const Tensor& y, bool paired, int64_t column_bytes,
                            bool fusible) {
  Workload of = workload(on, x, y, paired, accumulation_dtype(x) == kDouble ? sizeof(double) : sizeof(float));
  of.may_fuse = fusible && x.element_size() == 2;
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
