// scav::selected_interpolated_euclidean on the CPU; schema in scav_kernels/search/kernels.py.

#include "cpu/stored_inputs.h"

#define SCAV_KERNELS "cpu/search_all_pairs.inl"
#include "cpu/foreach_level.h"

namespace scav {
namespace {

Tensor selected_interpolated_euclidean(const Tensor& x, const Tensor& y, const std::optional<Tensor>& x_lengths,
                                       const std::optional<Tensor>& y_lengths, const Tensor& chosen_x,
                                       const Tensor& chosen_y, int64_t target, bool squared) {
  constexpr const char* op = "selected_interpolated_euclidean";
  leave_threads_behind_after_fork();
  check_pairs(op, x, y, x_lengths, y_lengths, false);
  check_cpu(op, "x", x);
  SCAV_CHECK_VALUE(target >= 1, op, ": expected a target of at least one step, got ", target);
  const StoredSteps stored_x(op, "x_lengths", x, x_lengths), stored_y(op, "y_lengths", y, y_lengths);
  const Tensor first = check_indices(op, "chosen_x", chosen_x, x.size(0));
  const Tensor second = check_indices(op, "chosen_y", chosen_y, y.size(0));
  Tensor out = new_empty({first.numel(), second.numel()}, accumulation_dtype(x));
  if (out.numel() == 0) {
    return out;
  }
  SCAV_DISPATCH(out.scalar_type(), [&] {
    const StoredRows<scalar_t> rows_x = stored_x.rows<scalar_t>(), rows_y = stored_y.rows<scalar_t>();
    const Selection<scalar_t> from_x{rows_x, first.const_data_ptr<int64_t>(), first.numel()};
    const Selection<scalar_t> from_y{rows_y, second.const_data_ptr<int64_t>(), second.numel()};
    SCAV_AT_LEVEL(all_pairs_distances<scalar_t>)(from_x, from_y, target, squared, out.mutable_data_ptr<scalar_t>());
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(scav, CPU, m) {
  m.impl("selected_interpolated_euclidean", SCAV_BOX(&selected_interpolated_euclidean));
}

}  // namespace scav
