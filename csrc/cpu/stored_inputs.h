#pragma once
// Inputs of the ops of a search, checked, in the form that their kernels read.

#include "cpu/op.h"
#include "cpu/search.h"

namespace scav {

// Returns contiguous indices (P,); throws unless they are int64 from 0 to batch - 1.
Tensor check_indices(const char* op, const char* name, const Tensor& indices, int64_t batch);

// Steps (B, N, D) whose features lie side by side, with their valid lengths, checked.
struct StoredSteps {
  Tensor steps;
  Lengths lengths;

  StoredSteps(const char* op, const char* name, const Tensor& given, const std::optional<Tensor>& lengths);

  // In the dtype of accumulation.
  template <class T>
  StoredRows<T> rows() const {
    const Stored stored = steps.scalar_type() == kBFloat16 ? Stored::bfloat16
                          : steps.scalar_type() == kHalf   ? Stored::half
                                                           : Stored::same;
    return {steps.const_data_ptr(), stored, lengths.data(), steps.stride(0), steps.stride(1), steps.size(2)};
  }
};

}  // namespace scav
