// scav::check_pairs, for kernels that are not in C++.

#include "shared/boxed.h"
#include "shared/checks.h"

namespace scav {
namespace {

void check_pairs_op(std::string op, const Tensor& x, const Tensor& y, const std::optional<Tensor>& x_lengths,
                    const std::optional<Tensor>& y_lengths, bool paired) {
  check_pairs(op.c_str(), x, y, x_lengths, y_lengths, paired);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(scav, m) {
  m.def("check_pairs(str op, Tensor x, Tensor y, Tensor? x_lengths, Tensor? y_lengths, bool paired) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(scav, CompositeImplicitAutograd, m) { m.impl("check_pairs", SCAV_BOX(&check_pairs_op)); }

}  // namespace scav
