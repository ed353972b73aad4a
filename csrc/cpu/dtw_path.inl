// One cell of DTW, and the walk along an optimal path.
// Included once per SIMD level (foreach_level.h): no include guard.

namespace scav::SCAV_LEVEL {

template <class V>
SCAV_INLINE V dtw_cell(V cost, V diagonal, V up, V left) {
  return cost + vmin(vmin(diagonal, up), left);
}

// The code of the step (shared/dtw.h), lane by lane.
template <class T, int W>
SCAV_INLINE Vec<IntOf<T>, W> dtw_step(Vec<T, W> diagonal, Vec<T, W> up, Vec<T, W> left) {
  using I = Vec<IntOf<T>, W>;
  static_assert(kDiagonal == 0);
  const I not_left = up < diagonal ? I{} + IntOf<T>(kUp) : I{};
  return left < vmin(diagonal, up) ? I{} + IntOf<T>(kLeft) : not_left;
}

// Walks optimal paths backwards, lane by lane, from checkpoint to checkpoint.
struct PathWalker {
  struct Position {
    int64_t s = -1, t = -1;
    uint8_t* next = nullptr;

    // Writes the step that leads here, and takes it back. `code` means nothing where a cost is inf or NaN.
    void step(uint8_t code) {
      if (s == 0 && t == 0) {
        *next = kPathEnd;
        next = nullptr;
        return;
      }
      code = s == 0 ? kLeft : (t == 0 ? kUp : code);
      *next++ = code;
      s -= code != kLeft;
      t -= code != kUp;
    }
  };
  std::vector<Position> lanes;

  // `codes`: the step into cell (s, t) of a lane at ((t - step0) * rows + s) * lanes + lane.
  void walk(int64_t step0, int64_t rows, const uint8_t* codes) {
    const auto width = static_cast<int64_t>(lanes.size());
    for (int64_t lane = 0; lane < width; ++lane) {
      Position& at = lanes[static_cast<size_t>(lane)];
      while (at.next != nullptr && at.t >= step0) {
        at.step(codes[((at.t - step0) * rows + at.s) * width + lane]);
      }
    }
  }
};

}  // namespace scav::SCAV_LEVEL
