#pragma once
// Inputs of every op on a GPU, checked once, in the form that the kernels read, and tiles of pairs with their products.
// Nothing here waits for the device, or reads from it.

#include <torch/csrc/stable/accelerator.h>

#include <functional>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "shared/checks.h"
#include "cuda/cut.h"
#include "cuda/device_costs.h"

namespace scav::device {

// For a tile. Beside it there are gradients in the dtype of accumulation, packed copies, and what cuBLAS takes.
inline constexpr int64_t kScratchBytes = int64_t(384) << 20;

// Makes a tensor's device current for as long as it lives, and knows what of it decides how a call is cut up.
class OnDevice {
 public:
  explicit OnDevice(const Tensor& tensor);
  Device device;
  Stream stream;
  int64_t multiprocessors;
  int64_t scratch_bytes;  // for the cells of a tile and what is saved of them
  int64_t shared_bytes;   // of shared memory, at most, for a block
  int64_t block_pairs;    // that a block of a fused sweep must have, on average, to be worth it

 private:
  // None for the shim's tensors on the CPU.
  std::optional<torch::stable::accelerator::DeviceGuard> guard_;
};

// Sequences as the kernels read them.
struct DeviceInputs {
  Tensor x_given, y_given;  // contiguous, as the caller passed them
  Tensor x, y;              // (B1, N, D), (B2, M, D): rows to multiply; zero where padding or nonfinite
  // (B1,), (B2,) int64 between 1 and the steps, or undefined: all steps; and as given.
  Tensor x_lengths, y_lengths, x_lengths_given, y_lengths_given;
  Tensor x_norms, y_norms;          // (B1, N), (B2, M) squared; factors of a cosine's products for a fused sweep
  Tensor x_nonfinite, y_nonfinite;  // (B1,), (B2,)
  Cost cost;
  bool paired;
  ScalarType dtype;  // of accumulation and results

  int64_t batch_x() const { return x.size(0); }
  int64_t batch_y() const { return y.size(0); }
  int64_t steps_x() const { return x.size(1); }
  int64_t steps_y() const { return y.size(1); }
  int64_t dim() const { return x.size(2); }
  bool empty() const { return batch_x() == 0 || batch_y() == 0; }
  int64_t pairs() const { return paired ? batch_x() : batch_x() * batch_y(); }
  Shape result_shape(Shape tail = {}) const;
  // (B1, B2), or (B,) when paired: 0, or the inf or NaN that a result becomes.
  Tensor nonfinite() const;
  // Of the results' dtype.
  Tensor new_empty(const Shape& shape) const { return scav::new_empty(shape, dtype, x.device()); }
  Tensor new_zeros(const Shape& shape) const { return scav::new_zeros(shape, dtype, x.device()); }
};

// Use of the rows: products of a forward pass; a fused sweep, for which rows of 16 bits stay such rows,
// and end with zeros up to 16 bytes; or an adjoint, whose dtype must hold the weights of a backward pass.
enum class RowsFor { products, fused, adjoint };

DeviceInputs check_device_inputs(const char* op, const OnDevice& on, const Tensor& x, const Tensor& y,
                                 const std::optional<Tensor>& x_lengths, const std::optional<Tensor>& y_lengths,
                                 const std::string& cost, bool paired, RowsFor purpose);

// Results of pairs that hold inf or NaN become that inf or NaN.
void spread_nonfinite(const DeviceInputs& inputs, Tensor& result);

// `grad` with zeros for nonfinite pairs, and which sequences receive NaN gradients for those that had another.
struct NonfiniteGradients {
  Tensor grad, x, y;
};
NonfiniteGradients separate_nonfinite(const DeviceInputs& inputs, const Tensor& grad);

// The gradient of one side in the caller's dtype, empty for undefined `dx`; see finish_rows.
Tensor finish_gradient(const Tensor& given, const Tensor& lengths, bool unit, const Tensor& dx, const Tensor& along,
                       const Tensor& nonfinite_gradients, Stream stream);

Rows rows_of(const Tensor& rows);
const int64_t* lengths_or_null(const Tensor& lengths);

// Order of the steps of a tile's y's in the products: one y after another, or step by step, for lanes that have a
// y each.
enum class Order { by_sequence, by_step };

// A tile's rows, from the first: all, or parts of the pair that it is. `at` brings those of one, from row number *
// height, where those of the one before it lay.
template <class T>
struct Parts {
  int64_t count;
  std::function<const Costs<T>&(int64_t number)> at;

  void each(const std::function<void(const Costs<T>&)>& f) const {
    for (int64_t number = 0; number < count; ++number) {
      f(at(number));
    }
  }
};

// Calls f(parts) for tiles that cover all pairs. Tiles are as large as the scratch allows, with what they need beside
// their products.
template <class T>
void for_each_tile(const DeviceInputs& inputs, const OnDevice& on, Order order, const Needs& beside,
                   const std::function<void(const Parts<T>&)>& f);

// f(costs, blocks) for pairs by the block of a fused sweep, which need `block_bytes` each, without products.
void for_each_fused_tile(const DeviceInputs& inputs, const OnDevice& on, int64_t block_bytes,
                         const std::function<void(const Costs<float>&, int64_t blocks)>& f);

// The adjoint of a reducer. `write` writes the weights of a tile from zero, of parts from the last to the first,
// `grads` by result; `survey`, if there is need of it, sees the parts before.
template <class T>
struct Adjoint {
  std::function<void(const Costs<T>&, const T* grads, const Weights<T>&)> write;
  std::function<void(const Parts<T>&)> survey;
};

// The gradients of both sides, of those that are needed.
template <class T>
std::tuple<Tensor, Tensor> gradients(const DeviceInputs& inputs, const OnDevice& on, Order order, const Tensor& grad,
                                     bool need_x, bool need_y, const Needs& beside, const Adjoint<T>& adjoint);

// Costs from the caller.
struct DeviceCosts {
  bool paired;                  // B2 = 1: the costs are those of B1 pairs, with a length of y each
  Tensor cost;                  // (B1, B2, N, M) in the dtype of accumulation
  Tensor x_lengths, y_lengths;  // or undefined: all steps
  Tensor nonfinite;             // (B1, B2), or (B1,) if paired
  Tensor given;

  int64_t steps_x() const { return cost.size(2); }
  int64_t steps_y() const { return cost.size(3); }
  int64_t pairs() const { return cost.size(0) * cost.size(1); }
  Shape result_shape(Shape tail = {}) const;
  ScalarType dtype() const { return cost.scalar_type(); }
  Tensor new_result() const { return new_empty(result_shape(), dtype(), cost.device()); }
};

// `blocked`: pairs in which a step has no finite cost are marked with inf, too.
DeviceCosts check_device_costs(const char* op, const OnDevice& on, const Tensor& cost,
                               const std::optional<Tensor>& x_lengths, const std::optional<Tensor>& y_lengths,
                               bool blocked);

void spread_nonfinite(const DeviceCosts& costs, Tensor& result);

// All pairs, as one tile.
template <class T>
Costs<T> whole(const DeviceCosts& costs);

// Calls f(parts) for as many pairs at a time as the scratch allows.
template <class T>
void for_each_tile(const DeviceCosts& costs, const OnDevice& on, const Needs& needs,
                   const std::function<void(const Parts<T>&)>& f);

// The gradient in the caller's dtype.
template <class T>
Tensor gradient(const DeviceCosts& costs, const OnDevice& on, const Tensor& grad, const Needs& needs,
                const Adjoint<T>& adjoint);

}  // namespace scav::device
