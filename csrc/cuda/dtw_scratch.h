#pragma once
// Scratch of DTW's sweeps for a tile on a GPU, for costs from products or from the caller.

#include "cuda/op.h"
#include "cuda/dtw.h"

namespace scav::device {

template <class T>
class DtwScratch {
 public:
  // `paths` (results, N + M), filled with end marks, or null.
  DtwScratch(Sweep sweep, int64_t n, int64_t m, const DtwOptions& options, const Device& device, uint8_t* paths)
      : sweep_(sweep), n_(n), m_(m), options_(options), carry_(device), codes_(device), paths_(paths) {}

  Needs needs() const { return dtw_needs(sweep_, n_, m_, sizeof(T), walks_paths(options_, paths_)); }

  void forward(const Parts<T>& parts, T* out, Stream stream) {
    parts.each([&](const Costs<T>& costs) {
      const SweepShape shape(sweep_, n_, m_, costs.end - costs.begin);
      const int64_t code_bytes = walks_paths(options_, paths_) ? dtw_code_bytes(shape, costs.count) : 0;
      launch_dtw_forward<T>(costs, shape, options_, carry_.of(shape.carried(costs.count, m_)), codes_.of(code_bytes),
                            paths_, out, stream);
    });
  }

 private:
  Sweep sweep_;
  int64_t n_, m_;
  DtwOptions options_;
  Scratch<T> carry_;
  Scratch<uint8_t> codes_;
  uint8_t* paths_;
};

template <class T>
Adjoint<T> dtw_adjoint(const PathOptions& options, const uint8_t* paths, Stream stream) {
  return {[=](const Costs<T>& costs, const T* grads, const Weights<T>& to) {
            launch_dtw_backward<T>(costs, options, grads, paths, to, stream);
          },
          {}};
}

}  // namespace scav::device
