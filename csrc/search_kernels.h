// Bounds of a search, and distances of listed pairs, on the CPU at one SIMD level (foreach_level.h): no include guard.

#include "common/simd.h"
#include "common/stored.h"
#include "interpolated_euclidean.h"

namespace scav::SCAV_LEVEL {

// Some queries against the items of a panel: their sums, and the limits above which these are of no interest.
template <class T>
struct BoundBlock {
  static constexpr int kQueries = 4, w = kWidth<T>, vectors = static_cast<int>(kBoundLanes) / w;
  Vec<T, w> sums[kQueries][vectors], limits[kQueries][vectors];

  bool all_above() const {
    bool all = true;
    for (int i = 0; i < kQueries; ++i) {
      for (int j = 0; j < vectors; ++j) {
        for (int lane = 0; lane < w; ++lane) {
          all &= sums[i][j][lane] > limits[i][j][lane];
        }
      }
    }
    return all;
  }

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

// The queries from number `first` on; the last one stands in for those that the last block lacks.
template <class T>
void place_queries(const BoundLevel<T>& level, int64_t batch, int64_t first,
                   const T* (&queries)[BoundBlock<T>::kQueries]) {
  for (int i = 0; i < BoundBlock<T>::kQueries; ++i) {
    queries[i] = level.x + std::min(first + i, batch - 1) * level.steps * level.dim;
  }
}

// Sums of aligned distances, sum_s |x_s - y_s| or of their squares, of all pairs -> out (batch, panels * kBoundLanes);
// of those above their query's limit (batch,), perhaps over the first steps alone.
template <class T>
void aligned_sums(const BoundLevel<T>& level, int64_t batch, int64_t panels, const T* limits, bool squared, T* out) {
  using Block = BoundBlock<T>;
  const int64_t lanes = panels * kBoundLanes, size = level.steps * level.dim * kBoundLanes;
  const int64_t parts = std::min(thread_count(), std::max<int64_t>(panels, 1));
  run_parts(parts, [&](int64_t part) {
    Block block;
    const T* queries[Block::kQueries];
    for (int64_t p = panels * part / parts; p < panels * (part + 1) / parts; ++p) {
      for (int64_t first = 0; first < batch; first += Block::kQueries) {
        place_queries(level, batch, first, queries);
        for (int i = 0; i < Block::kQueries; ++i) {
          std::fill_n(block.limits[i], Block::vectors, splat<T, Block::w>(limits[std::min(first + i, batch - 1)]));
        }
        block.measure(queries, level.panels + p * size, level.steps, level.dim, squared);
        for (int i = 0; i < Block::kQueries && first + i < batch; ++i) {
          for (int j = 0; j < Block::vectors; ++j) {
            store<T, Block::w>(out + (first + i) * lanes + p * kBoundLanes + j * Block::w, block.sums[i][j]);
          }
        }
      }
    }
  });
}

// Pairs that none of the levels, one after the other, shows to be above their query's limit (batch,), less those to
// `skip` (batch, panels * kBoundLanes); and how many each level removed. A bound that is not a number removes none.
template <class T>
std::vector<Survivor<T>> aligned_survivors(const std::vector<BoundLevel<T>>& levels, int64_t batch, int64_t panels,
                                           const T* limits, const bool* skip, bool squared, int64_t* removed) {
  using Block = BoundBlock<T>;
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
    Block block;
    const T* queries[Block::kQueries];
    T bounds[Block::kQueries][kBoundLanes];
    bool alive[Block::kQueries][kBoundLanes];
    for (int64_t p = panels * part / parts; p < panels * (part + 1) / parts; ++p) {
      for (int64_t first = 0; first < batch; first += Block::kQueries) {
        int64_t left = 0;
        for (int i = 0; i < Block::kQueries; ++i) {
          std::fill_n(bounds[i], kBoundLanes, -inf);
          for (int64_t lane = 0; lane < kBoundLanes; ++lane) {
            alive[i][lane] = first + i < batch && !skip[(first + i) * lanes + p * kBoundLanes + lane];
            left += alive[i][lane];
          }
        }
        for (size_t number = 0; number < levels.size() && left > 0; ++number) {
          const BoundLevel<T>& level = levels[number];
          place_queries(level, batch, first, queries);
          for (int i = 0; i < Block::kQueries; ++i) {
            const T limit = limits[std::min(first + i, batch - 1)];
            for (int64_t lane = 0; lane < kBoundLanes; ++lane) {
              block.limits[i][lane / Block::w][lane % Block::w] = alive[i][lane] ? limit : -inf;
            }
          }
          block.measure(queries, level.panels + p * level.steps * level.dim * kBoundLanes, level.steps, level.dim,
                        squared);
          for (int i = 0; i < Block::kQueries; ++i) {
            for (int64_t lane = 0; lane < kBoundLanes; ++lane) {
              const T sum = block.sums[i][lane / Block::w][lane % Block::w];
              bounds[i][lane] = sum > bounds[i][lane] ? sum : bounds[i][lane];
              const bool above = alive[i][lane] && sum > block.limits[i][lane / Block::w][lane % Block::w];
              alive[i][lane] = alive[i][lane] && !above;
              mine.removed[number] += above;
              left -= above;
            }
          }
        }
        for (int i = 0; i < Block::kQueries && left > 0; ++i) {
          for (int64_t lane = 0; lane < kBoundLanes; ++lane) {
            if (alive[i][lane]) {
              mine.found.push_back({first + i, p * kBoundLanes + lane, bounds[i][lane]});
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

// |left + weight (right - left) - target|^2
template <class T>
T resampled_square(const T* left, const T* right, T weight, const T* target, int64_t dim) {
  constexpr int w = kWidth<T>;
  Vec<T, w> partial[2] = {};
  int64_t k = 0;
  for (; k + 2 * w <= dim; k += 2 * w) {
    for (int j = 0; j < 2; ++j) {
      const Vec<T, w> from = load<T, w>(left + k + j * w);
      const Vec<T, w> difference =
          from + weight * (load<T, w>(right + k + j * w) - from) - load<T, w>(target + k + j * w);
      partial[j] += difference * difference;
    }
  }
  T sum = horizontal_sum<T, w>(partial[0] + partial[1]);
  for (; k < dim; ++k) {
    const T difference = left[k] + weight * (right[k] - left[k]) - target[k];
    sum += difference * difference;
  }
  return sum;
}

// Interpolated Euclidean distances of listed pairs, `source` resampled to `target`, each added up in one order by one
// thread: what a pair's distance is depends on the pair alone.
// A pair is left, as inf, once its sum so far says that the distance is above its limit.
template <class T>
class ListedPairs {
 public:
  ListedPairs(const StoredRows<T>& x, const StoredRows<T>& y, bool squared, const std::string& resample)
      : x_(x), y_(y), squared_(squared), resample_(resample), left_(x.dim), right_(x.dim), target_(x.dim) {}

  T distance(int64_t i, int64_t j, T limit) {
    const int64_t n = x_.lengths[i], m = y_.lengths[j];
    const bool of_x = resample_ == "x" || (resample_ == "shorter" && n <= m);
    return of_x ? distance(x_, i, n, y_, j, m, limit) : distance(y_, j, m, x_, i, n, limit);
  }

 private:
  T distance(const StoredRows<T>& source, int64_t b, int64_t n, const StoredRows<T>& target, int64_t c, int64_t m,
             T limit) {
    T sum = 0;
    int64_t in_left = -1, in_right = -1;
    const T *left = nullptr, *right = nullptr;
    for (int64_t t = 0; t < m; ++t) {
      const Interpolation at = interpolation_at(t, n, m);
      if (at.left == in_right) {
        std::swap(left_, right_);
        std::swap(left, right);
        std::swap(in_left, in_right);
      }
      fetch(source, b, at.left, left_, left, in_left);
      fetch(source, b, at.right, right_, right, in_right);
      const T square = resampled_square<T>(left, right, static_cast<T>(at.weight),
                                           stored_row(target, c, t, target_.data()), source.dim);
      sum += squared_ ? square : std::sqrt(square);
      // Terms are not negative, so neither rounding nor what follows brings the sum down again.
      if (sum / static_cast<T>(m) > limit) {
        return std::numeric_limits<T>::infinity();
      }
    }
    return sum / static_cast<T>(m);
  }

  static void fetch(const StoredRows<T>& from, int64_t b, int64_t step, std::vector<T>& room, const T*& row,
                    int64_t& holds) {
    if (holds != step) {
      row = stored_row(from, b, step, room.data());
      holds = step;
    }
  }

  const StoredRows<T>&x_, &y_;
  bool squared_;
  const std::string& resample_;
  std::vector<T> left_, right_, target_;
};

template <class T>
void listed_distances(const StoredRows<T>& x, const StoredRows<T>& y, const PairList<T>& pairs, bool squared,
                      const std::string& resample, T* out) {
  constexpr int64_t kChunk = 8;
  const int64_t chunks = (pairs.count + kChunk - 1) / kChunk, parts = std::min(thread_count(), chunks);
  // Dealt out in turn, as pairs that are left early lie together.
  run_parts(parts, [&](int64_t part) {
    ListedPairs<T> cells(x, y, squared, resample);
    for (int64_t chunk = part; chunk < chunks; chunk += parts) {
      for (int64_t p = chunk * kChunk; p < std::min((chunk + 1) * kChunk, pairs.count); ++p) {
        out[p] = cells.distance(pairs.x[p], pairs.y[p], pairs.limits[p]);
      }
    }
  });
}

}  // namespace scav::SCAV_LEVEL
