#pragma once
// Scratch of soft-DTW's sweeps for a tile on a GPU, for costs from products or from the caller.

#include "cuda/op.h"
#include "cuda/soft_dtw.h"

namespace scav::device {

// `Word`: of the softmin's weights, see kKeptWords.
template <class T, class Word = T>
class SoftDtwScratch {
 public:
  SoftDtwScratch(Sweep sweep, int64_t n, int64_t m, double gamma, std::optional<int64_t> band,
                 const at::TensorOptions& options)
      : sweep_(sweep),
        n_(n),
        m_(m),
        gamma_(gamma),
        band_(band.value_or(-1)),
        options_(options),
        carry_(options),
        message_(options),
        softmin_(options.dtype(c10::CppTypeToScalarType<Word>::value)) {}

  void forward(const Parts<T>& parts, T* out, Stream stream) {
    parts.each([&](const Costs<T>& costs) { forward(costs, out, stream); });
  }

  // `out` is scratch.
  Adjoint<T> adjoint(T* out, Stream stream) {
    const auto write = [this, out, stream](const Costs<T>& costs, const T* grads, const Weights<T>& to) {
      const SweepShape shape = shape_of(costs);
      T* const carry = carried(costs);
      if (costs.begin > 0) {
        row(carry).copy_(above(costs));
      }
      const int64_t cells = shape.columns(costs.count) * shape.rows;
      launch_soft_dtw_backward<T, Word>(costs, shape, gamma_, band_, grads, carry,
                                        message_.template of<T>(shape.carried(costs.count, m_)),
                                        softmin_.template of<Word>(kKeptWords<T, Word> * cells), out, to, stream);
    };
    // The forward pass, for the row of r above each part.
    const auto survey = [this, out, stream](const Parts<T>& parts) {
      above_ = at::empty({SweepShape(sweep_, n_, m_, n_).all, m_}, options_);
      parts.each([&](const Costs<T>& costs) {
        if (costs.begin > 0) {
          above(costs).copy_(row(carried(costs)));
        }
        forward(costs, out, stream);
      });
    };
    return {write, survey};
  }

 private:
  SweepShape shape_of(const Costs<T>& costs) const { return {sweep_, n_, m_, costs.end - costs.begin}; }
  T* carried(const Costs<T>& costs) { return carry_.template of<T>(shape_of(costs).carried(costs.count, m_)); }
  at::Tensor row(T* carry) const { return at::from_blob(carry, {m_}, options_); }
  at::Tensor above(const Costs<T>& costs) const { return above_.select(0, costs.begin / shape_of(costs).panel_rows()); }

  void forward(const Costs<T>& costs, T* out, Stream stream) {
    launch_soft_dtw_forward<T>(costs, shape_of(costs), gamma_, band_, carried(costs), out, stream);
  }

  Sweep sweep_;
  int64_t n_, m_;
  double gamma_;
  int64_t band_;
  at::TensorOptions options_;
  Scratch carry_, message_, softmin_;
  at::Tensor above_;  // (panels, M)
};

}  // namespace scav::device
