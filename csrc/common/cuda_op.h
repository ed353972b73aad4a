#pragma once
// What every <distance>_cuda.cpp includes.

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <torch/library.h>

#include <algorithm>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "common/inputs_cuda.h"
#include "common/warping.h"

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
      memory_ = at::empty({elements}, options_);
    }
    return elements > 0 ? memory_.mutable_data_ptr<T>() : nullptr;
  }

 private:
  at::TensorOptions options_;
  at::Tensor memory_;
};

inline int64_t no_scratch(int64_t) { return 0; }

// `cell_bytes`: what a cell takes of the scratch, which is how many pairs there are at a time.
inline SweepShape sweep_shape(const DeviceInputs& inputs, const OnDevice& on, int64_t cell_bytes) {
  const int64_t n = inputs.steps_x(), m = inputs.steps_y();
  const int64_t pairs = std::min(inputs.pairs(), on.scratch_bytes / (n * m * cell_bytes));
  // The steps of one pair's y are adjacent, which is no order for lanes.
  return {inputs.paired ? Sweep::wavefront : choose_sweep(pairs, on.multiprocessors), n, m};
}

inline SweepShape sweep_shape(const DeviceCosts& costs) { return {Sweep::wavefront, costs.steps_x(), costs.steps_y()}; }

inline Order order_of(const SweepShape& shape) {
  return shape.sweep == Sweep::lanes ? Order::by_step : Order::by_sequence;
}

}  // namespace scav::device
