#pragma once
// Options, report and constants of Sinkhorn's iterations, on every device.

#include <cstdint>
#include <limits>
#include <optional>

namespace scav {

// Below every potential and exponent that occurs, and still finite after a sum: its exponentials are 0.
template <class T>
inline constexpr T kMasked = -std::numeric_limits<T>::max() / 16;

// u and v are absorbed beyond this. Cells of K that underflowed are then still below rounding.
template <class T>
inline constexpr T kLargestScaling = sizeof(T) == 4 ? T(1e8) : T(1e60);

struct SinkhornOptions {
  double epsilon;
  int64_t max_iterations;
  double tolerance;  // L1 error of a pair's marginals below which it stops; 0 runs all iterations
  // In (0, 1): by how much epsilon falls from iteration to iteration before those at `epsilon`.
  std::optional<double> scaling = {};
};

// Iterations and marginal error of each pair, by result; both null unless asked for. A pair that holds inf or NaN has 0
// iterations and an error of NaN.
template <class T>
struct SinkhornReport {
  int64_t* iterations;  // completed
  T* marginal_error;    // sum_i |sum_j P[i, j] - a[i]| of the potentials that they left
};

}  // namespace scav
