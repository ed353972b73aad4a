// Linear interpolation of n steps at m places, as torch.nn.functional.interpolate(mode="linear", align_corners=False).
// Included once per SIMD level (foreach_level.h): no include guard.

namespace scav::SCAV_LEVEL {

// Step t of the result is (1 - weight) * step `left` + weight * step `right`, which are one where it falls on a step.
struct Interpolation {
  int64_t left, right;
  double weight;
};

SCAV_INLINE Interpolation interpolation_at(int64_t t, int64_t n, int64_t m) {
  const double scale = static_cast<double>(n) / static_cast<double>(m);
  const double place = std::max((static_cast<double>(t) + 0.5) * scale - 0.5, 0.0);
  const int64_t left = std::min(static_cast<int64_t>(place), n - 1);
  const double weight = place - static_cast<double>(left);
  return {left, std::min(left + (weight > 0 ? 1 : 0), n - 1), weight};
}

}  // namespace scav::SCAV_LEVEL
