// Interpolated Euclidean distances of many pairs of a search at once, on the CPU at one SIMD level (foreach_level.h):
// no include guard.

#include "cpu/simd.inl"
#include "cpu/gemm.inl"
#include "cpu/squares.inl"
#include "cpu/transpose.inl"
#include "cpu/interpolation.inl"
#include "cpu/stored.inl"

namespace scav::SCAV_LEVEL {

// Step by step, the resampled rows of some x's times those of a panel of y's, which are converted, measured and
// transposed while they are in cache: a database is read once, as it is stored.
template <class T>
class AllPairs {
  static constexpr int w = kWidth<T>;
  // More rows of x, or more panels that share a step's rows of x, would not stay in L2.
  static constexpr int64_t kMaxRows = 128, kMaxPanels = 4;

 public:
  AllPairs(const Selection<T>& x, const Selection<T>& y, int64_t target, bool squared)
      : x_(x),
        y_(y),
        dim_(x.rows.dim),
        target_(target),
        squared_(squared),
        row_count_(std::min(kMaxRows, x.count)),
        left_(dim_),
        right_(dim_),
        rows_(row_count_ * dim_),
        row_norms_(row_count_),
        columns_(kPanel * dim_),
        column_norms_(kPanel),
        panel_(dim_ * kPanel),
        squares_(row_count_ * kPanel),
        sums_(row_count_ * kMaxPanels * kPanel) {}

  // Distances of all x's and the y's of panels [begin, end) -> out (x.count, y.count).
  void run(int64_t begin, int64_t end, T* out) {
    for (int64_t first = begin; first < end; first += kMaxPanels) {
      const int64_t last = std::min(first + kMaxPanels, end);
      for (int64_t i = 0; i < x_.count; i += row_count_) {
        distances(i, std::min(row_count_, x_.count - i), first, last, out);
      }
    }
  }

 private:
  // Row t of sequence `number`, where it is stored or in `scratch` (dim,).
  const T* resampled(const Selection<T>& from, int64_t number, int64_t t, T* scratch) {
    const int64_t b = from.places[number];
    const Interpolation at = interpolation_at(t, from.rows.lengths[b], target_);
    return resampled_row(from.rows, b, at, left_.data(), right_.data(), scratch);
  }

  // Distances of x's [first_row, first_row + rows) and the y's of panels [first_panel, last_panel).
  void distances(int64_t first_row, int64_t rows, int64_t first_panel, int64_t last_panel, T* out) {
    const int64_t first = first_panel * kPanel, count = std::min(last_panel * kPanel, y_.count) - first;
    std::fill_n(sums_.data(), rows * kMaxPanels * kPanel, T(0));
    for (int64_t t = 0; t < target_; ++t) {
      for (int64_t i = 0; i < rows; ++i) {
        T* row = rows_.data() + i * dim_;
        const T* from = resampled(x_, first_row + i, t, row);
        if (from != row) {
          std::copy_n(from, dim_, row);
        }
        row_norms_[i] = sum_of_squares<T, false>(row, nullptr, dim_);
      }
      for (int64_t j = 0; j < count; j += kPanel) {
        poll(rows * kPanel * dim_);
        add(rows, first + j, std::min(kPanel, count - j), t, sums_.data() + j);
      }
    }
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < count; ++j) {
        out[(first_row + i) * y_.count + first + j] = sums_[i * kMaxPanels * kPanel + j] / static_cast<T>(target_);
      }
    }
  }

  // Adds the distances of step t to `sums`, a row of kMaxPanels * kPanel to an x.
  void add(int64_t rows, int64_t first, int64_t count, int64_t t, T* sums) {
    const T* column[kPanel];
    const int64_t width = (count + kNarrowPanel - 1) / kNarrowPanel * kNarrowPanel;
    for (int64_t j = 0; j < width; ++j) {
      // The last y fills the panel where there are fewer.
      column[j] = j < count ? resampled(y_, first + j, t, columns_.data() + j * dim_) : column[count - 1];
      column_norms_[j] = j < count ? sum_of_squares<T, false>(column[j], nullptr, dim_) : column_norms_[count - 1];
    }
    transpose<T>(
        width, dim_, [&](int64_t j) { return column[j]; }, [&](int64_t k) { return panel_.data() + k * width; });
    gemm<T>(rows, width, dim_, dim_, width, width, false, rows_.data(), panel_.data(), squares_.data());
    for (int64_t i = 0; i < rows; ++i, sums += kMaxPanels * kPanel) {
      T* squares = squares_.data() + i * width;
      squares_of_products(row_norms_[i], column_norms_.data(), width, count, squares,
                          [&](int64_t j) { return sum_of_squares<T, true>(rows_.data() + i * dim_, column[j], dim_); });
      for (int64_t j = 0; j < width; j += w) {
        const Vec<T, w> square = load<T, w>(squares + j);
        store<T, w>(sums + j, load<T, w>(sums + j) + (squared_ ? square : vsqrt<T, w>(square)));
      }
    }
  }

  const Selection<T>&x_, &y_;
  int64_t dim_, target_;
  bool squared_;
  int64_t row_count_;
  Buffer<T> left_, right_;            // (D,): the two steps from which a row is resampled
  Buffer<T> rows_, row_norms_;        // (rows, D), (rows,): the x's at one step
  Buffer<T> columns_, column_norms_;  // (kPanel, D), (kPanel,): the y's
  Buffer<T> panel_;                   // (D, width): the y's, transposed
  Buffer<T> squares_;                 // (rows, width)
  Buffer<T> sums_;                    // (rows, kMaxPanels * kPanel)
};

// Distances of all x's and y's, both resampled to `target` steps -> out (x.count, y.count). They come from products of
// many pairs, so a pair's last digits depend on its neighbors.
template <class T>
void all_pairs_distances(const Selection<T>& x, const Selection<T>& y, int64_t target, bool squared, T* out) {
  const int64_t panels = (y.count + kPanel - 1) / kPanel, parts = std::min(thread_count(), panels);
  run_parts(parts, [&](int64_t part) {
    AllPairs<T>(x, y, target, squared).run(panels * part / parts, panels * (part + 1) / parts, out);
  });
}

}  // namespace scav::SCAV_LEVEL
