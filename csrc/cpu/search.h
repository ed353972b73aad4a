#pragma once
// Types that the kernels of a search read.

#include <cstdint>

namespace scav {

// Items in a panel of their summaries.
inline constexpr int64_t kBoundLanes = 16;

// Type of stored numbers: that of the kernel, or a shorter one.
enum class Stored { same, bfloat16, half };

// A batch of sequences as the caller holds it, whatever its strides, converted row by row: a database is never copied.
template <class T>
struct StoredRows {
  const void* data;
  Stored stored;
  const int64_t* lengths;
  int64_t batch_stride, step_stride, dim;  // in elements; features lie side by side
};

// Some sequences of a batch, in order.
template <class T>
struct Selection {
  const StoredRows<T>& rows;
  const int64_t* places;
  int64_t count;
};

// Pairs (x, y) of a list, and the distance beyond which each is of no interest.
template <class T>
struct PairList {
  const int64_t *x, *y;
  const T* limits;
  int64_t count;
};

// Summaries of some segments: of queries (batch, steps, dim), of items (panels, steps, dim, kBoundLanes).
template <class T>
struct BoundLevel {
  const T *x, *panels;
  int64_t steps, dim;
};

// A pair that bounds left, and the largest of them.
template <class T>
struct Survivor {
  int64_t x, y;
  T bound;
};

// What a search of series is asked for, beside the series.
struct SeriesRequest {
  int64_t k, first_item;
  double rounding;  // by how large a share of itself a bound may exceed a distance
  bool prune;
};

// Where the pairs of a search went: seen and removed by the bound over rows, that over steps, and the order of bounds.
struct SeriesCounts {
  int64_t seen[3] = {}, removed[3] = {}, scored = 0, abandoned = 0;

  void add(const SeriesCounts& more) {
    for (int i = 0; i < 3; ++i) {
      seen[i] += more.seen[i];
      removed[i] += more.removed[i];
    }
    scored += more.scored;
    abandoned += more.abandoned;
  }
};

}  // namespace scav
