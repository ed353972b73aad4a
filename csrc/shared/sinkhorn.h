#pragma once
// Options of Sinkhorn's iterations.

#include <cstdint>

namespace scav {

struct SinkhornOptions {
  double epsilon;
  int64_t max_iterations;
  double tolerance;  // L1 error of a pair's marginals below which it stops; 0 runs all iterations
};

// How the iterations of each pair ended, by result; both null where nobody asks. For a pair that holds inf or NaN:
// none, and NaN.
template <class T>
struct SinkhornReport {
  int64_t* iterations;  // completed
  T* marginal_error;    // sum_i |sum_j P[i, j] - a[i]| of the potentials that they left
};

}  // namespace scav
