#pragma once
// Squared norms of the steps of a batch, and the sequences that hold inf or NaN.

#include <cstdint>

namespace scav {

// `data` is (batch, steps, dim). Writes the squared norms of the valid steps to `norms` (batch, steps), unless it is
// null, and to `nonfinite` (batch,) 0, or the inf or NaN that the sum of squares of a valid step is, NaN before inf.
template <class T>
void measure(const T* data, const int64_t* lengths, int64_t batch, int64_t steps, int64_t dim, T* norms, T* nonfinite);

}  // namespace scav
