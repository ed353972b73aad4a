// Every pair of a batch handed to a recursion, lanes filled, work split over the threads.
// Included once per SIMD level (foreach_level.h): no include guard.

namespace scav::SCAV_LEVEL {

// Pairs that share a recursion: one x against the y's of a group.
template <class T>
struct SharedX {
  static constexpr bool kShared = true, kForbids = Tile<T>::kForbids;
  Tile<T> tile;
  int64_t lanes() const { return tile.group.lanes; }
  int64_t rows() const { return tile.rows(); }
  int64_t steps() const { return tile.steps(); }
  const Tile<T>& tile_of(int64_t) const { return tile; }
  int64_t rows_of(int64_t) const { return tile.rows(); }
  int64_t steps_of(int64_t lane) const { return tile.packed.length(tile.group, lane); }
  // Steps come in whole panels.
  int64_t granularity() const { return tile.group.panel / tile.group.lanes; }

  // Costs of steps [step0, step1) and rows [row0, row1): cell (s, t) of a lane at s * stride + (t - step0) * lanes +
  // lane.
  void costs(int64_t step0, int64_t step1, int64_t row0, int64_t row1, T* out, int64_t stride) const {
    tile.costs(step0 / granularity(), panel_end(step1), row0, row1, out, stride);
  }
  void adjoint(int64_t step0, int64_t step1, int64_t row0, int64_t row1, const T* costs, T* weights, int64_t stride,
               const std::vector<Adjoint<T>>& to) const {
    tile.adjoint(step0 / granularity(), panel_end(step1), row0, row1, costs, weights, stride, to[0]);
  }

 private:
  int64_t panel_end(int64_t step1) const { return (step1 + granularity() - 1) / granularity(); }
};

// Pairs that share nothing, one `Source` of costs to a lane: a Tile of x number i against y number i, or costs that the
// caller gave. A source's columns come in panels of kNarrowPanel steps.
template <class T, class Source>
struct OwnX {
  static constexpr bool kShared = false, kForbids = Source::kForbids;
  std::vector<Source> tiles;
  int64_t width;

  int64_t lanes() const { return width; }
  const Source& tile_of(int64_t lane) const { return tiles[static_cast<size_t>(lane)]; }
  int64_t rows() const { return longest(&OwnX::rows_of); }
  int64_t steps() const { return longest(&OwnX::steps_of); }
  int64_t rows_of(int64_t lane) const { return lane < size() ? tile_of(lane).rows() : 0; }
  int64_t steps_of(int64_t lane) const { return lane < size() ? tile_of(lane).steps() : 0; }
  int64_t granularity() const { return kNarrowPanel; }

  void costs(int64_t step0, int64_t step1, int64_t row0, int64_t row1, T* out, int64_t stride) const {
    const Block block(step0, step1, row0, row1);
    Buffer<T> own(width * block.size());
    for (int64_t lane = 0; lane < width; ++lane) {
      const Block part = block.of(rows_of(lane), steps_of(lane));
      T* to = own.data() + lane * block.size();
      if (part.row1 < row1 || part.panel1 < block.panel1) {
        std::fill_n(to, block.size(), T(0));
      }
      if (!part.empty()) {
        tile_of(lane).costs(part.panel0, part.panel1, row0, part.row1, to - row0 * block.stride, block.stride);
      }
    }
    for (int64_t s = row0; s < row1; ++s) {
      const T* from = own.data() + (s - row0) * block.stride;
      transpose<T>(
          width, step1 - step0, [&](int64_t lane) { return from + lane * block.size(); },
          [&](int64_t k) { return out + s * stride + k * width; });
    }
  }

  template <class To>
  void adjoint(int64_t step0, int64_t step1, int64_t row0, int64_t row1, const T* costs, T* weights, int64_t stride,
               const std::vector<To>& to) const {
    const Block block(step0, step1, row0, row1);
    const Buffer<T> own_costs = by_lane(block, costs, stride), own_weights = by_lane(block, weights, stride);
    for (int64_t lane = 0; lane < size(); ++lane) {
      const Block part = block.of(rows_of(lane), steps_of(lane));
      if (!part.empty() && !tile_of(lane).poisoned()) {
        const int64_t at = lane * block.size() - row0 * block.stride;
        tile_of(lane).adjoint(part.panel0, part.panel1, row0, part.row1, own_costs.data() + at, own_weights.data() + at,
                              block.stride, to[static_cast<size_t>(lane)]);
      }
    }
  }

 private:
  // Rows and whole panels of steps, as one lane's cells lie in a buffer of their own.
  struct Block {
    int64_t step0, step1, row0, row1, panel0, panel1, stride;

    Block(int64_t first_step, int64_t end_step, int64_t first_row, int64_t end_row)
        : step0(first_step),
          step1(end_step),
          row0(first_row),
          row1(end_row),
          panel0(first_step / kNarrowPanel),
          panel1((end_step + kNarrowPanel - 1) / kNarrowPanel),
          stride((panel1 - panel0) * kNarrowPanel) {}
    int64_t size() const { return (row1 - row0) * stride; }
    bool empty() const { return row0 >= row1 || step0 >= step1; }
    // What a pair of n rows and m steps has of it.
    Block of(int64_t n, int64_t m) const { return {step0, std::min(step1, m), row0, std::min(row1, n)}; }
  };

  int64_t size() const { return static_cast<int64_t>(tiles.size()); }
  int64_t longest(int64_t (OwnX::*of)(int64_t) const) const {
    int64_t most = 0;
    for (int64_t lane = 0; lane < size(); ++lane) {
      most = std::max(most, (this->*of)(lane));
    }
    return most;
  }
  // Cells with lanes innermost as one block to a lane, 0 past the last step.
  Buffer<T> by_lane(const Block& block, const T* cells, int64_t stride) const {
    const int64_t steps = block.step1 - block.step0;
    Buffer<T> own(width * block.size());
    for (int64_t s = block.row0; s < block.row1; ++s) {
      T* to = own.data() + (s - block.row0) * block.stride;
      transpose<T>(
          steps, width, [&](int64_t k) { return cells + s * stride + k * width; },
          [&](int64_t lane) { return to + lane * block.size(); });
      for (int64_t lane = 0; lane < width; ++lane) {
        std::fill(to + lane * block.size() + steps, to + lane * block.size() + block.stride, T(0));
      }
    }
    return own;
  }
};

// y's as one packed batch, and how pairs are drawn from it: against every x, or each against its own. Packed::y points
// into it, so it stays where it was made.
template <class T>
struct PairBatch {
  const Inputs& inputs;
  Sequences<T> x, y;
  int64_t lanes;
  Layout pair_groups;  // paired: which pairs share a recursion; else unused
  Packed<T> packed;

  PairBatch(const Inputs& given, int64_t lane_count, bool with_rows)
      : inputs(given), x(given.sequences_x<T>()), y(given.sequences_y<T>()), lanes(lane_count) {
    if (inputs.paired) {
      pair_groups = interleave(y.lengths, y.batch, lanes);
      packed = pack<T>(y, one_by_one(y.lengths, y.batch, true), with_rows);
    } else {
      packed =
          pack<T>(y, lanes == 1 ? one_by_one(y.lengths, y.batch) : interleave(y.lengths, y.batch, lanes), with_rows);
    }
  }

  PairBatch(const PairBatch&) = delete;

  Tile<T> tile(int64_t i, const Group& group) const { return {x, packed, group, inputs.cost, i}; }

  OwnX<T, Tile<T>> own(const Group& group) const {
    OwnX<T, Tile<T>> pairs{{}, lanes};
    for (int64_t lane = 0; lane < group.count; ++lane) {
      const int64_t i = pair_groups.order[static_cast<size_t>(group.first + lane)];
      pairs.tiles.push_back(tile(i, packed.layout.groups[static_cast<size_t>(i)]));
    }
    return pairs;
  }

  // Result index of each lane's pair; lanes without one hold -1.
  std::vector<int64_t> results_of(const Group& group, int64_t i) const {
    std::vector<int64_t> results(static_cast<size_t>(lanes), -1);
    for (int64_t lane = 0; lane < group.count; ++lane) {
      results[static_cast<size_t>(lane)] = inputs.paired ? pair_groups.order[static_cast<size_t>(group.first + lane)]
                                                         : i * y.batch + packed.index(group, lane);
    }
    return results;
  }
};

// f(pairs, results) for every set of pairs that share a recursion.
template <class T, class F>
void for_each_pairs(const PairBatch<T>& batch, const F& f) {
  const bool paired = batch.inputs.paired;
  const auto& groups = paired ? batch.pair_groups.groups : batch.packed.layout.groups;
  const int64_t parts = thread_count(), xs = paired ? 1 : batch.x.batch;
  // Tasks are a group against a slice of the x's: small enough to balance, few enough to list.
  const int64_t slices = std::clamp<int64_t>(16 * parts / static_cast<int64_t>(groups.size()), 1, xs);
  std::vector<double> weights;
  for (const Group& group : groups) {
    for (int64_t slice = 0; slice < slices; ++slice) {
      int64_t rows = 0;
      for (int64_t i = xs * slice / slices; i < xs * (slice + 1) / slices; ++i) {
        rows += paired ? 1 : batch.x.lengths[i];
      }
      weights.push_back(static_cast<double>(group.steps * rows));
    }
  }
  const auto bounds = split_by_weight(weights, parts);
  run_parts(parts, [&](int64_t part) {
    for (int64_t task = bounds[static_cast<size_t>(part)]; task < bounds[static_cast<size_t>(part) + 1]; ++task) {
      const Group& group = groups[static_cast<size_t>(task / slices)];
      if (paired) {
        f(batch.own(group), batch.results_of(group, 0));
        continue;
      }
      const int64_t slice = task % slices;
      for (int64_t i = xs * slice / slices; i < xs * (slice + 1) / slices; ++i) {
        f(SharedX<T>{batch.tile(i, group)}, batch.results_of(group, i));
      }
    }
  });
}

// The valid steps of x number i as (D, n).
template <class T>
void transpose_x(const Sequences<T>& x, int64_t i, T* columns) {
  const int64_t n = x.lengths[i];
  transpose<T>(n, x.dim, [&](int64_t s) { return x.row(i, s); }, [&](int64_t k) { return columns + k * n; });
}

// f(pairs, results, adjoints) for every set of pairs that share a recursion, adding to dx (B1, N, D) and dy (B2, M, D),
// which are zero on entry, or null where that side needs no gradient. A thread owns whole groups of y's, so their
// gradients need no lock; its share of dx is its own until all are done, for a chunk of x's at a time.
template <class T, class F>
void backward_pairs(const PairBatch<T>& batch, T* dx, T* dy, const F& f) {
  const Sequences<T>& x = batch.x;
  const PackedGradient<T> gradient(batch.packed, dy != nullptr);
  const int64_t parts = thread_count(), block = x.steps * x.dim;
  const auto& groups = batch.inputs.paired ? batch.pair_groups.groups : batch.packed.layout.groups;
  std::vector<double> weights;
  for (const Group& group : groups) {
    weights.push_back(static_cast<double>(group.steps));
  }
  const auto bounds = split_by_weight(weights, parts);
  if (batch.inputs.paired) {
    run_parts(parts, [&](int64_t part) {
      for (int64_t g = bounds[static_cast<size_t>(part)]; g < bounds[static_cast<size_t>(part) + 1]; ++g) {
        const Group& group = groups[static_cast<size_t>(g)];
        Buffer<T> columns(group.count * block);
        std::vector<Adjoint<T>> to;
        for (int64_t lane = 0; lane < group.count; ++lane) {
          const int64_t i = batch.pair_groups.order[static_cast<size_t>(group.first + lane)];
          transpose_x(x, i, columns.data() + lane * block);
          to.push_back(gradient.adjoint(columns.data() + lane * block, dx ? dx + i * block : nullptr));
        }
        f(batch.own(group), batch.results_of(group, 0), to);
      }
    });
    gradient.unpack(batch.packed, dy);
    return;
  }
  constexpr int64_t kChunkBytes = int64_t(16) << 20;
  const int64_t chunk = std::clamp<int64_t>(kChunkBytes / (block * static_cast<int64_t>(sizeof(T))), 1, x.batch);
  const bool private_dx = dx != nullptr && parts > 1;
  Buffer<T> columns(chunk * block), own(private_dx ? parts * chunk * block : 0);
  for (int64_t first = 0; first < x.batch; first += chunk) {
    const int64_t end = std::min(first + chunk, x.batch);
    run_parts(parts, [&](int64_t part) {
      for (int64_t i = first + (end - first) * part / parts; i < first + (end - first) * (part + 1) / parts; ++i) {
        transpose_x(x, i, columns.data() + (i - first) * block);
      }
      if (private_dx) {
        std::fill_n(own.data() + part * chunk * block, chunk * block, T(0));
      }
    });
    run_parts(parts, [&](int64_t part) {
      T* target = private_dx ? own.data() + part * chunk * block : (dx ? dx + first * block : nullptr);
      for (int64_t g = bounds[static_cast<size_t>(part)]; g < bounds[static_cast<size_t>(part) + 1]; ++g) {
        const Group& group = groups[static_cast<size_t>(g)];
        for (int64_t i = first; i < end; ++i) {
          if (x.poison[i] == 0) {
            f(SharedX<T>{batch.tile(i, group)}, batch.results_of(group, i),
              std::vector<Adjoint<T>>{gradient.adjoint(columns.data() + (i - first) * block,
                                                       target ? target + (i - first) * block : nullptr)});
          }
        }
      }
    });
    if (private_dx) {
      run_parts(parts, [&](int64_t part) {
        const int64_t size = (end - first) * block;
        for (int64_t k = size * part / parts; k < size * (part + 1) / parts; ++k) {
          T sum = 0;
          for (int64_t from = 0; from < parts; ++from) {
            sum += own[from * chunk * block + k];
          }
          dx[first * block + k] = sum;
        }
      });
    }
  }
  gradient.unpack(batch.packed, dy);
}

}  // namespace scav::SCAV_LEVEL
