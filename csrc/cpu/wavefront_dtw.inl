// DTW along the anti-diagonals of one pair.
// Included once per SIMD level (foreach_level.h): no include guard.

namespace scav::SCAV_LEVEL {

// The steps into the cells of a range of strips.
template <class T>
struct WavefrontCodes {
  static constexpr int W = kWidth<T>;
  static constexpr int64_t kRows = kStripRows<T>;
  const StripCells<T> cells;
  uint8_t* const codes;

  WavefrontCodes(const WavefrontGrid<T>& grid, const StripRange& range, const Buffer<uint8_t>& memory)
      : cells(grid, range), codes(memory.data()) {}

  uint8_t* of(int64_t strip) const { return codes + cells.offset(strip); }

  auto recorder(int64_t strip) const {
    return [to = of(strip)](int64_t tick, int v, Vec<T, W> cost, Vec<T, W> diagonal, Vec<T, W> up, Vec<T, W> left)
               __attribute__((always_inline)) {
                 typedef uint8_t Bytes __attribute__((vector_size(W)));
                 const Bytes step = __builtin_convertvector((dtw_step<T, W>(diagonal, up, left)), Bytes);
                 std::memcpy(to + tick * kRows + v * W, &step, W);
                 return dtw_cell(cost, diagonal, up, left);
               };
  }

  // Walks from `at` to the first cell of the range, or to (0, 0).
  void walk(PathWalker::Position& at) const {
    while (at.next != nullptr && at.s >= cells.first * kRows) {
      const int64_t row = at.s % kRows;
      at.step(of(at.s / kRows)[(at.t + row) * kRows + row]);
    }
  }
};

// The distance of one pair. `path`, unless null, becomes the steps from the path's end to its start.
template <class T, class Source>
T wavefront_dtw_pair(const Source& source, uint8_t* path) {
  const WavefrontGrid<T>& grid = source.grid;
  using V = Vec<T, kWidth<T>>;
  const int64_t strips = grid.strips();
  const StripRows<T> rows(grid, path != nullptr ? grid.strips_of_bytes(1) : strips);
  const auto plain = [](int64_t) {
    return [](int64_t, int, V cost, V diagonal, V up, V left)
               __attribute__((always_inline)) { return dtw_cell(cost, diagonal, up, left); };
  };
  const Buffer<uint8_t> memory(path != nullptr ? rows.largest(grid) : 0);
  PathWalker::Position at{grid.n - 1, grid.m - 1, path};
  T distance = 0;
  for (int64_t index = 0; index < rows.ranges(); ++index) {
    const StripRange range = rows.range(index);
    const bool last = index + 1 == rows.ranges();
    T value;
    if (path == nullptr || !last) {
      value = run_strips(source, grid, range, rows, plain);
    } else {
      const WavefrontCodes<T> codes(grid, range, memory);
      value = run_strips(source, grid, range, rows, [&](int64_t strip) { return codes.recorder(strip); });
      codes.walk(at);
    }
    distance = value;
  }
  for (int64_t index = rows.ranges() - 2; path != nullptr && index >= 0 && at.next != nullptr; --index) {
    // No path comes back to a later step.
    WavefrontGrid<T> rest = grid;
    rest.m = at.t + 1;
    const WavefrontCodes<T> codes(rest, rows.range(index), memory);
    run_strips(source, rest, rows.range(index), rows, [&](int64_t strip) { return codes.recorder(strip); });
    codes.walk(at);
  }
  return distance < kReached<T> ? distance : std::numeric_limits<T>::infinity();
}

// Every pair of Inputs or CostInputs.
template <class T, class Batch>
void wavefront_dtw(const Batch& batch, std::optional<int64_t> band, T* out, uint8_t* paths) {
  const int64_t path_stride = batch.steps_x() + batch.steps_y();
  for_each_wavefront_pair<T>(batch, band, [&](const auto& source, const PairIndex& pair) {
    out[pair.result] = wavefront_dtw_pair<T>(source, paths ? paths + pair.result * path_stride : nullptr);
  });
}

}  // namespace scav::SCAV_LEVEL
