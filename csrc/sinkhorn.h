#pragma once
// Options of Sinkhorn's iterations.

#include <cstdint>

namespace scav {

struct SinkhornOptions {
  double epsilon;
  int64_t max_iterations;
  double tolerance;  // L1 error of a pair's marginals below which it stops; 0 runs all iterations
};

}  // namespace scav
