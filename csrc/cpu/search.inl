// Bounds of a search, and distances of listed pairs, on the CPU at one SIMD level (foreach_level.h): no include guard.

#include "cpu/simd.inl"
#include "cpu/interpolation.inl"
#include "cpu/stored.inl"
#include "cpu/nearest.inl"

namespace scav::SCAV_LEVEL {

// A tile of queries by the items of a panel: their sums, and the limits above which sums are of no interest.
template <class T>
struct BoundTile {
  static constexpr int kQueries = 4, w = kWidth<T>, vectors = static_cast<int>(kBoundLanes) / w;
  // All bits of a lane, or none.
  using Mask = Vec<IntOf<T>, w>;
  Vec<T, w> sums[kQueries][vectors], limits[kQueries][vectors];

  bool all_above() const {
    Mask all = ~Mask{};
    for (int i = 0; i < kQueries; ++i) {
      for (int j = 0; j < vectors; ++j) {
        all &= sums[i][j] > limits[i][j];
      }
    }
    return lanes_in(all) == w;
  }

  static int64_t lanes_in(Mask mask) { return -horizontal_sum<IntOf<T>, w>(mask); }

  // Sums of distances, or of their squares, of steps (steps, dim) of the queries and (steps, dim, kBoundLanes) of the
  // panel. They stop growing once all are above their limits: then they are over the first steps alone.
  void measure(const T* const (&queries)[kQueries], const T* panel, int64_t steps, int64_t dim, bool squared) {
    constexpr int64_t kBetweenChecks = 4;
    for (auto& row : sums) {
      std::fill_n(row, vectors, Vec<T, w>{});
    }
    for (int64_t s = 0; s < steps; ++s) {
      Vec<T, w> square[kQueries][vectors] = {};
      for (int64_t k = s * dim; k < (s + 1) * dim; ++k) {
        for (int j = 0; j < vectors; ++j) {
          const Vec<T, w> y = load<T, w>(panel + k * kBoundLanes + j * w);
          for (int i = 0; i < kQueries; ++i) {
            const Vec<T, w> difference = queries[i][k] - y;
            square[i][j] += difference * difference;
          }
        }
      }
      for (int i = 0; i < kQueries; ++i) {
        for (int j = 0; j < vectors; ++j) {
          sums[i][j] += squared ? square[i][j] : vsqrt<T, w>(square[i][j]);
        }
      }
      if ((s + 1) % kBetweenChecks == 0 && all_above()) {
        return;
      }
    }
  }
};

// The queries from number `first` on; the last query fills the tile where there are fewer.
template <class T>
void place_queries(const BoundLevel<T>& level, int64_t batch, int64_t first,
                   const T* (&queries)[BoundTile<T>::kQueries]) {
  for (int i = 0; i < BoundTile<T>::kQueries; ++i) {
    queries[i] = level.x + std::min(first + i, batch - 1) * level.steps * level.dim;
  }
}

// Sums of aligned distances, sum_s |x_s - y_s| or of their squares, of all pairs -> out (batch, panels * kBoundLanes);
// of those above their query's limit (batch,), perhaps over the first steps alone.
template <class T>
void aligned_sums(const BoundLevel<T>& level, int64_t batch, int64_t panels, const T* limits, bool squared, T* out) {
  using Tile = BoundTile<T>;
  const int64_t lanes = panels * kBoundLanes, size = level.steps * level.dim * kBoundLanes;
  const int64_t parts = std::min(thread_count(), std::max<int64_t>(panels, 1));
  run_parts(parts, [&](int64_t part) {
    Tile tile;
    const T* queries[Tile::kQueries];
    for (int64_t p = panels * part / parts; p < panels * (part + 1) / parts; ++p) {
      for (int64_t first = 0; first < batch; first += Tile::kQueries) {
        poll(Tile::kQueries * kBoundLanes * level.steps * level.dim);
        place_queries(level, batch, first, queries);
        for (int i = 0; i < Tile::kQueries; ++i) {
          std::fill_n(tile.limits[i], Tile::vectors, splat<T, Tile::w>(limits[std::min(first + i, batch - 1)]));
        }
        tile.measure(queries, level.panels + p * size, level.steps, level.dim, squared);
        for (int i = 0; i < Tile::kQueries && first + i < batch; ++i) {
          for (int j = 0; j < Tile::vectors; ++j) {
            store<T, Tile::w>(out + (first + i) * lanes + p * kBoundLanes + j * Tile::w, tile.sums[i][j]);
          }
        }
      }
    }
  });
}

// Merges the smallest sums of each query and the items of the panels, numbered from `first_item`, into bounds and items
// (batch, k), ascending, equal ones by their items. Sums that are not numbers are left out.
template <class T>
void aligned_nearest(const BoundLevel<T>& level, int64_t batch, int64_t count, int64_t first_item, int64_t k,
                     bool squared, T* bounds, int64_t* items) {
  using Tile = BoundTile<T>;
  const int64_t panels = (count + kBoundLanes - 1) / kBoundLanes, size = level.steps * level.dim * kBoundLanes;
  const int64_t parts = std::min(thread_count(), std::max<int64_t>(panels, 1));
  std::vector<std::vector<TopK<T>>> nearest(static_cast<size_t>(parts));
  run_parts(parts, [&](int64_t part) {
    std::vector<TopK<T>>& mine = nearest[static_cast<size_t>(part)];
    for (int64_t b = 0; b < batch; ++b) {
      mine.emplace_back(k, bounds[b * k + k - 1]);
    }
    Tile tile;
    const T* queries[Tile::kQueries];
    for (int64_t p = panels * part / parts; p < panels * (part + 1) / parts; ++p) {
      const int64_t lanes = std::min(kBoundLanes, count - p * kBoundLanes);
      for (int64_t first = 0; first < batch; first += Tile::kQueries) {
        poll(Tile::kQueries * kBoundLanes * level.steps * level.dim);
        place_queries(level, batch, first, queries);
        for (int i = 0; i < Tile::kQueries; ++i) {
          const T limit = mine[static_cast<size_t>(std::min(first + i, batch - 1))].limit();
          std::fill_n(tile.limits[i], Tile::vectors, splat<T, Tile::w>(limit));
        }
        tile.measure(queries, level.panels + p * size, level.steps, level.dim, squared);
        if (tile.all_above()) {
          continue;
        }
        for (int i = 0; i < Tile::kQueries && first + i < batch; ++i) {
          for (int64_t lane = 0; lane < lanes; ++lane) {
            mine[static_cast<size_t>(first + i)].offer(
                {tile.sums[i][lane / Tile::w][lane % Tile::w], first_item + p * kBoundLanes + lane});
          }
        }
      }
    }
  });
  run_parts(std::min(parts, batch), [&](int64_t part) {
    std::vector<BoundOf<T>> before(static_cast<size_t>(k)), merged(static_cast<size_t>(2 * k));
    for (int64_t b = part; b < batch; b += std::min(parts, batch)) {
      for (std::vector<TopK<T>>& found : nearest) {
        const std::vector<BoundOf<T>>& more = found[static_cast<size_t>(b)].sorted();
        if (more.empty()) {
          continue;
        }
        for (int64_t i = 0; i < k; ++i) {
          before[static_cast<size_t>(i)] = {bounds[b * k + i], items[b * k + i]};
        }
        std::merge(before.begin(), before.end(), more.begin(), more.end(), merged.begin());
        for (int64_t i = 0; i < k; ++i) {
          bounds[b * k + i] = merged[static_cast<size_t>(i)].bound;
          items[b * k + i] = merged[static_cast<size_t>(i)].item;
        }
      }
    }
  });
}

// The lanes that are not to be skipped.
template <class T>
SCAV_INLINE typename BoundTile<T>::Mask not_skipped(const bool* skip) {
  using Tile = BoundTile<T>;
  typedef uint8_t Bytes __attribute__((vector_size(Tile::w), aligned(1), may_alias));
  return __builtin_convertvector(*reinterpret_cast<const Bytes*>(skip), typename Tile::Mask) == 0;
}

// Pairs that none of the levels, one after the other, shows to be above their query's limit (batch,), less those to
// `skip` (batch, panels * kBoundLanes); and how many each level removed. A bound that is not a number removes none.
template <class T>
std::vector<Survivor<T>> aligned_survivors(const std::vector<BoundLevel<T>>& levels, int64_t batch, int64_t panels,
                                           const T* limits, const bool* skip, bool squared, int64_t* removed) {
  using Tile = BoundTile<T>;
  constexpr T inf = std::numeric_limits<T>::infinity();
  const int64_t lanes = panels * kBoundLanes;
  const int64_t parts = std::min(thread_count(), std::max<int64_t>(panels, 1));
  struct Part {
    std::vector<Survivor<T>> found;
    std::vector<int64_t> removed;
  };
  std::vector<Part> all(static_cast<size_t>(parts));
  run_parts(parts, [&](int64_t part) {
    Part& mine = all[static_cast<size_t>(part)];
    mine.removed.resize(levels.size());
    Tile tile;
    const T* queries[Tile::kQueries];
    Vec<T, Tile::w> bounds[Tile::kQueries][Tile::vectors];
    typename Tile::Mask alive[Tile::kQueries][Tile::vectors];
    for (int64_t p = panels * part / parts; p < panels * (part + 1) / parts; ++p) {
      for (int64_t first = 0; first < batch; first += Tile::kQueries) {
        int64_t left = 0;
        for (int i = 0; i < Tile::kQueries; ++i) {
          for (int j = 0; j < Tile::vectors; ++j) {
            bounds[i][j] = splat<T, Tile::w>(-inf);
            alive[i][j] = first + i < batch ? not_skipped<T>(skip + (first + i) * lanes + p * kBoundLanes + j * Tile::w)
                                            : typename Tile::Mask{};
            left += Tile::lanes_in(alive[i][j]);
          }
        }
        for (size_t number = 0; number < levels.size() && left > 0; ++number) {
          const BoundLevel<T>& level = levels[number];
          poll(Tile::kQueries * kBoundLanes * level.steps * level.dim);
          place_queries(level, batch, first, queries);
          for (int i = 0; i < Tile::kQueries; ++i) {
            const Vec<T, Tile::w> limit = splat<T, Tile::w>(limits[std::min(first + i, batch - 1)]);
            for (int j = 0; j < Tile::vectors; ++j) {
              tile.limits[i][j] = alive[i][j] ? limit : splat<T, Tile::w>(-inf);
            }
          }
          tile.measure(queries, level.panels + p * level.steps * level.dim * kBoundLanes, level.steps, level.dim,
                       squared);
          int64_t gone = 0;
          for (int i = 0; i < Tile::kQueries; ++i) {
            for (int j = 0; j < Tile::vectors; ++j) {
              const auto above = alive[i][j] & (tile.sums[i][j] > tile.limits[i][j]);
              alive[i][j] &= ~above;
              bounds[i][j] = vmax(tile.sums[i][j], bounds[i][j]);
              gone += Tile::lanes_in(above);
            }
          }
          mine.removed[number] += gone;
          left -= gone;
        }
        for (int i = 0; i < Tile::kQueries && left > 0; ++i) {
          for (int64_t lane = 0; lane < kBoundLanes; ++lane) {
            if (alive[i][lane / Tile::w][lane % Tile::w]) {
              mine.found.push_back({first + i, p * kBoundLanes + lane, bounds[i][lane / Tile::w][lane % Tile::w]});
            }
          }
        }
      }
    }
  });
  std::fill_n(removed, levels.size(), int64_t(0));
  std::vector<Survivor<T>> found;
  for (const Part& part : all) {
    found.insert(found.end(), part.found.begin(), part.found.end());
    for (size_t number = 0; number < levels.size(); ++number) {
      removed[number] += part.removed[number];
    }
  }
  return found;
}

// |row - stored|^2 of a row of T and a stored row.
template <class T, Stored form>
T square_from_stored(const T* row, const void* stored, int64_t dim) {
  constexpr int w = kWidth<T>;
  Vec<T, w> partial[4] = {};
  int64_t k = 0;
  for (; k + 4 * w <= dim; k += 4 * w) {
    for (int j = 0; j < 4; ++j) {
      const Vec<T, w> difference = load<T, w>(row + k + j * w) - load_stored<T, w, form>(stored, k + j * w);
      partial[j] += difference * difference;
    }
  }
  T sum = horizontal_sum<T, w>((partial[0] + partial[1]) + (partial[2] + partial[3]));
  for (; k < dim; ++k) {
    const T difference = row[k] - load_stored<T, 1, form>(stored, k)[0];
    sum += difference * difference;
  }
  return sum;
}

// Interpolated Euclidean distances of listed pairs, `source` resampled to `target`, each added up in one order by one
// thread: a pair's distance depends on the pair alone.
template <class T>
class ListedPairs {
 public:
  ListedPairs(const StoredRows<T>& x, const StoredRows<T>& y, bool squared, const std::string& resample)
      : x_(x), y_(y), squared_(squared), resample_(resample), left_(x.dim), right_(x.dim), row_(x.dim) {}

  // inf once the sum so far says that the distance is above its limit.
  T distance(int64_t i, int64_t j, T limit) {
    const int64_t n = x_.lengths[i], m = y_.lengths[j];
    const bool of_x = resample_ == "x" || (resample_ == "shorter" && n <= m);
    return of_x ? distance(x_, i, n, y_, j, m, limit) : distance(y_, j, m, x_, i, n, limit);
  }

  // The first rows of a pair's y.
  void prefetch(int64_t j) const {
    for (int64_t t = 0; t < std::min(kAhead, y_.lengths[j]); ++t) {
      prefetch(y_, j, t);
    }
  }

 private:
  // Rows to prefetch before they are read: hardware prefetch does not look beyond a page.
  static constexpr int64_t kAhead = 8;

  static void prefetch(const StoredRows<T>& rows, int64_t b, int64_t t) {
    constexpr int64_t kLine = 64;
    constexpr int kToL2 = 2;  // L1 has fewer misses under way at a time
    const char* from = static_cast<const char*>(stored_at(rows, b, t));
    const int64_t bytes = rows.dim * (rows.stored == Stored::same ? sizeof(T) : 2);
    for (int64_t byte = 0; byte < bytes; byte += kLine) {
      __builtin_prefetch(from + byte, 0, kToL2);
    }
  }

  T distance(const StoredRows<T>& source, int64_t b, int64_t n, const StoredRows<T>& target, int64_t c, int64_t m,
             T limit) {
    const bool again = &source == source_ && b == b_ && m == m_;
    if (again && !kept_) {
      keep(source, b, n, m);
    }
    if (!again) {
      source_ = &source;
      b_ = b;
      m_ = m;
      kept_ = false;
    }
    T sum = 0;
    for (int64_t t = 0; t < m; ++t) {
      if (t + kAhead < m) {
        prefetch(target, c, t + kAhead);
      }
      const T* row = kept_ ? rows_.data() + t * source.dim : resampled(source, b, t, n, m, row_.data());
      const T square = from_stored(row, target, c, t);
      sum += squared_ ? square : std::sqrt(square);
      // Terms are not negative, so neither rounding nor later terms bring the sum down again.
      if (sum / static_cast<T>(m) > limit) {
        return std::numeric_limits<T>::infinity();
      }
    }
    return sum / static_cast<T>(m);
  }

  // All rows of a source that comes a second time.
  void keep(const StoredRows<T>& source, int64_t b, int64_t n, int64_t m) {
    rows_.resize(static_cast<size_t>(m * source.dim));
    for (int64_t t = 0; t < m; ++t) {
      T* to = rows_.data() + t * source.dim;
      const T* row = resampled(source, b, t, n, m, to);
      if (row != to) {
        std::copy_n(row, source.dim, to);
      }
    }
    kept_ = true;
  }

  const T* resampled(const StoredRows<T>& source, int64_t b, int64_t t, int64_t n, int64_t m, T* scratch) {
    return resampled_row(source, b, interpolation_at(t, n, m), left_.data(), right_.data(), scratch);
  }

  static T from_stored(const T* row, const StoredRows<T>& target, int64_t c, int64_t t) {
    const void* stored = stored_at(target, c, t);
    if constexpr (std::is_same_v<T, float>) {
      if (target.stored == Stored::bfloat16) {
        return square_from_stored<T, Stored::bfloat16>(row, stored, target.dim);
      }
      if (target.stored == Stored::half) {
        return square_from_stored<T, Stored::half>(row, stored, target.dim);
      }
    }
    return square_from_stored<T, Stored::same>(row, stored, target.dim);
  }

  const StoredRows<T>&x_, &y_;
  bool squared_;
  const std::string& resample_;
  std::vector<T> left_, right_, row_;
  // The last source, its target's steps, and where they are `kept_` its resampled rows.
  const StoredRows<T>* source_ = nullptr;
  int64_t b_ = -1, m_ = -1;
  bool kept_ = false;
  std::vector<T> rows_;
};

template <class T>
void listed_distances(const StoredRows<T>& x, const StoredRows<T>& y, const PairList<T>& pairs, bool squared,
                      const std::string& resample, T* out) {
  constexpr int64_t kGroup = 8;
  const int64_t groups = (pairs.count + kGroup - 1) / kGroup, parts = std::min(thread_count(), groups);
  // Groups of pairs go to the threads in turn, as pairs that are left early lie together.
  run_parts(parts, [&](int64_t part) {
    ListedPairs<T> cells(x, y, squared, resample);
    for (int64_t group = part; group < groups; group += parts) {
      const int64_t end = std::min((group + 1) * kGroup, pairs.count);
      for (int64_t p = group * kGroup; p < end; ++p) {
        if (p + 1 < end) {
          cells.prefetch(pairs.y[p + 1]);
        }
        poll(x.dim * x.lengths[pairs.x[p]]);
        out[p] = cells.distance(pairs.x[p], pairs.y[p], pairs.limits[p]);
      }
    }
  });
}

}  // namespace scav::SCAV_LEVEL
