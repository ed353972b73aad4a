// Every pair of a batch handed to a recursion, lanes filled, work split over the threads.
// Included once per SIMD level (foreach_level.h): no include guard.

namespace scav::SCAV_LEVEL {

// Pairs that share a recursion: up to `vectors` x's against the y's of a group. Lane v * width + l is x number v
// against the group's y number l, where `width` is the group's lanes.
template <class T>
struct SharedX {
  static constexpr bool kShared = true, kForbids = Tile<T>::kForbids;
  std::vector<Tile<T>> tiles;
  int64_t vectors;

  const Group& group() const { return tiles[0].group; }
  int64_t width() const { return group().lanes; }
  int64_t lanes() const { return vectors * width(); }
  const Tile<T>& tile_of(int64_t lane) const { return tiles[static_cast<size_t>(lane / width())]; }
  bool has(int64_t lane) const { return lane < static_cast<int64_t>(tiles.size()) * width(); }
  int64_t rows() const {
    int64_t most = 0;
    for (const Tile<T>& tile : tiles) {
      most = std::max(most, tile.rows());
    }
    return most;
  }
  int64_t steps() const { return group().steps; }
  int64_t rows_of(int64_t lane) const { return has(lane) ? tile_of(lane).rows() : 0; }
  int64_t steps_of(int64_t lane) const { return has(lane) ? tiles[0].packed.length(group(), lane % width()) : 0; }
  // Steps come in whole panels.
  int64_t granularity() const { return group().panel / width(); }

  // Costs of steps [step0, step1) and rows [row0, row1), 0 past an x's last: cell (s, t) of lane v * width + l at
  // v * block + s * stride + (t - step0) * width + l.
  void costs(int64_t step0, int64_t step1, int64_t row0, int64_t row1, T* out, int64_t stride, int64_t block) const {
    const int64_t first = step0 / granularity();
    // Panel by panel, so that one stays in cache for all x's.
    for (int64_t panel = first; panel < panel_end(step1); ++panel) {
      T* to = out + (panel - first) * group().panel;
      for (const Tile<T>& tile : tiles) {
        tile.costs(panel, panel + 1, row0, std::clamp(tile.rows(), row0, row1), to, stride);
        to += block;
      }
    }
    for (int64_t v = 0; v < vectors; ++v) {
      for (int64_t s = std::clamp(rows_of(v * width()), row0, row1); s < row1; ++s) {
        std::fill_n(out + v * block + s * stride, (step1 - step0) * width(), T(0));
      }
    }
  }
  void adjoint(int64_t step0, int64_t step1, int64_t row0, int64_t row1, const T* costs, T* weights, int64_t stride,
               int64_t block, const std::vector<Adjoint<T>>& to) const {
    for (int64_t panel = step0 / granularity(); panel < panel_end(step1); ++panel) {
      const int64_t at = panel * group().panel - step0 * width();
      for (size_t v = 0; v < tiles.size(); ++v) {
        const int64_t from = static_cast<int64_t>(v) * block + at;
        tiles[v].adjoint(panel, panel + 1, row0, std::clamp(tiles[v].rows(), row0, row1), costs + from, weights + from,
                         stride, to[v]);
      }
    }
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
  int64_t lane_count;

  int64_t width() const { return lane_count; }
  int64_t lanes() const { return lane_count; }
  const Source& tile_of(int64_t lane) const { return tiles[static_cast<size_t>(lane)]; }
  int64_t rows() const { return longest(&OwnX::rows_of); }
  int64_t steps() const { return longest(&OwnX::steps_of); }
  int64_t rows_of(int64_t lane) const { return lane < size() ? tile_of(lane).rows() : 0; }
  int64_t steps_of(int64_t lane) const { return lane < size() ? tile_of(lane).steps() : 0; }
  int64_t granularity() const { return kNarrowPanel; }

  void costs(int64_t step0, int64_t step1, int64_t row0, int64_t row1, T* out, int64_t stride, int64_t) const {
    const Block block(step0, step1, row0, row1);
    Buffer<T> own(lane_count * block.size());
    for (int64_t lane = 0; lane < lane_count; ++lane) {
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
          lane_count, step1 - step0, [&](int64_t lane) { return from + lane * block.size(); },
          [&](int64_t k) { return out + s * stride + k * lane_count; });
    }
  }

  template <class To>
  void adjoint(int64_t step0, int64_t step1, int64_t row0, int64_t row1, const T* costs, T* weights, int64_t stride,
               int64_t, const std::vector<To>& to) const {
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
    Buffer<T> own(lane_count * block.size());
    for (int64_t s = block.row0; s < block.row1; ++s) {
      T* to = own.data() + (s - block.row0) * block.stride;
      transpose<T>(
          steps, lane_count, [&](int64_t k) { return cells + s * stride + k * lane_count; },
          [&](int64_t lane) { return to + lane * block.size(); });
      for (int64_t lane = 0; lane < lane_count; ++lane) {
        std::fill(to + lane * block.size() + steps, to + lane * block.size() + block.stride, T(0));
      }
    }
    return own;
  }
};

// How many lanes share a recursion: `vectors` of `width` each.
struct LaneCount {
  int64_t width, vectors;
};

// y's as one packed batch, and how pairs are drawn from it: against every x, or each against its own. Packed::y points
// into it, so it stays where it was made.
template <class T>
struct PairBatch {
  const Inputs& inputs;
  Sequences<T> x, y;
  int64_t lanes, vectors;
  Layout pair_groups;            // paired: which pairs share a recursion; else unused
  std::vector<int64_t> x_order;  // x's by length, so that those of one recursion are about equally long
  Packed<T> packed;
  Buffer<uint32_t> x_words;  // the x's where they are multiplied as bfloat16

  PairBatch(const Inputs& given, LaneCount count, bool with_rows)
      : inputs(given),
        x(given.sequences_x<T>()),
        y(given.sequences_y<T>()),
        lanes(count.width),
        vectors(count.vectors),
        x_order(by_length(x.lengths, x.batch)) {
    if (inputs.paired) {
      pair_groups = interleave(y.lengths, y.batch, lanes);
      packed = pack<T>(y, one_by_one(y.lengths, y.batch, true), with_rows, inputs.in_bfloat16);
    } else {
      packed = pack<T>(y, lanes == 1 ? one_by_one(y.lengths, y.batch) : interleave(y.lengths, y.batch, lanes),
                       with_rows, inputs.in_bfloat16);
    }
    if (inputs.in_bfloat16) {
      x_words = to_words<T>(x);
    }
  }

  PairBatch(const PairBatch&) = delete;

  Tile<T> tile(int64_t i, const Group& group) const { return {x, packed, group, inputs.cost, i, x_words.data()}; }

  OwnX<T, Tile<T>> own(const Group& group) const {
    OwnX<T, Tile<T>> pairs{{}, lanes};
    for (int64_t lane = 0; lane < group.count; ++lane) {
      const int64_t i = pair_groups.order[static_cast<size_t>(group.first + lane)];
      pairs.tiles.push_back(tile(i, packed.layout.groups[static_cast<size_t>(i)]));
    }
    return pairs;
  }

  // As many x's as share a recursion: number `first` of `order` and those that follow, up to number `end`.
  SharedX<T> shared(const Group& group, const std::vector<int64_t>& order, int64_t first, int64_t end) const {
    SharedX<T> pairs{{}, vectors};
    for (int64_t at = first; at < std::min(first + vectors, end); ++at) {
      pairs.tiles.push_back(tile(order[static_cast<size_t>(at)], group));
    }
    return pairs;
  }

  // Result index of each lane's pair; lanes without one hold -1.
  std::vector<int64_t> results_of(const OwnX<T, Tile<T>>&, const Group& group) const {
    std::vector<int64_t> results(static_cast<size_t>(lanes), -1);
    std::copy_n(pair_groups.order.begin() + group.first, group.count, results.begin());
    return results;
  }
  std::vector<int64_t> results_of(const SharedX<T>& pairs, const Group& group) const {
    std::vector<int64_t> results;
    for (const Tile<T>& tile : pairs.tiles) {
      for (int64_t lane = 0; lane < lanes; ++lane) {
        results.push_back(lane < group.count ? tile.b * y.batch + packed.index(group, lane) : -1);
      }
    }
    results.resize(static_cast<size_t>(pairs.lanes()), -1);
    return results;
  }
};

// f(pairs, results) for every set of pairs that share a recursion.
template <class T, class F>
void for_each_pairs(const PairBatch<T>& batch, const F& f) {
  const bool paired = batch.inputs.paired;
  const auto& groups = paired ? batch.pair_groups.groups : batch.packed.layout.groups;
  const int64_t parts = thread_count(), vectors = batch.vectors;
  const int64_t blocks = paired ? 1 : (batch.x.batch + vectors - 1) / vectors;
  // Tasks are a group against a slice of the x's: small enough to balance, few enough to list.
  const int64_t slices = std::clamp<int64_t>(16 * parts / static_cast<int64_t>(groups.size()), 1, blocks);
  // First of the x's in slice number `slice`.
  const auto first_of = [&](int64_t slice) { return std::min(blocks * slice / slices * vectors, batch.x.batch); };
  std::vector<double> weights;
  for (const Group& group : groups) {
    for (int64_t slice = 0; slice < slices; ++slice) {
      int64_t rows = 0;
      for (int64_t at = first_of(slice); at < first_of(slice + 1); ++at) {
        rows += paired ? 1 : batch.x.lengths[batch.x_order[static_cast<size_t>(at)]];
      }
      weights.push_back(static_cast<double>(group.steps * rows));
    }
  }
  const auto bounds = split_by_weight(weights, parts);
  run_parts(parts, [&](int64_t part) {
    for (int64_t task = bounds[static_cast<size_t>(part)]; task < bounds[static_cast<size_t>(part) + 1]; ++task) {
      const Group& group = groups[static_cast<size_t>(task / slices)];
      if (paired) {
        const auto pairs = batch.own(group);
        f(pairs, batch.results_of(pairs, group));
        continue;
      }
      const int64_t slice = task % slices, end = first_of(slice + 1);
      for (int64_t first = first_of(slice); first < end; first += vectors) {
        const auto pairs = batch.shared(group, batch.x_order, first, end);
        f(pairs, batch.results_of(pairs, group));
      }
    }
  });
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
        const auto pairs = batch.own(group);
        const std::vector<int64_t> results = batch.results_of(pairs, group);
        std::vector<Adjoint<T>> to;
        for (int64_t lane = 0; lane < group.count; ++lane) {
          to.push_back(gradient.adjoint(dx ? dx + results[static_cast<size_t>(lane)] * block : nullptr));
        }
        f(pairs, results, to);
      }
    });
    gradient.unpack(batch.packed, dy);
    return;
  }
  // What is added to the x's of a chunk stays in the last-level cache while the y's pass by.
  constexpr int64_t kChunkBytes = int64_t(2) << 20;
  std::vector<int64_t> order;
  std::copy_if(batch.x_order.begin(), batch.x_order.end(), std::back_inserter(order),
               [&](int64_t i) { return x.poison[i] == 0; });
  const auto count = static_cast<int64_t>(order.size());
  const int64_t fitting = kChunkBytes / (block * static_cast<int64_t>(sizeof(T))) / batch.vectors * batch.vectors;
  const int64_t chunk = std::clamp<int64_t>(fitting, batch.vectors, std::max(count, batch.vectors));
  const bool private_dx = dx != nullptr && parts > 1;
  Buffer<T> own(private_dx ? parts * chunk * block : 0);
  // Where a part adds to the gradient of number `at` of the chunk that starts at `first`.
  const auto target = [&](int64_t part, int64_t first, int64_t at) {
    return private_dx ? own.data() + (part * chunk + at) * block
                      : (dx ? dx + order[static_cast<size_t>(first + at)] * block : nullptr);
  };
  for (int64_t first = 0; first < count; first += chunk) {
    const int64_t size = std::min(chunk, count - first);
    run_parts(parts, [&](int64_t part) {
      if (private_dx) {
        std::fill_n(target(part, first, 0), size * block, T(0));
      }
      for (int64_t g = bounds[static_cast<size_t>(part)]; g < bounds[static_cast<size_t>(part) + 1]; ++g) {
        const Group& group = groups[static_cast<size_t>(g)];
        for (int64_t at = 0; at < size; at += batch.vectors) {
          const auto pairs = batch.shared(group, order, first + at, first + size);
          std::vector<Adjoint<T>> to;
          for (size_t v = 0; v < pairs.tiles.size(); ++v) {
            to.push_back(gradient.adjoint(target(part, first, at + static_cast<int64_t>(v))));
          }
          f(pairs, batch.results_of(pairs, group), to);
        }
      }
    });
    if (private_dx) {
      run_parts(parts, [&](int64_t part) {
        for (int64_t at = size * part / parts; at < size * (part + 1) / parts; ++at) {
          T* to = dx + order[static_cast<size_t>(first + at)] * block;
          for (int64_t from = 0; from < parts; ++from) {
            const T* share = target(from, first, at);
            for (int64_t k = 0; k < block; ++k) {
              to[k] += share[k];
            }
          }
        }
      });
    }
  }
  gradient.unpack(batch.packed, dy);
}

}  // namespace scav::SCAV_LEVEL
