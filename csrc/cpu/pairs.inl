// Splits the pairs of a batch over lanes, recursions and threads.
// Included once per SIMD level (foreach_level.h): no include guard.

namespace scav::SCAV_LEVEL {

// Lanes of a recursion: `vectors` of `width` each.
struct LaneCount {
  int64_t width, vectors;

  int64_t lanes() const { return width * vectors; }
};

// Pairs that share a recursion: up to `vectors` x's against the y's of a group. Lane v * width + l is x number v
// against the group's y number l, where `width` is the group's lanes.
template <class T>
struct SharedPairs {
  static constexpr bool kShared = true, kForbids = GroupCosts<T>::kForbids;
  std::vector<GroupCosts<T>> sources;
  int64_t vectors;

  const Group& group() const { return sources[0].group; }
  int64_t width() const { return group().lanes; }
  int64_t lanes() const { return vectors * width(); }
  const GroupCosts<T>& source_of(int64_t lane) const { return sources[static_cast<size_t>(lane / width())]; }
  bool has(int64_t lane) const { return lane < static_cast<int64_t>(sources.size()) * width(); }
  int64_t rows() const {
    int64_t longest = 0;
    for (const GroupCosts<T>& source : sources) {
      longest = std::max(longest, source.rows());
    }
    return longest;
  }
  int64_t steps() const { return group().steps; }
  int64_t rows_of(int64_t lane) const { return has(lane) ? source_of(lane).rows() : 0; }
  int64_t steps_of(int64_t lane) const { return has(lane) ? sources[0].packed.length(group(), lane % width()) : 0; }
  // Steps come in whole panels.
  int64_t panel_steps() const { return group().panel / width(); }

  // Costs of steps [step0, step1) and rows [row0, row1), 0 past an x's last: cell (s, t) of lane v * width + l at
  // v * vector_stride + s * stride + (t - step0) * width + l.
  void costs(int64_t step0, int64_t step1, int64_t row0, int64_t row1, T* out, int64_t stride,
             int64_t vector_stride) const {
    const int64_t first = step0 / panel_steps();
    // Panel by panel, so that one stays in cache for all x's.
    for (int64_t panel = first; panel < panel_end(step1); ++panel) {
      T* to = out + (panel - first) * group().panel;
      for (const GroupCosts<T>& source : sources) {
        source.costs(panel, panel + 1, row0, std::clamp(source.rows(), row0, row1), to, stride);
        to += vector_stride;
      }
    }
    for (int64_t v = 0; v < vectors; ++v) {
      for (int64_t s = std::clamp(rows_of(v * width()), row0, row1); s < row1; ++s) {
        std::fill_n(out + v * vector_stride + s * stride, (step1 - step0) * width(), T(0));
      }
    }
  }
  void adjoint(int64_t step0, int64_t step1, int64_t row0, int64_t row1, const T* costs, T* weights, int64_t stride,
               int64_t vector_stride, const std::vector<Adjoint<T>>& to) const {
    for (int64_t panel = step0 / panel_steps(); panel < panel_end(step1); ++panel) {
      const int64_t at = panel * group().panel - step0 * width();
      for (size_t v = 0; v < sources.size(); ++v) {
        const int64_t from = static_cast<int64_t>(v) * vector_stride + at;
        sources[v].adjoint(panel, panel + 1, row0, std::clamp(sources[v].rows(), row0, row1), costs + from,
                           weights + from, stride, to[v]);
      }
    }
  }

 private:
  int64_t panel_end(int64_t step1) const { return (step1 + panel_steps() - 1) / panel_steps(); }
};

// Pairs without a common x or y, one `Source` of costs to a lane: a PairCosts, or costs that the caller gave. A
// source's columns come in panels of kNarrowPanel steps.
template <class T, class Source>
struct SeparatePairs {
  static constexpr bool kShared = false, kForbids = Source::kForbids;
  std::vector<Source> sources;
  LaneCount count;
  int64_t steps_at_once = kNarrowPanel;  // whole panels, whose costs are computed together

  int64_t width() const { return count.width; }
  int64_t lanes() const { return count.lanes(); }
  const Source& source_of(int64_t lane) const { return sources[static_cast<size_t>(lane)]; }
  int64_t rows() const { return longest(&SeparatePairs::rows_of); }
  int64_t steps() const { return longest(&SeparatePairs::steps_of); }
  int64_t rows_of(int64_t lane) const { return lane < size() ? source_of(lane).rows() : 0; }
  int64_t steps_of(int64_t lane) const { return lane < size() ? source_of(lane).steps() : 0; }
  int64_t panel_steps() const { return steps_at_once; }

  void costs(int64_t step0, int64_t step1, int64_t row0, int64_t row1, T* out, int64_t stride,
             int64_t vector_stride) const {
    const CellRange range(step0, step1, row0, row1);
    Buffer<T> buffer(width() * range.size());
    for (int64_t first = 0; first < lanes(); first += width(), out += vector_stride) {
      for (int64_t lane = 0; lane < width(); ++lane) {
        const CellRange valid = range.within(rows_of(first + lane), steps_of(first + lane));
        T* to = buffer.data() + lane * range.size();
        if (valid.row1 < row1 || valid.panel1 < range.panel1) {
          std::fill_n(to, range.size(), T(0));
        }
        if (!valid.empty()) {
          source_of(first + lane)
              .costs(valid.panel0, valid.panel1, row0, valid.row1, to - row0 * range.stride, range.stride);
        }
      }
      for (int64_t s = row0; s < row1; ++s) {
        const T* from = buffer.data() + (s - row0) * range.stride;
        transpose<T>(
            width(), step1 - step0, [&](int64_t lane) { return from + lane * range.size(); },
            [&](int64_t k) { return out + s * stride + k * width(); });
      }
    }
  }

  template <class To>
  void adjoint(int64_t step0, int64_t step1, int64_t row0, int64_t row1, const T* costs, T* weights, int64_t stride,
               int64_t vector_stride, const std::vector<To>& to) const {
    const CellRange range(step0, step1, row0, row1);
    for (int64_t first = 0; first < size(); first += width(), costs += vector_stride, weights += vector_stride) {
      const Buffer<T> lane_costs = by_lane(range, costs, stride), lane_weights = by_lane(range, weights, stride);
      for (int64_t lane = 0; lane < std::min(width(), size() - first); ++lane) {
        const Source& source = source_of(first + lane);
        const CellRange valid = range.within(source.rows(), source.steps());
        if (!valid.empty() && !source.is_nonfinite()) {
          const int64_t at = lane * range.size() - row0 * range.stride;
          source.adjoint(valid.panel0, valid.panel1, row0, valid.row1, lane_costs.data() + at, lane_weights.data() + at,
                         range.stride, to[static_cast<size_t>(first + lane)]);
        }
      }
    }
  }

 private:
  // Rows and whole panels of steps, as the cells of one lane lie in its buffer.
  struct CellRange {
    int64_t step0, step1, row0, row1, panel0, panel1, stride;

    CellRange(int64_t first_step, int64_t end_step, int64_t first_row, int64_t end_row)
        : step0(first_step),
          step1(end_step),
          row0(first_row),
          row1(end_row),
          panel0(first_step / kNarrowPanel),
          panel1((end_step + kNarrowPanel - 1) / kNarrowPanel),
          stride((panel1 - panel0) * kNarrowPanel) {}
    int64_t size() const { return (row1 - row0) * stride; }
    bool empty() const { return row0 >= row1 || step0 >= step1; }
    // The range within a pair of n rows and m steps.
    CellRange within(int64_t n, int64_t m) const { return {step0, std::min(step1, m), row0, std::min(row1, n)}; }
  };

  int64_t size() const { return static_cast<int64_t>(sources.size()); }
  int64_t longest(int64_t (SeparatePairs::*of)(int64_t) const) const {
    int64_t result = 0;
    for (int64_t lane = 0; lane < size(); ++lane) {
      result = std::max(result, (this->*of)(lane));
    }
    return result;
  }
  // Copies cells whose lanes are innermost to one range a lane, 0 past the last step.
  Buffer<T> by_lane(const CellRange& range, const T* cells, int64_t stride) const {
    const int64_t steps = range.step1 - range.step0;
    Buffer<T> buffer(width() * range.size());
    for (int64_t s = range.row0; s < range.row1; ++s) {
      T* to = buffer.data() + (s - range.row0) * range.stride;
      transpose<T>(
          steps, width(), [&](int64_t k) { return cells + s * stride + k * width(); },
          [&](int64_t lane) { return to + lane * range.size(); });
      for (int64_t lane = 0; lane < width(); ++lane) {
        std::fill(to + lane * range.size() + steps, to + lane * range.size() + range.stride, T(0));
      }
    }
    return buffer;
  }
};

// Pairs of every x with every y, which are packed as one batch, or of x number i with y number i, which are packed when
// their costs are computed. Packed::y points into it, so a batch cannot be copied or moved.
template <class T>
struct PairBatch {
  const Inputs& inputs;
  Sequences<T> x, y;
  LaneCount count;
  bool with_gradients, in_bfloat16;
  Layout pair_groups;            // paired: pairs that share a recursion; else unused
  std::vector<int64_t> x_order;  // x's by length, so that those of one recursion are about equally long
  Packed<T> packed;              // unless paired
  Buffer<uint32_t> x_words;      // the x's where they are multiplied as bfloat16, unless paired

  PairBatch(const Inputs& given, LaneCount lane_count, bool gradients)
      : inputs(given),
        x(given.sequences_x<T>()),
        y(given.sequences_y<T>()),
        count(lane_count),
        with_gradients(gradients),
        in_bfloat16(inputs.in_bfloat16 && !has_difference_cells(inputs.cost, x.dim)),
        x_order(by_length(x.lengths, x.batch)) {
    if (inputs.paired) {
      pair_groups = interleave_pairs(x.lengths, y.lengths, y.batch, count.lanes());
      return;
    }
    const int64_t lanes = count.width;
    packed = pack<T>(y, lanes == 1 ? one_by_one(y.lengths, y.batch) : interleave(y.lengths, y.batch, lanes),
                     with_gradients, in_bfloat16);
    if (in_bfloat16) {
      x_words = to_words<T>(x);
    }
  }

  PairBatch(const PairBatch&) = delete;

  GroupCosts<T> source(int64_t i, const Group& group) const {
    return {x, packed, group, inputs.cost, i, x_words.data()};
  }

  SeparatePairs<T, PairCosts<T>> separate(const Group& group) const {
    const auto scratch = std::make_shared<PairScratch<T>>(x, y, in_bfloat16, with_gradients);
    SeparatePairs<T, PairCosts<T>> pairs{{}, count};
    for (int64_t lane = 0; lane < group.count; ++lane) {
      pairs.sources.emplace_back(scratch, inputs, x, y, pair_groups.order[static_cast<size_t>(group.first + lane)]);
    }
    // An x is read once for all these steps, and they fill wide panels. Their cells about fit the second-level cache.
    constexpr int64_t kCells = (int64_t(1) << 20) / static_cast<int64_t>(sizeof(T));
    const int64_t fitting = kCells / (pairs.rows() * pairs.lanes()) / kNarrowPanel * kNarrowPanel;
    pairs.steps_at_once = std::clamp(fitting, kNarrowPanel, std::max(pairs.steps(), kNarrowPanel));
    return pairs;
  }

  // As many x's as share a recursion: number `first` of `order` and those that follow, up to number `end`.
  SharedPairs<T> shared(const Group& group, const std::vector<int64_t>& order, int64_t first, int64_t end) const {
    SharedPairs<T> pairs{{}, count.vectors};
    for (int64_t at = first; at < std::min(first + count.vectors, end); ++at) {
      pairs.sources.push_back(source(order[static_cast<size_t>(at)], group));
    }
    return pairs;
  }

  // Result index of each lane's pair; lanes without one hold -1.
  std::vector<int64_t> results_of(const SeparatePairs<T, PairCosts<T>>& pairs, const Group& group) const {
    std::vector<int64_t> results(static_cast<size_t>(pairs.lanes()), -1);
    std::copy_n(pair_groups.order.begin() + group.first, group.count, results.begin());
    return results;
  }
  std::vector<int64_t> results_of(const SharedPairs<T>& pairs, const Group& group) const {
    std::vector<int64_t> results;
    for (const GroupCosts<T>& source : pairs.sources) {
      for (int64_t lane = 0; lane < pairs.width(); ++lane) {
        results.push_back(lane < group.count ? source.b * y.batch + packed.index(group, lane) : -1);
      }
    }
    results.resize(static_cast<size_t>(pairs.lanes()), -1);
    return results;
  }
};

// Calls f(pairs, results) for every set of pairs that share a recursion.
template <class T, class F>
void for_each_pairs(const PairBatch<T>& batch, const F& f) {
  if (batch.inputs.paired) {
    for_each_recursion(batch.pair_groups.groups, kOwnX, batch.x.lengths, 1, [&](const Group& group, int64_t, int64_t) {
      const auto pairs = batch.separate(group);
      f(pairs, batch.results_of(pairs, group));
    });
  } else {
    for_each_recursion(batch.packed.layout.groups, batch.x_order, batch.x.lengths, batch.count.vectors,
                       [&](const Group& group, int64_t first, int64_t end) {
                         const auto pairs = batch.shared(group, batch.x_order, first, end);
                         f(pairs, batch.results_of(pairs, group));
                       });
  }
}

// backward_pairs of x number i against y number i.
template <class T, class F>
void backward_separate_pairs(const PairBatch<T>& batch, T* dx, T* dy, const F& f) {
  const int64_t x_size = batch.x.steps * batch.x.dim, y_size = batch.y.steps * batch.y.dim;
  for_each_group(batch.pair_groups.groups, [&](const Group& group, int64_t) {
    const auto pairs = batch.separate(group);
    const std::vector<int64_t> results = batch.results_of(pairs, group);
    std::vector<PairAdjoint<T>> to;
    for (int64_t lane = 0; lane < group.count; ++lane) {
      const int64_t i = results[static_cast<size_t>(lane)];
      to.push_back({dx ? dx + i * x_size : nullptr, dy ? dy + i * y_size : nullptr});
    }
    f(pairs, results, to);
  });
}

// Gradients of the x's, to which every part of the groups of y's adds: by itself where there are several parts, until
// all are done. x's are taken a group at a time, in `order`.
template <class T>
class XGradients {
 public:
  XGradients(const PairBatch<T>& batch, const std::vector<int64_t>& order, T* dx)
      : dx_(dx),
        order_(order),
        parts_(thread_count()),
        x_size_(batch.x.steps * batch.x.dim),
        group_size_(choose_group_size(batch.count.vectors)),
        copies_(has_copies() ? parts_ * group_size_ * x_size_ : 0) {}

  int64_t group_size() const { return group_size_; }

  // Gradient that `part` adds to for x number `at` of the group that starts at `first`, or null.
  T* of(int64_t part, int64_t first, int64_t at) const {
    return has_copies() ? copies_.data() + (part * group_size_ + at) * x_size_ : result(first + at);
  }

  // Zeros the copies of a group of `count` x's.
  void start(int64_t count) const {
    if (has_copies()) {
      run_parts(parts_, [&](int64_t part) { std::fill_n(of(part, 0, 0), count * x_size_, T(0)); });
    }
  }

  // Adds the copies of a group of `count` x's to the result.
  void finish(int64_t first, int64_t count) const {
    if (!has_copies()) {
      return;
    }
    run_parts(parts_, [&](int64_t part) {
      for (int64_t at = count * part / parts_; at < count * (part + 1) / parts_; ++at) {
        T* to = result(first + at);
        for (int64_t from = 0; from < parts_; ++from) {
          const T* copy = of(from, first, at);
          for (int64_t k = 0; k < x_size_; ++k) {
            to[k] += copy[k];
          }
        }
      }
    });
  }

 private:
  bool has_copies() const { return dx_ != nullptr && parts_ > 1; }
  T* result(int64_t place) const { return dx_ ? dx_ + order_[static_cast<size_t>(place)] * x_size_ : nullptr; }

  // Gradients of a group of x's stay in the last-level cache while a thread visits its y's.
  int64_t choose_group_size(int64_t vectors) const {
    constexpr int64_t kGroupBytes = int64_t(2) << 20;
    const int64_t fitting = kGroupBytes / (x_size_ * static_cast<int64_t>(sizeof(T))) / vectors * vectors;
    return std::clamp<int64_t>(fitting, vectors, std::max(static_cast<int64_t>(order_.size()), vectors));
  }

  T* dx_;
  const std::vector<int64_t>& order_;
  int64_t parts_, x_size_, group_size_;
  Buffer<T> copies_;  // (parts, group_size, N, D)
};

// backward_pairs of every x against every y.
template <class T, class F>
void backward_shared_pairs(const PairBatch<T>& batch, T* dx, T* dy, const F& f) {
  const PackedGradient<T> gradient(batch.packed, dy != nullptr);
  std::vector<int64_t> order;
  std::copy_if(batch.x_order.begin(), batch.x_order.end(), std::back_inserter(order),
               [&](int64_t i) { return batch.x.nonfinite[i] == 0; });
  const XGradients<T> x_gradients(batch, order, dx);
  const auto end = static_cast<int64_t>(order.size());
  for (int64_t first = 0; first < end; first += x_gradients.group_size()) {
    const int64_t count = std::min(x_gradients.group_size(), end - first);
    x_gradients.start(count);
    for_each_group(batch.packed.layout.groups, [&](const Group& group, int64_t part) {
      for (int64_t at = 0; at < count; at += batch.count.vectors) {
        const auto pairs = batch.shared(group, order, first + at, first + count);
        std::vector<Adjoint<T>> to;
        for (size_t v = 0; v < pairs.sources.size(); ++v) {
          to.push_back(gradient.adjoint(x_gradients.of(part, first, at + static_cast<int64_t>(v))));
        }
        f(pairs, batch.results_of(pairs, group), to);
      }
    });
    x_gradients.finish(first, count);
  }
  gradient.unpack(batch.packed, dy);
}

// Calls f(pairs, results, adjoints) for every set of pairs that share a recursion, adding to dx (B1, N, D) and
// dy (B2, M, D), which are zero on entry, or null where that side needs no gradient.
template <class T, class F>
void backward_pairs(const PairBatch<T>& batch, T* dx, T* dy, const F& f) {
  if (batch.inputs.paired) {
    backward_separate_pairs(batch, dx, dy, f);
  } else {
    backward_shared_pairs(batch, dx, dy, f);
  }
}

}  // namespace scav::SCAV_LEVEL
