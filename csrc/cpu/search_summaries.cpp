// scav::segment_means and scav::largest_norms on the CPU; schemas in scav_kernels/search/kernels.py.

#include "cpu/stored_inputs.h"

#define SCAV_KERNELS "cpu/search_summaries.inl"
#include "cpu/foreach_level.h"

namespace scav {
namespace {

at::Tensor segment_means(const at::Tensor& steps, const at::Tensor& lengths, const at::Tensor& chosen, int64_t target,
                         int64_t segments, bool squared) {
  constexpr const char* op = "segment_means";
  leave_threads_behind_after_fork();
  check_pairs(op, steps, steps, lengths, lengths, true);
  check_cpu(op, "steps", steps);
  TORCH_CHECK_VALUE(1 <= segments && segments <= target, op, ": expected 1 to ", target, " segments, got ", segments);
  const StoredSteps stored(op, "lengths", steps, lengths);
  const at::Tensor places = check_indices(op, "chosen", chosen, steps.size(0));
  at::Tensor out =
      at::empty({places.numel(), segments, steps.size(2)}, steps.options().dtype(accumulation_dtype(steps)));
  if (out.numel() == 0) {
    return out;
  }
  AT_DISPATCH_FLOATING_TYPES(out.scalar_type(), op, [&] {
    const StoredRows<scalar_t> rows = stored.rows<scalar_t>();
    const Selection<scalar_t> from{rows, places.const_data_ptr<int64_t>(), places.numel()};
    SCAV_AT_LEVEL(segment_means<scalar_t>)(from, target, segments, squared, out.mutable_data_ptr<scalar_t>());
  });
  return out;
}

at::Tensor largest_norms(const at::Tensor& steps, const at::Tensor& lengths) {
  constexpr const char* op = "largest_norms";
  leave_threads_behind_after_fork();
  check_pairs(op, steps, steps, lengths, lengths, true);
  check_cpu(op, "steps", steps);
  const StoredSteps stored(op, "lengths", steps, lengths);
  at::Tensor out = at::empty({steps.size(0)}, steps.options().dtype(accumulation_dtype(steps)));
  if (out.numel() == 0) {
    return out;
  }
  AT_DISPATCH_FLOATING_TYPES(out.scalar_type(), op, [&] {
    SCAV_AT_LEVEL(largest_norms<scalar_t>)
    (stored.rows<scalar_t>(), steps.size(0), out.mutable_data_ptr<scalar_t>());
  });
  return out;
}

}  // namespace

TORCH_LIBRARY_IMPL(scav, CPU, m) {
  m.impl("segment_means", &segment_means);
  m.impl("largest_norms", &largest_norms);
}

}  // namespace scav
