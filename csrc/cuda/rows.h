#pragma once
// Launchers of rows_kernels.cu: what happens to whole rows of features, and to given costs, around the reducers.

#include "cuda/device_costs.h"

namespace scav::device {

// One side of the caller's tensors: (batch, steps, dim) contiguous, with lengths (batch,) or null.
struct Side {
  Rows given;
  int64_t batch, steps;
  const int64_t* lengths;
};

// rows (batch, steps, dim): the given rows in `rows.kind`, divided by their norms where `unit`; zero where they are
// padding, or hold inf or NaN, and beyond the given features. Rows of 16 bits are not divided: their products are to be
// multiplied by what comes back as their norms. norms, bad (batch, steps): their squared norms, and the inf or NaN that
// a valid row holds, NaN for a length out of range, else 0. `lengths`, if there are any, come back between 1 and
// `steps`.
template <class T>
void prepare_rows(const Side& side, bool unit, Rows rows, T* norms, T* bad, int64_t* lengths, Stream stream);

// gradient (batch, steps, dim) in the given dtype, of d = dx + along x: through the division by the norm where `unit`,
// zero for a norm below kSmallestNorm or one so small that the given dtype does not hold the gradient; NaN in the valid
// steps of sequences marked in `nonfinite_gradients` (batch,), zero in padding. `along` (batch, steps) or null.
template <class T>
void finish_rows(const Side& side, bool unit, const T* dx, const T* along, const bool* nonfinite_gradients,
                 void* gradient, Stream stream);

// Near cells' share of the gradients, from the difference of the rows; their weights become zero. dx (B1, N, D) and
// dy (B2, M, D), or null.
template <class T>
void add_near(const Costs<T>& costs, const Weights<T>& weights, T* dx, T* dy, Stream stream);

// Sums of a part of a tile for one side: row `at` = sequence number * `sequence` + step * `step` of `rows` (at, dim)
// and `along` (at), or null.
template <class T>
struct Share {
  const T *rows, *along;
  int64_t count, steps, dim, sequence, step;
};

// Subtracts a share's rows from dx (sequences, steps, dim), and adds the rest to along (sequences, steps): both from
// the share's first step of its first sequence, with `all_steps` a sequence.
template <class T>
void add_share(const Share<T>& share, int64_t all_steps, T* dx, T* along, Stream stream);

// nonfinite (results): NaN or -inf where a valid cell holds it, NaN before -inf; where `blocked`, inf where a step has
// no finite cost, of steps that have weight by x_weights (B1, N) and y_weights (B2, M), or null: of all; NaN for a
// length out of range; else 0.
template <class T>
void find_nonfinite(const Costs<T>& costs, bool blocked, const T* x_weights, const T* y_weights, T* nonfinite,
                    Stream stream);

// Writes NaN to the valid cells of pairs that hold NaN or -inf and whose grad is not zero.
template <class T>
void mark_nonfinite_costs(const Costs<T>& costs, const T* grads, T* gradient, Stream stream);

}  // namespace scav::device
