// Recursions over the alignment grid of one pair, r[s, t] = cell(cost[s, t], r[s-1, t-1], r[s-1, t], r[s, t-1]), along
// its anti-diagonals, for pairs too few to fill the lanes of sweep.inl. Every lane has a row, and is one step of y
// behind the lane above it: what a cell needs of the row above was computed by the neighboring lane one tick ago.
//
//   strip  the rows that advance together, kStripVectors vectors of them: independent chains hide each other's latency
//   tick   in tick k, row `i` of a strip is at step t = k - i
//
// The last row of a strip is kept in memory, for the strip below it. Threads take strips one behind the other.
// Included once per SIMD level (foreach_level.h): no include guard.

namespace scav::SCAV_LEVEL {

inline constexpr int kStripVectors = 4;
template <class T>
inline constexpr int64_t kStripRows = kStripVectors * kWidth<T>;
// Ticks whose costs are computed at a time: they stay in L1, and are no fewer than the rows of a strip.
inline constexpr int64_t kChunkTicks = 64;

// The cells of one pair: n rows, m steps, and a band of t - s.
template <class T>
struct WavefrontGrid {
  static constexpr int64_t kRows = kStripRows<T>;
  int64_t n, m, low, high;
  bool banded;

  // A Sakoe-Chiba band as that of Lanes (sweep.inl).
  WavefrontGrid(int64_t rows, int64_t steps, std::optional<int64_t> band)
      : n(rows), m(steps), banded(band.has_value()) {
    const int64_t radius = band.has_value() ? std::min(*band, n + m) : n + m;
    low = -radius - std::max<int64_t>(n - m, 0);
    high = radius + std::max<int64_t>(m - n, 0);
  }

  int64_t strips() const { return (n + kRows - 1) / kRows; }
  int64_t rows_of(int64_t strip) const { return std::min(kRows, n - strip * kRows); }
  // Ticks of a strip start at a multiple of kChunkTicks.
  int64_t first_tick(int64_t strip) const {
    return std::max<int64_t>(0, strip * kRows + low) / kChunkTicks * kChunkTicks;
  }
  int64_t end_tick(int64_t strip) const {
    const int64_t last = rows_of(strip) - 1;
    return std::min(m - 1, strip * kRows + last + high) + last + 1;
  }
  // Strips whose cells take `bytes`, and at least so many that the rows between them, of which every such number is
  // kept, take no more memory than their cells do.
  int64_t strips_of_bytes(int64_t bytes, int64_t bytes_per_cell, int64_t bytes_per_value) const {
    const int64_t strip_bytes = (std::min(m, high - low + kRows) + kRows + kChunkTicks) * kRows * bytes_per_cell;
    const double balanced = std::sqrt(static_cast<double>(strips()) * static_cast<double>(m * bytes_per_value) /
                                      static_cast<double>(strip_bytes));
    return std::max({bytes / strip_bytes, static_cast<int64_t>(balanced), 2 * thread_count()});
  }
  // A chunk has cells outside the grid's steps or the band, which the recursion may not enter. What it computes past
  // the last step or row is never read.
  bool has_edges(int64_t tick) const { return banded || tick < kRows; }
};

// r[s, t] of one row s, the last of a strip, later steps first: a store of a whole vector, whose last lane is in that
// row, leaves what later stores overwrite in front of it.
template <class T>
struct BoundaryRow {
  T* origin;  // of t = 0

  static constexpr int64_t kBefore = 2 * kStripRows<T>;
  static int64_t size(int64_t m) { return m + 2 * kBefore; }
  static BoundaryRow in(T* memory, int64_t m) { return {memory + m + kBefore}; }
  T& operator[](int64_t t) const { return origin[-t]; }
  void fill(int64_t m, T value) const { std::fill(origin - m - kBefore, origin + kBefore, value); }
};

// A row of values, each of its parts a row of numbers.
template <class Values>
struct ValueRow {
  using T = typename Values::Scalar;
  using Value = typename Values::Value;
  static constexpr int kParts = Values::kParts;
  BoundaryRow<T> parts[kParts];

  static int64_t size(int64_t m) { return kParts * BoundaryRow<T>::size(m); }
  static ValueRow in(T* memory, int64_t m) {
    ValueRow row;
    for (int p = 0; p < kParts; ++p) {
      row.parts[p] = BoundaryRow<T>::in(memory + p * BoundaryRow<T>::size(m), m);
    }
    return row;
  }
  // In all lanes.
  SCAV_INLINE Value at(int64_t t) const {
    Value value;
#pragma GCC unroll 2
    for (int p = 0; p < kParts; ++p) {
      Values::part(value, p) = splat<T, Values::kLanes>(parts[p][t]);
    }
    return value;
  }
  // Writes the last lane, and the others in front of it.
  SCAV_INLINE void put(int64_t t, Value value) const {
#pragma GCC unroll 2
    for (int p = 0; p < kParts; ++p) {
      store<T, Values::kLanes>(&parts[p][t] - (Values::kLanes - 1), Values::part(value, p));
    }
  }
  void put_one(int64_t t, Value value) const {
    for (int p = 0; p < kParts; ++p) {
      parts[p][t] = Values::part(value, p)[0];
    }
  }
  void fill(int64_t m, Value value) const {
    for (int p = 0; p < kParts; ++p) {
      parts[p].fill(m, Values::part(value, p)[0]);
    }
  }
};

// Lane l of the result is lane l - 1 of `row`, lane 0 the last of `before`.
template <class V, int... Lane>
SCAV_INLINE V shift_in(V before, V row, std::integer_sequence<int, Lane...>) {
  return __builtin_shufflevector(before, row, (static_cast<int>(sizeof...(Lane)) - 1 + Lane)...);
}

// Lane l of the result is lane l + 1 of `row`, the last lane the first of `after`.
template <class V, int... Lane>
SCAV_INLINE V shift_out(V row, V after, std::integer_sequence<int, Lane...>) {
  return __builtin_shufflevector(row, after, (Lane + 1)...);
}

// Ticks between which a row of a strip is in the grid's steps and in the band.
template <class T>
struct WavefrontBounds {
  static constexpr int W = kWidth<T>;
  Vec<T, W> first[kStripVectors], last[kStripVectors];

  WavefrontBounds(const WavefrontGrid<T>& grid, int64_t strip) {
    for (int64_t i = 0; i < kStripRows<T>; ++i) {
      const int64_t s = strip * kStripRows<T> + i;
      first[i / W][i % W] = static_cast<T>(std::max<int64_t>(0, s + grid.low) + i);
      last[i / W][i % W] = static_cast<T>(s < grid.n ? std::min(grid.m - 1, s + grid.high) + i : -1);
    }
  }
  SCAV_INLINE auto inside(int v, int64_t tick) const {
    const T now = static_cast<T>(tick);
    return (first[v] <= now) & (last[v] >= now);
  }
};

// The recursion in one strip, tick by tick.
template <class Values>
struct Wavefront {
  using T = typename Values::Scalar;
  static constexpr int W = Values::kLanes;
  static constexpr int64_t kRows = kStripRows<T>;
  using Value = typename Values::Value;

  const WavefrontBounds<T> bounds;
  Value row[kStripVectors], diagonal[kStripVectors];

  Wavefront(const WavefrontGrid<T>& grid, int64_t strip, const ValueRow<Values>& above) : bounds(grid, strip) {
    std::fill_n(row, kStripVectors, Values::unreachable());
    std::fill_n(diagonal, kStripVectors, Values::unreachable());
    for (int p = 0; p < Values::kParts; ++p) {
      Values::part(diagonal[0], p)[0] = above.parts[p][grid.first_tick(strip) - 1];
    }
  }

  // `costs` (ticks, kRows), as a source of costs leaves them. Calls cell(tick, vector, cost, diagonal, up, left). No
  // parameter depends on the source: one function serves all.
  template <bool edges, class Cell>
  __attribute__((noinline)) void advance(int64_t tick0, int64_t tick1, const T* costs, const ValueRow<Values>& above,
                                         const ValueRow<Values>& below, const Cell& cell_of_strip) {
    const Cell cell = cell_of_strip;  // stays in registers
    Value r[kStripVectors], d[kStripVectors];
    std::copy_n(row, kStripVectors, r);
    std::copy_n(diagonal, kStripVectors, d);
    for (int64_t tick = tick0; tick < tick1; ++tick, costs += kRows) {
#pragma GCC unroll 4
      for (int v = kStripVectors - 1; v >= 0; --v) {
        const Value up = shift_in_value(v > 0 ? r[v > 0 ? v - 1 : 0] : above.at(tick), r[v]);
        Value value = cell(tick, v, load<T, W>(costs + v * W), d[v], up, r[v]);
        if constexpr (edges) {
          value = Values::reachable_where(bounds.inside(v, tick), value);
        }
        d[v] = up;
        r[v] = value;
      }
      below.put(tick - kRows + 1, r[kStripVectors - 1]);
    }
    std::copy_n(r, kStripVectors, row);
    std::copy_n(d, kStripVectors, diagonal);
  }

  typename Values::Lane value_of(int64_t i) const { return Values::lane(row[i / W], i % W); }

 private:
  static SCAV_INLINE Value shift_in_value(Value before, Value values) {
    constexpr auto lanes = std::make_integer_sequence<int, W>{};
    Value shifted;
#pragma GCC unroll 2
    for (int p = 0; p < Values::kParts; ++p) {
      Values::part(shifted, p) = shift_in(Values::part(before, p), Values::part(values, p), lanes);
    }
    return shifted;
  }
};

struct StripRange {
  int64_t first, end;
};

// Where the cells of a range of strips lie, (ticks, kStripRows) of each strip.
template <class T>
struct StripCells {
  int64_t first;
  std::vector<int64_t> offsets;
  int64_t size = 0;

  StripCells(const WavefrontGrid<T>& grid, const StripRange& range) : first(range.first) {
    for (int64_t strip = range.first; strip < range.end; ++strip) {
      const int64_t first_tick = grid.first_tick(strip);
      offsets.push_back(size - first_tick * kStripRows<T>);
      size += std::max<int64_t>(grid.end_tick(strip) - first_tick, 0) * kStripRows<T>;
    }
  }
  // Of tick 0.
  int64_t offset(int64_t strip) const { return offsets[static_cast<size_t>(strip - first)]; }
};

// A row between each two strips in work. Those before a strip in work are in work or finished, so that no more are in
// work than there are threads.
template <class T, class Row>
class PassingRows {
 public:
  explicit PassingRows(int64_t m) : m_(m), count_(thread_count() + 1), rows_(count_ * Row::size(m)) {}
  Row of(int64_t index) const { return Row::in(rows_.data() + index % count_ * Row::size(m_), m_); }

 private:
  int64_t m_, count_;
  Buffer<T> rows_;
};

// r above the first row: before its first step, and from there on. Paths enter the grid from it, diagonally.
template <class Values>
struct TopRow {
  typename Values::Value before = Values::zero(), after = Values::unreachable();
};

// r in the grid's last row, where paths with an open end can end.
template <class Values>
class LastRow {
 public:
  using T = typename Values::Scalar;
  using Value = typename Values::Value;
  static constexpr int W = Values::kLanes;
  static constexpr int kParts = Values::kParts;

  // Keeps nothing unless `open`.
  LastRow(const WavefrontGrid<T>& grid, bool open)
      : grid_(grid), lane_((grid.n - 1) % kStripRows<T>), open_(open), ticks_(open ? kChunkTicks * kParts * W : 0) {
    if (open) {
      // Whole vectors.
      values_ = Buffer<T>(vectors() * kParts * W);
      fill_unreachable<Values>(values_.data(), vectors());
    }
  }

  int64_t vectors() const { return (grid_.m + W - 1) / W; }
  T* data() const { return values_.data(); }  // (vectors, parts, W)
  bool open() const { return open_; }

  // A cell of `strip` that keeps the vector with the last row.
  template <class Cell>
  auto keep(int64_t strip, const Cell& cell) const {
    const int vector = keeps(strip) ? static_cast<int>(lane_ / W) : -1;
    return [cell, vector, to = ticks_.data()](int64_t tick, int v, Vec<T, W> cost, Value diagonal, Value up, Value left)
               __attribute__((always_inline)) {
                 const Value r = cell(tick, v, cost, diagonal, up, left);
                 if (v == vector) {
                   store_value<Values>(to + tick % kChunkTicks * kParts * W, r);
                 }
                 return r;
               };
  }

  // Takes what was kept of the ticks of a chunk.
  void take(int64_t strip, int64_t tick0, int64_t tick1) const {
    if (!keeps(strip)) {
      return;
    }
    const int64_t row = grid_.n - 1, step0 = std::max<int64_t>(0, row + grid_.low),
                  end = std::min(grid_.m, row + grid_.high + 1);
    for (int64_t t = std::max(step0, tick0 - lane_); t < std::min(end, tick1 - lane_); ++t) {
      for (int64_t p = 0; p < kParts; ++p) {
        values_[(t / W * kParts + p) * W + t % W] = ticks_[((t + lane_) % kChunkTicks * kParts + p) * W + lane_ % W];
      }
    }
  }

 private:
  bool keeps(int64_t strip) const { return open_ && strip == grid_.strips() - 1; }

  const WavefrontGrid<T>& grid_;
  int64_t lane_;
  bool open_;
  Buffer<T> ticks_;  // (kChunkTicks, parts, W)
  Buffer<T> values_;
};

// The last rows of strips. Those above the first strip of a range are kept: a recursion starts from them a second time.
template <class Values>
class StripRows {
 public:
  using T = typename Values::Scalar;
  using Row = ValueRow<Values>;

  // Ranges of `range_strips` strips.
  StripRows(const WavefrontGrid<T>& grid, int64_t range_strips, const TopRow<Values>& above)
      : m_(grid.m),
        strips_(grid.strips()),
        range_strips_(std::min(range_strips, strips_)),
        kept_(ranges() * Row::size(m_)),
        passing_(m_) {
    const Row top = below(-1);
    top.fill(m_, above.after);
    top.put_one(-1, above.before);
  }

  int64_t ranges() const { return (strips_ + range_strips_ - 1) / range_strips_; }
  StripRange range(int64_t index) const {
    return {index * range_strips_, std::min((index + 1) * range_strips_, strips_)};
  }
  // Cells of the largest range.
  int64_t largest(const WavefrontGrid<T>& grid) const {
    int64_t size = 0;
    for (int64_t index = 0; index < ranges(); ++index) {
      size = std::max(size, StripCells<T>(grid, range(index)).size);
    }
    return size;
  }
  // The last row of `strip`; the row above the grid for -1.
  Row below(int64_t strip) const {
    const int64_t next = strip + 1;
    if (next % range_strips_ == 0 && next < strips_) {
      return Row::in(kept_.data() + next / range_strips_ * Row::size(m_), m_);
    }
    return passing_.of(next);
  }
  void clear(int64_t strip) const { below(strip).fill(m_, Values::unreachable()); }

 private:
  int64_t m_, strips_, range_strips_;
  Buffer<T> kept_;
  PassingRows<T, Row> passing_;
};

// Runs a range of strips; cell_of(strip) gives the cell of a strip's recursion. Returns r in the last row of the range,
// at the grid's last step; `last_row` takes the grid's last row.
template <class Values, class T, class Source, class CellOf>
typename Values::Lane run_strips(const Source& source, const WavefrontGrid<T>& grid, const StripRange& range,
                                 const StripRows<Values>& rows, const LastRow<Values>& last_row,
                                 const CellOf& cell_of) {
  const int64_t count = range.end - range.first, parts = std::min(thread_count(), count);
  Pipeline pipeline(count);
  typename Values::Lane result{};
  run_parts(parts, [&](int64_t) {
    typename Source::Scratch scratch(source);
    const Buffer<T> costs(kChunkTicks * kStripRows<T>);
    for (int64_t task = pipeline.take(); task < count; task = pipeline.take()) {
      const int64_t strip = range.first + task, end = grid.end_tick(strip);
      const auto cell_of_strip = cell_of(strip);
      const auto cell = last_row.keep(strip, cell_of_strip);
      const ValueRow<Values> above = rows.below(strip - 1), below = rows.below(strip);
      rows.clear(strip);
      int64_t tick = grid.first_tick(strip);
      pipeline.wait(task, std::max<int64_t>(tick, 1));  // for the row above before its first step
      Wavefront<Values> wavefront(grid, strip, above);
      for (; tick < end; tick += kChunkTicks) {
        const int64_t chunk_end = std::min(tick + kChunkTicks, end);
        source.costs(scratch, strip, tick, chunk_end, costs.data());
        pipeline.wait(task, chunk_end < end ? chunk_end : Pipeline::kFinished);
        if (grid.has_edges(tick)) {
          wavefront.template advance<true>(tick, chunk_end, costs.data(), above, below, cell);
        } else {
          wavefront.template advance<false>(tick, chunk_end, costs.data(), above, below, cell);
        }
        last_row.take(strip, tick, chunk_end);
        pipeline.publish(task, chunk_end - kStripRows<T> + 1);
      }
      pipeline.publish(task, Pipeline::kFinished);
      if (task == count - 1) {
        result = wavefront.value_of(grid.rows_of(strip) - 1);
      }
    }
  });
  return result;
}

}  // namespace scav::SCAV_LEVEL
