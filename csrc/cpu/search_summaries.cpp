// scav::segment_means and scav::largest_norms on the CPU; schemas in scav_kernels/search/kernels.py.

#include "cpu/stored_inputs.h"

#define SCAV_KERNELS "cpu/search_summaries.inl"
#include "cpu/foreach_level.h"

namespace scav {
namespace {

Tensor segment_means(const Tensor& steps, const Tensor& lengths, const Tensor& chosen, int64_t target, int64_t segments,
                     bool squared) {
  constexpr const char* op = "segment_means";
  leave_threads_behind_after_fork();
  check_pairs(op, steps, steps, lengths, lengths, true);
  check_cpu(op, "steps", steps);
  SCAV_CHECK_VALUE(1 <= segments && segments <= target, op, ": expected 1 to ", target, " segments, got ", segments);
  const StoredSteps stored(op, "lengths", steps, lengths);
  const Tensor places = check_indices(op, "chosen", chosen, steps.size(0));
  Tensor out = new_empty({places.numel(), segments, steps.size(2)}, accumulation_dtype(steps));
  if (out.numel() == 0) {
    return out;
  }
  SCAV_DISPATCH(out.scalar_type(), [&] {
    const StoredRows<scalar_t> rows = stored.rows<scalar_t>();
    const Selection<scalar_t> from{rows, places.const_data_ptr<int64_t>(), places.numel()};
    SCAV_AT_LEVEL(segment_means<scalar_t>)(from, target, segments, squared, out.mutable_data_ptr<scalar_t>());
  });
  return out;
}

Tensor largest_norms(const Tensor& steps, const Tensor& lengths) {
  constexpr const char* op = "largest_norms";
  leave_threads_behind_after_fork();
  check_pairs(op, steps, steps, lengths, lengths, true);
  check_cpu(op, "steps", steps);
  const StoredSteps stored(op, "lengths", steps, lengths);
  Tensor out = new_empty({steps.size(0)}, accumulation_dtype(steps));
  if (out.numel() == 0) {
    return out;
  }
  SCAV_DISPATCH(out.scalar_type(), [&] {
    SCAV_AT_LEVEL(largest_norms<scalar_t>)
    (stored.rows<scalar_t>(), steps.size(0), out.mutable_data_ptr<scalar_t>());
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(scav, CPU, m) {
  m.impl("segment_means", SCAV_BOX(&segment_means));
  m.impl("largest_norms", SCAV_BOX(&largest_norms));
}

}  // namespace scav
