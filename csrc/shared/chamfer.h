#pragma once
// Options of the Chamfer distance, and the layout of what it saves for its gradient, on every device.

#include <cstdint>
#include <string>

#include "shared/tensor.h"

namespace scav {

// The dtype of the saved steps.
inline constexpr ScalarType kInt = ScalarType::Int;

// The sides whose steps look for the nearest step of the other side.
struct ChamferSides {
  bool x, y;

  // Saved steps of a pair: the nearest step of y for each step of x, then the nearest step of x for each step of y.
  constexpr int64_t saved_steps(int64_t steps_x, int64_t steps_y) const {
    return (x ? steps_x : 0) + (y ? steps_y : 0);
  }
  constexpr int64_t saved_before_y(int64_t steps_x) const { return x ? steps_x : 0; }
  // Factor of the mean of one side.
  double share() const { return x && y ? 0.5 : 1.0; }
};

inline ChamferSides parse_direction(const char* op, const std::string& direction) {
  SCAV_CHECK_VALUE(direction == "x" || direction == "y" || direction == "both", op,
                   ": expected direction 'x', 'y' or 'both', got '", direction, "'");
  return {direction != "y", direction != "x"};
}

}  // namespace scav
