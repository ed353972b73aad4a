#include "cpu/stored_inputs.h"

namespace scav {

at::Tensor check_indices(const char* op, const char* name, const at::Tensor& indices, int64_t batch) {
  TORCH_CHECK_VALUE(indices.dim() == 1 && indices.scalar_type() == at::kLong, op, ": expected ", name,
                    " (P,) int64, got ", shape_of(indices), " of dtype ", indices.scalar_type());
  TORCH_CHECK_VALUE(
      indices.numel() == 0 || (indices.min().item<int64_t>() >= 0 && indices.max().item<int64_t>() < batch), op,
      ": expected ", name, " from 0 to ", batch - 1);
  return indices.contiguous();
}

StoredSteps::StoredSteps(const char* op, const char* name, const at::Tensor& given,
                         const std::optional<at::Tensor>& lengths)
    : steps(given.size(2) <= 1 || given.stride(2) == 1 ? given.detach() : given.detach().contiguous()),
      lengths(check_lengths(op, name, lengths, given.size(0), given.size(1))) {}

}  // namespace scav
