#include "cpu/stored_inputs.h"

namespace scav {

Tensor check_indices(const char* op, const char* name, const Tensor& indices, int64_t batch) {
  SCAV_CHECK_VALUE(indices.dim() == 1 && indices.scalar_type() == kLong, op, ": expected ", name, " (P,) int64, got ",
                   text_of(indices), " of dtype ", indices.scalar_type());
  const Tensor packed = to_contiguous(indices);
  const int64_t* values = packed.const_data_ptr<int64_t>();
  SCAV_CHECK_VALUE(
      std::all_of(values, values + packed.numel(), [&](int64_t index) { return index >= 0 && index < batch; }), op,
      ": expected ", name, " from 0 to ", batch - 1);
  return packed;
}

StoredSteps::StoredSteps(const char* op, const char* name, const Tensor& given, const std::optional<Tensor>& lengths)
    : steps(given.size(2) <= 1 || given.stride(2) == 1 ? given : to_contiguous(given)),
      lengths(check_lengths(op, name, lengths, given.size(0), given.size(1))) {}

}  // namespace scav
