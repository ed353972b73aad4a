// scav::check_pairs, for kernels that are not in C++.

#include <torch/library.h>

#include "shared/checks.h"

namespace scav {

TORCH_LIBRARY_FRAGMENT(scav, m) {
  m.def("check_pairs(str op, Tensor x, Tensor y, Tensor? x_lengths, Tensor? y_lengths, bool paired) -> ()",
        [](const std::string& op, const at::Tensor& x, const at::Tensor& y, const std::optional<at::Tensor>& x_lengths,
           const std::optional<at::Tensor>& y_lengths,
           bool paired) { check_pairs(op.c_str(), x, y, x_lengths, y_lengths, paired); });
}

}  // namespace scav
