#pragma once
// Scratch of soft-DTW's sweeps for a tile on a GPU, for costs from products or from the caller.

#include <torch/csrc/stable/ops.h>

#include "cuda/op.h"
#include "cuda/soft_dtw.h"

namespace scav::device {

// `Word`: of the softmin's weights, see kKeptWords.
template <class T, class Word = T>
class SoftDtwScratch {
 public:
  SoftDtwScratch(Sweep sweep, int64_t n, int64_t m, const SoftDtwOptions& options, const Device& device)
      : sweep_(sweep),
        n_(n),
        m_(m),
        options_(options),
        device_(device),
        carry_(device),
        message_(device),
        ends_(device),
        softmin_(device) {}

  void forward(const Parts<T>& parts, T* out, Stream stream) {
    parts.each([&](const Costs<T>& costs) { forward(costs, out, stream); });
  }

  // `out` is scratch.
  Adjoint<T> adjoint(T* out, Stream stream) {
    const auto write = [this, out, stream](const Costs<T>& costs, const T* grads, const Weights<T>& to) {
      const SweepShape shape = shape_of(costs);
      T* const carry = carried(costs);
      if (costs.begin > 0) {
        copy(above(costs), row(carry));
      }
      const int64_t cells = shape.columns(costs.count) * shape.rows;
      launch_soft_dtw_backward<T, Word>(costs, shape, options_, grads, carry,
                                        message_.of(shape.carried(costs.count, m_)),
                                        softmin_.of(kKeptWords<T, Word> * cells),
                                        ends_.of(options_.open.end ? costs.count * m_ : 0), out, to, stream);
    };
    // The forward pass, for the row of r above each part.
    const auto survey = [this, out, stream](const Parts<T>& parts) {
      above_ = new_empty({SweepShape(sweep_, n_, m_, n_).all, m_}, kTypeOf<T>, device_);
      parts.each([&](const Costs<T>& costs) {
        if (costs.begin > 0) {
          copy(row(carried(costs)), above(costs));
        }
        forward(costs, out, stream);
      });
    };
    return {write, survey};
  }

 private:
  SweepShape shape_of(const Costs<T>& costs) const { return {sweep_, n_, m_, costs.end - costs.begin}; }
  T* carried(const Costs<T>& costs) { return carry_.of(shape_of(costs).carried(costs.count, m_)); }
  Tensor row(T* carry) const { return torch::stable::from_blob(carry, Shape{m_}, Shape{1}, device_, kTypeOf<T>); }
  Tensor above(const Costs<T>& costs) const {
    return torch::stable::select(above_, 0, costs.begin / shape_of(costs).panel_rows());
  }
  static void copy(const Tensor& from, Tensor to) { torch::stable::copy_(to, from); }

  void forward(const Costs<T>& costs, T* out, Stream stream) {
    launch_soft_dtw_forward<T>(costs, shape_of(costs), options_, carried(costs), out, stream);
  }

  Sweep sweep_;
  int64_t n_, m_;
  SoftDtwOptions options_;
  Device device_;
  Scratch<T> carry_, message_, ends_;
  Scratch<Word> softmin_;
  Tensor above_;  // (panels, M)
};

}  // namespace scav::device
