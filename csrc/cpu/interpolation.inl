// Resampling of n steps to m, as torch.nn.functional.interpolate does it for one sequence.
// Included once per SIMD level (foreach_level.h): no include guard.

namespace scav::SCAV_LEVEL {

// Pairs of lengths that one direction of resampling computes, by the source's length.
enum class PairFilter { all, shorter, not_longer };

SCAV_INLINE bool takes_pair(PairFilter takes, int64_t source_length, int64_t target_length) {
  return takes == PairFilter::all || source_length < target_length ||
         (takes == PairFilter::not_longer && source_length == target_length);
}

// Step t of the result is (1 - weight) * step `left` + weight * step `right`, which are one where it falls on a step.
struct Interpolation {
  int64_t left, right;
  double weight;
};

// mode="linear", align_corners=False
SCAV_INLINE Interpolation interpolation_at(int64_t t, int64_t n, int64_t m) {
  const double scale = static_cast<double>(n) / static_cast<double>(m);
  const double place = std::max((static_cast<double>(t) + 0.5) * scale - 0.5, 0.0);
  const int64_t left = std::min(static_cast<int64_t>(place), n - 1);
  const double weight = place - static_cast<double>(left);
  return {left, std::min(left + (weight > 0 ? 1 : 0), n - 1), weight};
}

// mode="nearest" of features of type T, in which torch computes the place before it rounds that to float32
template <class T>
SCAV_INLINE Interpolation nearest_at(int64_t t, int64_t n, int64_t m) {
  const T scale = static_cast<T>(n) / static_cast<T>(m);
  const float place = static_cast<float>(static_cast<T>(t) * scale);
  const int64_t step = std::min(static_cast<int64_t>(std::floor(place)), n - 1);
  return {step, step, 0};
}

// Computes the row of sequence b at a place between its steps.
template <class T>
void resample_row(const Sequences<T>& source, int64_t b, const Interpolation& at, T* out) {
  const T *left = source.row(b, at.left), *right = source.row(b, at.right);
  const T weight = static_cast<T>(at.weight);
  for (int64_t k = 0; k < source.dim; ++k) {
    out[k] = left[k] + weight * (right[k] - left[k]);
  }
}

// The adjoint of resample_row: adds to the gradients of the two rows.
template <class T>
void spread_row(const T* grad, const Interpolation& at, int64_t dim, T* left, T* right) {
  const T weight = static_cast<T>(at.weight);
  if (at.left == at.right) {
    for (int64_t k = 0; k < dim; ++k) {
      left[k] += grad[k];
    }
    return;
  }
  for (int64_t k = 0; k < dim; ++k) {
    left[k] += (1 - weight) * grad[k];
    right[k] += weight * grad[k];
  }
}

}  // namespace scav::SCAV_LEVEL
