#pragma once
// Scratch of DTW's sweeps for a tile on a GPU, for costs from products or from the caller.

#include "cuda/op.h"
#include "cuda/dtw.h"

namespace scav::device {

template <class T>
class DtwScratch {
 public:
  // `paths` (results, N + M), filled with end marks, or null.
  DtwScratch(Sweep sweep, int64_t n, int64_t m, const Device& device, uint8_t* paths)
      : sweep_(sweep), n_(n), m_(m), carry_(device), codes_(device), paths_(paths) {}

  Needs needs() const { return dtw_needs(sweep_, n_, m_, sizeof(T), paths_ != nullptr); }

  void forward(const Parts<T>& parts, std::optional<int64_t> band, T* out, Stream stream) {
    parts.each([&](const Costs<T>& costs) {
      const SweepShape shape(sweep_, n_, m_, costs.end - costs.begin);
      launch_dtw_forward<T>(costs, shape, band.value_or(-1), carry_.of(shape.carried(costs.count, m_)),
                            codes_.of(paths_ ? dtw_code_bytes(shape, costs.count) : 0), paths_, out, stream);
    });
  }

 private:
  Sweep sweep_;
  int64_t n_, m_;
  Scratch<T> carry_;
  Scratch<uint8_t> codes_;
  uint8_t* paths_;
};

template <class T>
Adjoint<T> dtw_adjoint(const uint8_t* paths, Stream stream) {
  return {[=](const Costs<T>& costs, const T* grads, const Weights<T>& to) {
            launch_dtw_backward<T>(costs, grads, paths, to, stream);
          },
          {}};
}

}  // namespace scav::device
