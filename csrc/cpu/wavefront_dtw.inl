// DTW along the anti-diagonals of one pair.
// Included once per SIMD level (foreach_level.h): no include guard.

namespace scav::SCAV_LEVEL {

// Weights of the diagonals in the vectors of a strip: the first row has its own.
template <class T>
struct StripWeights {
  static constexpr int W = kWidth<T>;
  Vec<T, W> first, others;

  template <class Steps>
  StripWeights(const Steps& kind, int64_t strip)
      : first(kind.template weight<W>(false)), others(kind.template weight<W>(false)) {
    if (strip == 0) {
      first[0] = kind.template weight<W>(true)[0];
    }
  }
  SCAV_INLINE Vec<T, W> of(int vector) const { return vector == 0 ? first : others; }
};

// A cell of a strip that keeps nothing.
template <class T, class Steps>
struct StripDtwCell {
  using V = Vec<T, kWidth<T>>;
  Steps kind;
  StripWeights<T> weights;

  SCAV_INLINE V operator()(int64_t, int v, V cost, V diagonal, V up, V left) const {
    return kind.template cell<kWidth<T>>(weights.of(v), cost, diagonal, up, left);
  }
};

// One that writes the code of its step.
template <class T, class Steps>
struct StripDtwRecorder {
  static constexpr int W = kWidth<T>;
  using V = Vec<T, W>;
  Steps kind;
  StripWeights<T> weights;
  uint8_t* codes;  // (ticks, kStripRows)

  SCAV_INLINE V operator()(int64_t tick, int v, V cost, V diagonal, V up, V left) const {
    typedef uint8_t Bytes __attribute__((vector_size(W)));
    Vec<IntOf<T>, W> code;
    const V r = kind.template cell<W>(weights.of(v), cost, diagonal, up, left, code);
    const Bytes step = __builtin_convertvector(code, Bytes);
    std::memcpy(codes + tick * kStripRows<T> + v * W, &step, W);
    return r;
  }
};

// The steps into the cells of a range of strips.
template <class T>
struct WavefrontCodes {
  static constexpr int64_t kRows = kStripRows<T>;
  const StripCells<T> cells;
  uint8_t* const codes;

  WavefrontCodes(const WavefrontGrid<T>& grid, const StripRange& range, const Buffer<uint8_t>& memory)
      : cells(grid, range), codes(memory.data()) {}

  uint8_t* of(int64_t strip) const { return codes + cells.offset(strip); }

  // Walks from `at` to the first cell of the range, or to (0, 0).
  void walk(PathWalk& at) const {
    while (!at.finished() && at.s >= cells.first * kRows) {
      const int64_t row = at.s % kRows;
      at.step(of(at.s / kRows)[(at.t + row) * kRows + row]);
    }
  }
};

// The distance of one pair, and its path if `out` needs it.
template <class T, class Steps, class Source>
void wavefront_dtw_pair(const Steps& kind, const Source& source, int64_t result, const DtwOutput<T>& out) {
  const WavefrontGrid<T>& grid = source.grid;
  using Values = PlainValues<T, kWidth<T>>;
  const bool walks = out.bytes_per_cell() > 0;
  // Codes of a range fit in the last-level cache.
  constexpr int64_t kCodeBytes = int64_t(8) << 20;
  const int64_t strips = grid.strips();
  const StripRows<Values> rows(grid, walks ? grid.strips_of_bytes(kCodeBytes, 1, sizeof(T)) : strips,
                               {Values::zero(), out.options.open.begin ? Values::zero() : Values::unreachable()});
  const LastRow<Values> last_row(grid, out.options.open.end);
  const auto plain = [&](int64_t strip) { return StripDtwCell<T, Steps>{kind, StripWeights<T>(kind, strip)}; };
  const auto recorder = [&](const WavefrontCodes<T>& codes) {
    return
        [&](int64_t strip) { return StripDtwRecorder<T, Steps>{kind, StripWeights<T>(kind, strip), codes.of(strip)}; };
  };
  const Buffer<uint8_t> memory(walks ? rows.largest(grid) : 0);
  PathWalk walk{-1, -1, out.path_of(result), out.options.open.begin, 0};
  T distance = 0;
  for (int64_t index = 0; index < rows.ranges(); ++index) {
    const StripRange range = rows.range(index);
    const bool last = index + 1 == rows.ranges();
    const auto run = [&](const auto& cell_of) {
      distance = run_strips(source, grid, range, rows, last_row, cell_of);
      if (!last) {
        return;
      }
      int64_t end = grid.m - 1;
      if (last_row.open()) {
        const T* const smallest = std::min_element(last_row.data(), last_row.data() + grid.m);
        distance = *smallest;
        end = distance < kReached<T> ? smallest - last_row.data() : end;
      }
      walk.start(grid.n - 1, end, grid.m);
    };
    if (!walks || !last) {
      run(plain);
    } else {
      const WavefrontCodes<T> codes(grid, range, memory);
      run(recorder(codes));
      codes.walk(walk);
    }
  }
  for (int64_t index = rows.ranges() - 2; walks && index >= 0 && !walk.finished(); --index) {
    // No path comes back to a later step.
    WavefrontGrid<T> rest = grid;
    rest.m = walk.t + 1;
    const WavefrontCodes<T> codes(rest, rows.range(index), memory);
    run_strips(source, rest, rows.range(index), rows, LastRow<Values>(rest, false), recorder(codes));
    codes.walk(walk);
  }
  out.put(result, distance, grid.n, grid.m, walk.cells);
}

// Every pair of Inputs or CostInputs.
template <class T, class Batch>
void wavefront_dtw(const Batch& batch, const DtwOutput<T>& out) {
  for_each_wavefront_pair<T>(batch, out.options.band, [&](const auto& source, const PairIndex& pair) {
    if (out.options.weighted()) {
      wavefront_dtw_pair(WeightedSteps<T>(out.options), source, pair.result, out);
    } else {
      wavefront_dtw_pair(EqualSteps<T>(out.options), source, pair.result, out);
    }
  });
}

}  // namespace scav::SCAV_LEVEL
