#pragma once
// What soft-DTW's adjoint keeps of a tile on a GPU, for costs of either origin.

#include "common/cuda_op.h"
#include "soft_dtw_cuda.h"

namespace scav::device {

template <class T>
class SoftDtwScratch {
 public:
  SoftDtwScratch(const SweepShape& shape, int64_t steps_y, const std::vector<int64_t>& results,
                 const at::TensorOptions& options)
      : shape_(shape), steps_y_(steps_y), carry_(options), softmin_(options), out_(at::empty(results, options)) {}

  BytesOfPairs bytes() const {
    return [shape = shape_, m = steps_y_](int64_t pairs) {
      return (shape.carried(pairs, m) + 2 * shape.columns(pairs) * shape.rows) * int64_t(sizeof(T));
    };
  }

  void backward(const Costs<T>& costs, double gamma, std::optional<int64_t> band, const T* grads, const Weights<T>& to,
                Stream stream) {
    launch_soft_dtw_backward<T>(
        costs, shape_, gamma, band.value_or(-1), grads, carry_.of<T>(shape_.carried(costs.count, steps_y_)),
        softmin_.of<T>(2 * shape_.columns(costs.count) * shape_.rows), out_.mutable_data_ptr<T>(), to, stream);
  }

 private:
  SweepShape shape_;
  int64_t steps_y_;
  Scratch carry_, softmin_;
  at::Tensor out_;
};

}  // namespace scav::device
