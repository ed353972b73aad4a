// Dynamic time warping: r[s, t] = c[s, t] + min(r[s-1, t-1], r[s-1, t], r[s, t-1]), for scalars or vectors of them.
// Included once per SIMD level or device: no include guard.

namespace scav::SCAV_LEVEL {

// The step that leads to a cell on an optimal path. Ties take the diagonal, then s - 1, then t - 1.
inline constexpr uint8_t kDiagonal = 0, kUp = 1, kLeft = 2, kPathEnd = 3;

template <class V>
SCAV_INLINE V dtw_cell(V cost, V diagonal, V up, V left) {
  return cost + vmin(vmin(diagonal, up), left);
}

// Which of the steps above, lane by lane.
template <class T, int W>
SCAV_INLINE Vec<IntOf<T>, W> dtw_step(Vec<T, W> diagonal, Vec<T, W> up, Vec<T, W> left) {
  using I = Vec<IntOf<T>, W>;
  const I straight = (diagonal <= up) & (diagonal <= left);
  const I side = up <= left ? I{} + IntOf<T>(kUp) : I{} + IntOf<T>(kLeft);
  return straight ? I{} + IntOf<T>(kDiagonal) : side;
}

}  // namespace scav::SCAV_LEVEL
