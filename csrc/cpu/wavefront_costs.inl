// Costs in the order of a wavefront: (ticks, kStripRows) of a strip, where row i is at step tick - i.
// Included once per SIMD level (foreach_level.h): no include guard.

namespace scav::SCAV_LEVEL {

struct PairIndex {
  int64_t x, y, result;
  int64_t n, m;  // steps
};

// Features up to which costs from differences are faster than those from products.
inline constexpr int64_t kMaxDifferenceFeatures = 16;

// Costs of one pair with few features from the differences of its rows: exact, so that none is near.
template <class T>
struct DifferenceCosts {
  static constexpr bool kForbids = false;
  static constexpr int W = kWidth<T>;
  static constexpr int64_t kRows = kStripRows<T>, kMargin = kRows + kChunkTicks;
  using V = Vec<T, W>;

  Cost kind;
  WavefrontGrid<T> grid;
  int64_t dim;
  Buffer<T> x;  // (strips, D, kRows), 0 past the last row
  Buffer<T> y;  // (D, m + 2 * kMargin): later steps first, 0 past the first and the last

  DifferenceCosts(Cost cost, const Sequences<T>& xs, const Sequences<T>& ys, const PairIndex& pair,
                  std::optional<int64_t> band)
      : kind(cost), grid(pair.n, pair.m, band), dim(xs.dim), x(grid.strips() * dim * kRows), y(dim * y_stride()) {
    for (int64_t s = 0; s < grid.strips() * kRows; ++s) {
      for (int64_t k = 0; k < dim; ++k) {
        x[(s / kRows * dim + k) * kRows + s % kRows] = s < grid.n ? xs.row(pair.x, s)[k] : T(0);
      }
    }
    for (int64_t k = 0; k < dim; ++k) {
      T* const feature = y.data() + k * y_stride();
      std::fill_n(feature, kMargin, T(0));
      for (int64_t t = 0; t < grid.m; ++t) {
        feature[kMargin + grid.m - 1 - t] = ys.row(pair.y, t)[k];
      }
      std::fill_n(feature + kMargin + grid.m, kMargin, T(0));
    }
  }

  int64_t y_stride() const { return grid.m + 2 * kMargin; }

  struct Scratch {
    explicit Scratch(const DifferenceCosts&) {}
  };

  // Costs of ticks [tick0, tick1), at most kChunkTicks of them.
  void costs(Scratch&, int64_t strip, int64_t tick0, int64_t tick1, T* out) const {
    poll((tick1 - tick0) * kRows * (dim + 4));
    if (kind == Cost::euclidean) {
      dim == 1 ? fill<Cost::euclidean, true>(strip, tick0, tick1, out)
               : fill<Cost::euclidean, false>(strip, tick0, tick1, out);
    } else if (kind == Cost::sqeuclidean) {
      fill<Cost::sqeuclidean, false>(strip, tick0, tick1, out);
    } else {
      fill<Cost::cosine, false>(strip, tick0, tick1, out);
    }
  }

 private:
  // Rounds up to whole tiles of registers: `out` has room for kChunkTicks.
  template <Cost cost, bool one_feature>
  void fill(int64_t strip, int64_t tick0, int64_t tick1, T* out) const {
    constexpr int kTicks = 4;
    const T* const rows = x.data() + strip * dim * kRows;
    for (int64_t tick = tick0; tick < tick1; tick += kTicks, out += kTicks * kRows) {
      for (int v = 0; v < kStripVectors; ++v) {
        const T* steps = y.data() + kMargin + grid.m - 1 - tick + v * W;
        V sum[kTicks] = {};
        const int64_t features = one_feature ? 1 : dim;
        for (int64_t k = 0; k < features; ++k, steps += y_stride()) {
          const V row = load<T, W>(rows + k * kRows + v * W);
          for (int i = 0; i < kTicks; ++i) {
            const V step = load<T, W>(steps - i);
            if constexpr (one_feature) {
              sum[i] = vmax(row - step, step - row);
            } else if constexpr (cost == Cost::cosine) {
              sum[i] += row * step;
            } else {
              sum[i] += (row - step) * (row - step);
            }
          }
        }
        for (int i = 0; i < kTicks; ++i) {
          if constexpr (cost == Cost::cosine) {
            sum[i] = T(1) - sum[i];
          } else if constexpr (cost == Cost::euclidean && !one_feature) {
            sum[i] = vsqrt<T, W>(sum[i]);
          }
          store<T, W>(out + i * kRows + v * W, sum[i]);
        }
      }
    }
  }
};

// Costs of one pair that `Source`, a GroupCosts or MatrixCosts, computes a tile at a time: rows of a strip by
// kChunkTicks steps.
template <class T, class Source>
struct TileCosts {
  static constexpr bool kForbids = Source::kForbids;
  static constexpr int64_t kRows = kStripRows<T>;
  static constexpr int64_t kStride = 2 * kChunkTicks + 16;

  Source source;
  WavefrontGrid<T> grid;

  // (kRows, kStride): two tiles side by side, of the steps before and after the first tick.
  struct Scratch {
    Buffer<T> tiles;
    explicit Scratch(const TileCosts&) : tiles(kRows * kStride) {}
  };

  // Costs of ticks [tick0, tick1), at most kChunkTicks of them, after those of the kChunkTicks before, if any.
  void costs(Scratch& scratch, int64_t strip, int64_t tick0, int64_t tick1, T* out) const {
    T* const tiles = scratch.tiles.data();
    for (int64_t i = 0; i < kRows; ++i) {
      std::copy_n(tiles + i * kStride + kChunkTicks, kChunkTicks, tiles + i * kStride);
    }
    const int64_t width = source.columns() / source.panels(), panel0 = tick0 / width,
                  panel1 = std::min(source.panels(), (tick0 + kChunkTicks + width - 1) / width);
    // Rows whose band has any of these steps.
    const int64_t first = strip * kRows, end = first + grid.rows_of(strip),
                  row0 = std::clamp(tick0 - grid.high, first, end),
                  row1 = std::clamp(tick0 + kChunkTicks - grid.low, row0, end);
    if (panel0 < panel1 && row0 < row1) {
      source.costs(panel0, panel1, row0, row1, tiles + kChunkTicks - first * kStride, kStride);
    }
    transpose<T>(
        kRows, (tick1 - tick0 + kWidth<T> - 1) / kWidth<T> * kWidth<T>,
        [&](int64_t i) { return tiles + i * kStride + kChunkTicks - i; }, [&](int64_t k) { return out + k * kRows; });
  }
};

}  // namespace scav::SCAV_LEVEL
