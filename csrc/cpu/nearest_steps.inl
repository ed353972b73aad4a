// The smallest costs of the rows and of the columns of a grid, and where they are, from tiles of its cells.
// Included once per SIMD level (foreach_level.h): no include guard.

namespace scav::SCAV_LEVEL {

// Costs of rows [row0, row1) against the columns of one panel, whose first is `column` of its group.
template <class T>
struct CostTile {
  const T* cells;  // (row1 - row0, width)
  int64_t column, width, row0, row1;
};

// The smallest costs of each row of x: one for each element of a vector, over the columns that are this element of a
// vector of columns.
template <class T>
struct RowMinima {
  static constexpr int w = kWidth<T>;
  Buffer<T> least;          // (rows, w)
  Buffer<IntOf<T>> vector;  // (rows, w), which vector of columns it is in

  explicit RowMinima(int64_t rows) : least(rows * w), vector(rows * w) {
    std::fill_n(least.data(), rows * w, std::numeric_limits<T>::infinity());
    std::fill_n(vector.data(), rows * w, IntOf<T>(0));
  }

  // The smallest cost of a row with each lane of the group, and its column; of equal costs, the first column.
  struct Lanes {
    T least[w];
    int64_t column[w];
  };
  Lanes fold(int64_t row, int64_t lanes) const {
    Lanes found;
    for (int slot = 0; slot < w; ++slot) {
      found.least[slot] = least[row * w + slot];
      found.column[slot] = static_cast<int64_t>(vector[row * w + slot]) * w + slot;
    }
    // Element e of a vector is a column of lane e % lanes.
    for (int64_t half = w / 2; half >= lanes; half /= 2) {
      for (int64_t slot = 0; slot < half; ++slot) {
        const int64_t other = slot + half;
        if (found.least[other] < found.least[slot] ||
            (found.least[other] == found.least[slot] && found.column[other] < found.column[slot])) {
          found.least[slot] = found.least[other];
          found.column[slot] = found.column[other];
        }
      }
    }
    return found;
  }
};

// The smallest costs of the columns of one panel, and the columns of the group that are no step of a y.
template <class T>
struct ColumnMinima {
  Buffer<T> hidden;      // (columns,) of the group: infinite where there is no step, else 0
  Buffer<T> least;       // (panel,)
  Buffer<IntOf<T>> row;  // (panel,)

  ColumnMinima(const Packed<T>& packed, const Group& group)
      : hidden(group.columns), least(group.panel), row(group.panel) {
    std::fill_n(hidden.data(), group.columns, std::numeric_limits<T>::infinity());
    for (int64_t lane = 0; lane < group.count; ++lane) {
      for (int64_t step = 0; step < packed.length(group, lane); ++step) {
        hidden[step * group.lanes + lane] = 0;
      }
    }
    width_ = group.panel;
  }
  void start() {
    std::fill_n(least.data(), width_, std::numeric_limits<T>::infinity());
    std::fill_n(row.data(), width_, IntOf<T>(0));
  }

 private:
  int64_t width_;
};

// Updates the minima of the rows and of the columns with a tile's cells. Of equal costs, the first one stays.
template <bool of_rows, bool of_columns, bool with_places, class T>
void find_minima(const CostTile<T>& tile, RowMinima<T>& rows, ColumnMinima<T>& columns) {
  constexpr int w = kWidth<T>;
  using Costs = Vec<T, w>;
  using Places = Vec<IntOf<T>, w>;
  for (int64_t j = 0; j < tile.width; j += w) {
    const Costs hidden = load<T, w>(columns.hidden.data() + tile.column + j);
    const Places vector = splat<IntOf<T>, w>(static_cast<IntOf<T>>((tile.column + j) / w));
    Costs least = load<T, w>(columns.least.data() + j);
    Places row = load<IntOf<T>, w>(columns.row.data() + j);
    for (int64_t s = tile.row0; s < tile.row1; ++s) {
      const Costs cost = load<T, w>(tile.cells + (s - tile.row0) * tile.width + j);
      if constexpr (of_rows) {
        T* const best = rows.least.data() + s * w;
        const Costs shown = cost + hidden, before = load<T, w>(best);
        if constexpr (with_places) {
          IntOf<T>* const at = rows.vector.data() + s * w;
          store<IntOf<T>, w>(at, shown < before ? vector : load<IntOf<T>, w>(at));
        }
        store<T, w>(best, vmin(shown, before));
      }
      if constexpr (of_columns) {
        if constexpr (with_places) {
          row = cost < least ? splat<IntOf<T>, w>(static_cast<IntOf<T>>(s)) : row;
        }
        least = vmin(cost, least);
      }
    }
    if constexpr (of_columns) {
      store<T, w>(columns.least.data() + j, least);
      store<IntOf<T>, w>(columns.row.data() + j, row);
    }
  }
}

}  // namespace scav::SCAV_LEVEL
