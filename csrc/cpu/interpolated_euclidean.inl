// Interpolated Euclidean on the CPU at one SIMD level (foreach_level.h): no include guard.
//
// `source` is resampled to the lengths of `target`. Only aligned cells (t, t) are computed: for each step t, the
// resampled rows of a chunk of sources against the targets of one length, as products where there are enough of them,
// else in registers. A thread owns a range of steps, so that gradients of targets need no lock; what it adds to a
// source's row that an earlier thread may add to as well is its own until all are done.

#include "cpu/simd.inl"
#include "cpu/gemm.inl"
#include "cpu/squares.inl"
#include "cpu/transpose.inl"
#include "cpu/interpolation.inl"

namespace scav::SCAV_LEVEL {

// Which pairs of lengths a pass computes.
enum class Takes { all, shorter, not_longer };

// One direction of resampling, and how its pairs index the result.
template <class T>
struct Resampling {
  Sequences<T> source, target;
  Takes takes;
  bool squared;
  int64_t source_stride, target_stride;  // of the result, in elements

  bool takes_pair(int64_t source_length, int64_t target_length) const {
    return takes == Takes::all || source_length < target_length ||
           (takes == Takes::not_longer && source_length == target_length);
  }
};

template <class T>
struct ResamplingGrads {
  const T* result;
  T *source, *target;  // (batch, steps, D), zero on entry, or null
};

// Row t of sequence b resampled to m steps.
template <class T>
void resample_row(const Sequences<T>& source, int64_t b, int64_t t, int64_t m, T* out) {
  const Interpolation at = interpolation_at(t, source.lengths[b], m);
  const T *left = source.row(b, at.left), *right = source.row(b, at.right);
  const T weight = static_cast<T>(at.weight);
  for (int64_t k = 0; k < source.dim; ++k) {
    out[k] = left[k] + weight * (right[k] - left[k]);
  }
}

// The adjoint of resample_row: adds to the gradients of the two rows.
template <class T>
void spread_row(const T* grad, const Interpolation& at, int64_t dim, T* left, T* right) {
  const T weight = static_cast<T>(at.weight);
  if (at.left == at.right) {
    for (int64_t k = 0; k < dim; ++k) {
      left[k] += grad[k];
    }
    return;
  }
  for (int64_t k = 0; k < dim; ++k) {
    left[k] += (1 - weight) * grad[k];
    right[k] += weight * grad[k];
  }
}

// What d mean_t distance / dx is over (x - y) at one cell, given the cell's squared distance.
template <class T>
T cell_factor(bool squared, T grad, int64_t m, T square) {
  const T share = grad / static_cast<T>(m);
  return squared ? 2 * share : (square > 0 ? share / std::sqrt(square) : T(0));
}

// A cell's gradient from the difference of its rows; a side that needs none is null.
template <class T>
void pull_rows(T factor, const T* x, const T* y, int64_t dim, T* dx, T* dy) {
  for (int64_t k = 0; dx != nullptr && k < dim; ++k) {
    dx[k] += factor * (x[k] - y[k]);
  }
  for (int64_t k = 0; dy != nullptr && k < dim; ++k) {
    dy[k] -= factor * (x[k] - y[k]);
  }
}

// Targets side by side: one lane each, of which `lanes` >= `count` are computed.
struct Bundle {
  const int64_t* targets;
  int64_t count, lanes;
};

// Targets of one length: in bundles, of which each is one product a step, and those left, too few for another.
struct Run {
  int64_t length;
  std::vector<Bundle> bundles;
  const int64_t* few;
  int64_t few_count;
};

// The runs of targets in `order`, shortest first.
inline std::vector<Run> runs_of_one_length(const std::vector<int64_t>& order, const int64_t* lengths) {
  // For more columns a product is faster than the cells in registers.
  constexpr int64_t kMostFew = 16;
  std::vector<Run> runs;
  const int64_t *first = order.data(), *last = first + order.size();
  while (first != last) {
    const int64_t* end = first;
    while (end != last && lengths[*end] == lengths[*first]) {
      ++end;
    }
    Run run{lengths[*first], {}, nullptr, 0};
    for (; end - first > kMostFew; first += run.bundles.back().count) {
      const int64_t count = std::min<int64_t>(kPanel, end - first);
      int64_t lanes = kNarrowPanel;
      while (lanes < count) {
        lanes *= 2;
      }
      run.bundles.push_back({first, count, lanes});
    }
    run.few = first;
    run.few_count = end - first;
    runs.push_back(std::move(run));
    first = end;
  }
  return runs;
}

// Gradients of a chunk of sources, as one part of the steps adds to them: directly, but to rows that an earlier part's
// steps may share to a copy, which is added when all parts are done.
template <class T>
class SourceGrads {
 public:
  // `copy` (chunk, steps, D) serves this part alone.
  SourceGrads(const Sequences<T>& source, const std::vector<Run>& runs, const int64_t* sources, int64_t count,
              int64_t part, int64_t parts, T* result, T* copy)
      : source_(source), sources_(sources), result_(result), copy_(copy), shared_(static_cast<size_t>(count)) {
    for (int64_t i = 0; i < count; ++i) {
      const int64_t n = source.lengths[sources[i]];
      Rows& shared = shared_[static_cast<size_t>(i)];
      shared = {n, 0};
      for (const Run& run : runs) {
        const int64_t first = run.length * part / parts;
        shared.first = std::min(shared.first, interpolation_at(first, n, run.length).left);
        if (first > 0) {
          shared.end = std::max(shared.end, interpolation_at(first - 1, n, run.length).right + 1);
        }
      }
      shared.end = std::max(shared.first, shared.end);
      std::fill_n(copied(i, shared.first), (shared.end - shared.first) * source.dim, T(0));
    }
  }

  // Gradient of row `row` of the chunk's source i.
  T* row(int64_t i, int64_t row) const {
    return row < shared_[static_cast<size_t>(i)].end ? copied(i, row) : given(i, row);
  }

  void add_copies(int64_t i) const {
    const Rows& shared = shared_[static_cast<size_t>(i)];
    const T* from = copied(i, shared.first);
    T* to = given(i, shared.first);
    for (int64_t k = 0; k < (shared.end - shared.first) * source_.dim; ++k) {
      to[k] += from[k];
    }
  }

 private:
  struct Rows {
    int64_t first, end;
  };

  T* copied(int64_t i, int64_t row) const { return copy_ + (i * source_.steps + row) * source_.dim; }
  T* given(int64_t i, int64_t row) const { return result_ + (sources_[i] * source_.steps + row) * source_.dim; }

  const Sequences<T>& source_;
  const int64_t* sources_;
  T *result_, *copy_;
  std::vector<Rows> shared_;
};

// A block of sources against a few targets of one length, step by step, from differences held in registers.
template <class T>
class FewCells {
  static constexpr int w = kWidth<T>;

 public:
  // Sources whose cells with four targets fit into the registers.
  static constexpr int kSources = SCAV_VECTOR_BYTES == 64 ? 4 : 2;

  FewCells(const Resampling<T>& pass, bool backward)
      : pass_(pass), dim_(pass.source.dim), zeros_(static_cast<size_t>(dim_), T(0)) {
    if (backward) {
      rows_ = Buffer<T>(kSources * dim_);
      drows_ = Buffer<T>(kSources * dim_);
      unused_ = Buffer<T>(dim_);
    }
  }

  // Adds the distances of at most kSources sources and of `count` targets of length m, at steps [begin, end), to
  // `sums`, one row to a source, rows `stride` apart.
  void add_distances(const int64_t* sources, int64_t source_count, const int64_t* targets, int64_t count, int64_t m,
                     int64_t begin, int64_t end, T* sums, int64_t stride) {
    for (int64_t t = begin; t < end; ++t) {
      place(sources, source_count, t, m);
      in_blocks(source_count, count, [&]<int S, int C>(Size<S>, Size<C>, int64_t i0, int64_t j0) {
        T squares[S][C];
        measure<false>(i0, targets + j0, t, squares);
        for (int i = 0; i < S; ++i) {
          for (int j = 0; j < C; ++j) {
            sums[(i0 + i) * stride + j0 + j] += pass_.squared ? squares[i][j] : std::sqrt(squares[i][j]);
          }
        }
      });
    }
  }

  // Adds to the gradients; that of row `row` of source i is at dsource(i, row).
  template <class RowGrad>
  void add_gradients(const int64_t* sources, int64_t source_count, const int64_t* targets, int64_t count, int64_t m,
                     int64_t begin, int64_t end, const ResamplingGrads<T>& grads, const RowGrad& dsource) {
    for (int64_t t = begin; t < end; ++t) {
      place(sources, source_count, t, m);
      in_blocks(source_count, count, [&]<int S, int C>(Size<S>, Size<C>, int64_t i0, int64_t j0) {
        T cells[S][C];
        measure<true>(i0, targets + j0, t, cells);
        for (int i = 0; i < S; ++i) {
          for (int j = 0; j < C; ++j) {
            const T grad = grads.result[sources[i0 + i] * pass_.source_stride + targets[j0 + j] * pass_.target_stride];
            cells[i][j] = grad == 0 ? T(0) : cell_factor(pass_.squared, grad, m, cells[i][j]);
          }
        }
        pull(i0, targets + j0, j0 > 0, t, cells, grads.target);
      });
      for (int64_t i = 0; grads.source != nullptr && i < source_count; ++i) {
        spread_row(drows_.data() + i * dim_, at_[i], dim_, dsource(i, at_[i].left), dsource(i, at_[i].right));
      }
    }
  }

 private:
  template <int N>
  using Size = std::integral_constant<int, N>;

  // f(sources, targets, first source, first target) for blocks of cells
  template <class F>
  static void in_blocks(int64_t sources, int64_t targets, const F& f) {
    if (sources == kSources) {
      return in_target_blocks(Size<kSources>{}, 0, targets, f);
    }
    for (int64_t i = 0; i < sources; ++i) {
      in_target_blocks(Size<1>{}, i, targets, f);
    }
  }

  template <class S, class F>
  static void in_target_blocks(S sources, int64_t i, int64_t targets, const F& f) {
    int64_t j = 0;
    for (; j + 4 <= targets; j += 4) {
      f(sources, Size<4>{}, i, j);
    }
    switch (targets - j) {
      case 3:
        return f(sources, Size<3>{}, i, j);
      case 2:
        return f(sources, Size<2>{}, i, j);
      case 1:
        return f(sources, Size<1>{}, i, j);
    }
  }

  // Which rows step t of the sources is resampled from; of poisoned sequences, zeros.
  void place(const int64_t* sources, int64_t count, int64_t t, int64_t m) {
    for (int64_t i = 0; i < count; ++i) {
      const int64_t b = sources[i];
      const bool valid = pass_.source.poison[b] == 0;
      at_[i] = interpolation_at(t, pass_.source.lengths[b], m);
      left_[i] = valid ? pass_.source.row(b, at_[i].left) : zeros_.data();
      right_[i] = valid ? pass_.source.row(b, at_[i].right) : zeros_.data();
    }
  }

  const T* target_row(int64_t b, int64_t t) const {
    return pass_.target.poison[b] == 0 ? pass_.target.row(b, t) : zeros_.data();
  }

  // Squared distances, and where `keep` the resampled rows.
  template <bool keep, int S, int C>
  void measure(int64_t i0, const int64_t* targets, int64_t t, T (&squares)[S][C]) const {
    std::fill_n(&squares[0][0], S * C, T(0));
    measure_features<w, keep>(0, dim_ / w * w, i0, targets, t, squares);
    measure_features<1, keep>(dim_ / w * w, dim_, i0, targets, t, squares);
  }

  template <int W, bool keep, int S, int C>
  SCAV_INLINE void measure_features(int64_t begin, int64_t end, int64_t i0, const int64_t* targets, int64_t t,
                                    T (&squares)[S][C]) const {
    const T *left[S], *right[S], *target[C];
    T weight[S];
    for (int i = 0; i < S; ++i) {
      left[i] = left_[i0 + i];
      right[i] = right_[i0 + i];
      weight[i] = static_cast<T>(at_[i0 + i].weight);
    }
    for (int j = 0; j < C; ++j) {
      target[j] = target_row(targets[j], t);
    }
    Vec<T, W> sum[S][C] = {};
    for (int64_t k = begin; k < end; k += W) {
      Vec<T, W> y[C];
      for (int j = 0; j < C; ++j) {
        y[j] = load<T, W>(target[j] + k);
      }
      for (int i = 0; i < S; ++i) {
        const Vec<T, W> from = load<T, W>(left[i] + k);
        const Vec<T, W> x = from + weight[i] * (load<T, W>(right[i] + k) - from);
        if constexpr (keep) {
          store<T, W>(rows_.data() + (i0 + i) * dim_ + k, x);
        }
        for (int j = 0; j < C; ++j) {
          const Vec<T, W> difference = x - y[j];
          sum[i][j] += difference * difference;
        }
      }
    }
    for (int i = 0; i < S; ++i) {
      for (int j = 0; j < C; ++j) {
        squares[i][j] += horizontal_sum<T, W>(sum[i][j]);
      }
    }
  }

  // Each cell's factor times its difference, to the gradients of the resampled rows and of the targets.
  template <int S, int C>
  void pull(int64_t i0, const int64_t* targets, bool accumulate, int64_t t, const T (&factors)[S][C],
            T* dtarget) const {
    pull_features<w>(0, dim_ / w * w, i0, targets, accumulate, t, factors, dtarget);
    pull_features<1>(dim_ / w * w, dim_, i0, targets, accumulate, t, factors, dtarget);
  }

  template <int W, int S, int C>
  SCAV_INLINE void pull_features(int64_t begin, int64_t end, int64_t i0, const int64_t* targets, bool accumulate,
                                 int64_t t, const T (&factors)[S][C], T* dtarget) const {
    const T *rows = rows_.data() + i0 * dim_, *target[C];
    T *drows = drows_.data() + i0 * dim_, *dy[C];
    Vec<T, W> factor[S][C];
    for (int j = 0; j < C; ++j) {
      target[j] = target_row(targets[j], t);
      dy[j] = dtarget ? dtarget + (pass_.target.row(targets[j], t) - pass_.target.data) : unused_.data();
      for (int i = 0; i < S; ++i) {
        factor[i][j] = splat<T, W>(factors[i][j]);
      }
    }
    for (int64_t k = begin; k < end; k += W) {
      Vec<T, W> y[C], pulled[C];
      for (int j = 0; j < C; ++j) {
        y[j] = load<T, W>(target[j] + k);
        pulled[j] = load<T, W>(dy[j] + k);
      }
      for (int i = 0; i < S; ++i) {
        const Vec<T, W> x = load<T, W>(rows + i * dim_ + k);
        Vec<T, W> sum = accumulate ? load<T, W>(drows + i * dim_ + k) : Vec<T, W>{};
        for (int j = 0; j < C; ++j) {
          const Vec<T, W> difference = x - y[j];
          sum += factor[i][j] * difference;
          pulled[j] -= factor[i][j] * difference;
        }
        store<T, W>(drows + i * dim_ + k, sum);
      }
      for (int j = 0; j < C; ++j) {
        store<T, W>(dy[j] + k, pulled[j]);
      }
    }
  }

  const Resampling<T>& pass_;
  int64_t dim_;
  // Of one step:
  Interpolation at_[kSources];
  const T *left_[kSources], *right_[kSources];
  std::vector<T> zeros_;
  Buffer<T> rows_, drows_;  // backward: (kSources, D)
  Buffer<T> unused_;        // (D,): the gradient of a target that needs none
};

// Step t of a chunk of sources against the targets of length m.
template <class T>
class ResampledStep {
  static constexpr int w = kWidth<T>;

 public:
  ResampledStep(const Resampling<T>& pass, int64_t chunk, bool backward)
      : pass_(pass),
        dim_(pass.source.dim),
        zeros_(static_cast<size_t>(dim_), T(0)),
        rows_(chunk * dim_),
        norms_(chunk),
        squares_(chunk * kPanel),
        targets_(kPanel * dim_),
        target_norms_(kPanel) {
    if (backward) {
      drows_ = Buffer<T>(chunk * dim_);
      columns_ = Buffer<T>(kPanel * chunk);
      target_rows_ = Buffer<T>(kPanel * dim_);
      weights_ = Buffer<T>(kPanel);
    }
  }

  void resample(const int64_t* sources, int64_t count, int64_t t, int64_t m) {
    count_ = count;
    t_ = t;
    m_ = m;
    for (int64_t i = 0; i < count; ++i) {
      T* row = rows_.data() + i * dim_;
      if (pass_.source.poison[sources[i]] != 0) {
        std::fill_n(row, dim_, T(0));
      } else {
        resample_row(pass_.source, sources[i], t, m, row);
      }
      norms_[i] = sum_of_squares<T, false>(row, nullptr, dim_);
    }
    if (drows_.data() != nullptr) {
      std::fill_n(drows_.data(), count * dim_, T(0));
    }
  }

  // Adds the distances to `sums`, one row to a source, rows `stride` apart.
  void add_distances(const Bundle& bundle, T* sums, int64_t stride) {
    measure(bundle);
    for (int64_t i = 0; i < count_; ++i) {
      const T* squares = squares_.data() + i * bundle.lanes;
      for (int64_t lane = 0; lane < bundle.count; ++lane) {
        sums[i * stride + lane] += pass_.squared ? squares[lane] : std::sqrt(squares[lane]);
      }
    }
  }

  // Adds to the gradients of the resampled rows, and to `dtarget` unless it is null. `grads` (count, lanes) are those
  // of the results, 0 in empty lanes.
  void add_gradients(const Bundle& bundle, const T* grads, bool of_source, T* dtarget) {
    measure(bundle);
    std::fill_n(weights_.data(), kPanel, T(0));
    for (int64_t i = 0; i < count_; ++i) {
      row_factors(bundle, i, grads + i * bundle.lanes, of_source, dtarget);
    }
    const int64_t lanes = bundle.lanes;
    if (of_source) {
      gemm<T>(count_, dim_, lanes, lanes, dim_, dim_, true, squares_.data(), target_rows_.data(), drows_.data());
    }
    if (dtarget != nullptr) {
      add_to_targets(bundle, dtarget);
    }
  }

  // The gradients of the resampled rows, spread over the steps they came from.
  void spread(const int64_t* sources, const SourceGrads<T>& to) const {
    for (int64_t i = 0; i < count_; ++i) {
      const Interpolation at = interpolation_at(t_, pass_.source.lengths[sources[i]], m_);
      spread_row(drows_.data() + i * dim_, at, dim_, to.row(i, at.left), to.row(i, at.right));
    }
  }

 private:
  const T* target_row(const Bundle& bundle, int64_t lane) const { return pass_.target.row(bundle.targets[lane], t_); }

  bool near(int64_t square_at, int64_t i, int64_t lane) const {
    return !(squares_[square_at] >= kNear<T> * (target_norms_[lane] + norms_[i]));
  }

  // Step t of the targets as (D, lanes), and backward as (lanes, D); empty and poisoned lanes are zero.
  void load_targets(const Bundle& bundle) {
    const int64_t lanes = bundle.lanes;
    const T* sources[kPanel];
    for (int64_t lane = 0; lane < lanes; ++lane) {
      const bool valid = lane < bundle.count && pass_.target.poison[bundle.targets[lane]] == 0;
      sources[lane] = valid ? target_row(bundle, lane) : zeros_.data();
      target_norms_[lane] = valid ? *pass_.target.norm(bundle.targets[lane], t_) : T(0);
      if (target_rows_.data() != nullptr) {
        std::copy_n(sources[lane], dim_, target_rows_.data() + lane * dim_);
        sources[lane] = target_rows_.data() + lane * dim_;
      }
    }
    transpose<T>(
        lanes, dim_, [&](int64_t lane) { return sources[lane]; },
        [&](int64_t k) { return targets_.data() + k * lanes; });
  }

  // squares_ (count, lanes): squared distances.
  void measure(const Bundle& bundle) {
    const int64_t lanes = bundle.lanes;
    load_targets(bundle);
    gemm<T>(count_, lanes, dim_, dim_, lanes, lanes, false, rows_.data(), targets_.data(), squares_.data());
    for (int64_t i = 0; i < count_; ++i) {
      squares_of_products(norms_[i], target_norms_.data(), lanes, bundle.count, squares_.data() + i * lanes,
                          [&](int64_t lane) {
                            return sum_of_squares<T, true>(rows_.data() + i * dim_, target_row(bundle, lane), dim_);
                          });
    }
  }

  // One cell's gradient from the difference of its rows; its square becomes the factor that the products use, 0.
  void pull(const Bundle& bundle, int64_t i, int64_t lane, T grad, bool of_source, T* dtarget) {
    T& cell = squares_[i * bundle.lanes + lane];
    const T factor = grad == 0 ? T(0) : cell_factor(pass_.squared, grad, m_, cell);
    cell = 0;
    if (factor != 0) {
      const T* target = target_row(bundle, lane);
      pull_rows(factor, rows_.data() + i * dim_, target, dim_, of_source ? drows_.data() + i * dim_ : nullptr,
                dtarget ? dtarget + (target - pass_.target.data) : nullptr);
    }
  }

  // Squares of row i to the factors of the products, in place: -f, where drow = row sum(f) - sum(f target).
  void row_factors(const Bundle& bundle, int64_t i, const T* grads, bool of_source, T* dtarget) {
    T* cells = squares_.data() + i * bundle.lanes;
    Vec<T, w> slack{};
    for (int64_t j = 0; j < bundle.lanes; j += w) {
      slack = vmin(slack, load<T, w>(cells + j) - kNear<T> * (load<T, w>(target_norms_.data() + j) + norms_[i]));
    }
    if (any_negative<T, w>(slack)) {
      for (int64_t lane = 0; lane < bundle.count; ++lane) {
        if (near(i * bundle.lanes + lane, i, lane)) {
          pull(bundle, i, lane, grads[lane], of_source, dtarget);
        }
      }
    }
    Vec<T, w> total{};
    for (int64_t j = 0; j < bundle.lanes; j += w) {
      const Vec<T, w> square = load<T, w>(cells + j), share = load<T, w>(grads + j) / static_cast<T>(m_);
      const Vec<T, w> far = pass_.squared ? T(2) * share : share / vsqrt<T, w>(square);
      const Vec<T, w> factor = square > T(0) ? far : Vec<T, w>{};
      total += factor;
      store<T, w>(weights_.data() + j, load<T, w>(weights_.data() + j) + factor);
      store<T, w>(cells + j, -factor);
    }
    const T along = horizontal_sum<T, w>(total);
    for (int64_t k = 0; of_source && k < dim_; ++k) {
      drows_[i * dim_ + k] += along * rows_[i * dim_ + k];
    }
  }

  // The product's part of the targets' gradients, and the part along the targets themselves.
  void add_to_targets(const Bundle& bundle, T* dtarget) {
    const int64_t lanes = bundle.lanes;
    transpose<T>(
        count_, lanes, [&](int64_t i) { return squares_.data() + i * lanes; },
        [&](int64_t lane) { return columns_.data() + lane * count_; });
    // The transposed targets have served.
    T* products = targets_.data();
    gemm<T>(lanes, dim_, count_, count_, dim_, dim_, false, columns_.data(), rows_.data(), products);
    for (int64_t lane = 0; lane < bundle.count; ++lane) {
      T* to = dtarget + (target_row(bundle, lane) - pass_.target.data);
      const T *product = products + lane * dim_, *target = target_rows_.data() + lane * dim_;
      for (int64_t k = 0; k < dim_; ++k) {
        to[k] += product[k] + weights_[lane] * target[k];
      }
    }
  }

  const Resampling<T>& pass_;
  int64_t dim_, count_ = 0, t_ = 0, m_ = 0;
  std::vector<T> zeros_;
  Buffer<T> rows_, norms_;            // (chunk, D), (chunk,): the sources, resampled
  Buffer<T> squares_;                 // (chunk, lanes)
  Buffer<T> targets_, target_norms_;  // (D, lanes), (lanes,)
  Buffer<T> drows_, columns_;         // backward: (chunk, D), (lanes, chunk)
  Buffer<T> target_rows_, weights_;   // backward: (lanes, D), (lanes,)
};

// Gradients of the results of some sources with `bundles`, each (count, lanes) and 0 in empty lanes, in turn.
template <class T>
void gather(const Resampling<T>& pass, const std::vector<Bundle>& bundles, const int64_t* sources, int64_t count,
            const T* result, std::vector<T>& out) {
  out.clear();
  for (const Bundle& bundle : bundles) {
    for (int64_t i = 0; i < count; ++i) {
      for (int64_t lane = 0; lane < bundle.count; ++lane) {
        out.push_back(result[sources[i] * pass.source_stride + bundle.targets[lane] * pass.target_stride]);
      }
      out.resize(out.size() + static_cast<size_t>(bundle.lanes - bundle.count));
    }
  }
}

// Every pair of the pass, a chunk of sources at a time. Forward where `grads` is null: writes means to `out`. Else
// backward.
template <class T>
void resampling_pass(const Resampling<T>& pass, T* out, const ResamplingGrads<T>* grads) {
  const Sequences<T>& source = pass.source;
  const int64_t block = source.steps * source.dim, targets = pass.target.batch;
  const bool of_source = grads != nullptr && grads->source != nullptr;
  const std::vector<int64_t> order = by_length(source.lengths, source.batch);
  const std::vector<int64_t> target_order = by_length(pass.target.lengths, targets);
  const std::vector<Run> runs = runs_of_one_length(target_order, pass.target.lengths);
  const int64_t parts = thread_count();
  // What a part adds up by itself: forward the sums of (chunk, targets), backward gradients of the sources.
  const int64_t own_row = grads ? (of_source ? block : 0) : targets;
  constexpr int64_t kOwnBytes = int64_t(16) << 20, kMostSources = 128;
  const int64_t fitting = kOwnBytes / std::max<int64_t>(own_row * static_cast<int64_t>(sizeof(T)), 1);
  const int64_t chunk = std::clamp<int64_t>(fitting, 1, std::min(kMostSources, source.batch));
  Buffer<T> own(parts * chunk * own_row);

  // For the few targets, a part's steps are cut into slices, so that what they touch stays in cache.
  constexpr int64_t kSliceSteps = 4, kBlock = FewCells<T>::kSources;
  const int64_t slices = parts * std::max<int64_t>(pass.target.steps / parts / kSliceSteps, 1);

  for (int64_t first = 0; first < source.batch; first += chunk) {
    const int64_t* sources = order.data() + first;
    const int64_t size = std::min(chunk, source.batch - first);
    // By length, the sources that go with m come first.
    auto taken = [&](int64_t m) {
      return std::partition_point(sources, sources + size,
                                  [&](int64_t b) { return pass.takes_pair(source.lengths[b], m); }) -
             sources;
    };
    std::vector<std::optional<SourceGrads<T>>> source_grads(static_cast<size_t>(parts));
    run_parts(parts, [&](int64_t part) {
      T* mine = own.data() + part * chunk * own_row;
      std::optional<SourceGrads<T>>& to = source_grads[static_cast<size_t>(part)];
      if (of_source) {
        to.emplace(source, runs, sources, size, part, parts, grads->source, mine);
      } else {
        std::fill_n(mine, size * own_row, T(0));
      }
      ResampledStep<T> step(pass, chunk, grads != nullptr);
      std::vector<T> result;
      for (const Run& run : runs) {
        const int64_t m = run.length, count = taken(m);
        if (count == 0 || run.bundles.empty()) {
          continue;
        }
        if (grads) {
          gather(pass, run.bundles, sources, count, grads->result, result);
        }
        for (int64_t t = m * part / parts; t < m * (part + 1) / parts; ++t) {
          step.resample(sources, count, t, m);
          const T* bundle_result = result.data();
          for (const Bundle& bundle : run.bundles) {
            poll(count * bundle.lanes * source.dim);
            if (grads) {
              step.add_gradients(bundle, bundle_result, of_source, grads->target);
              bundle_result += count * bundle.lanes;
            } else {
              step.add_distances(bundle, mine + (bundle.targets - target_order.data()), targets);
            }
          }
          if (of_source) {
            step.spread(sources, *to);
          }
        }
      }
      FewCells<T> few(pass, grads != nullptr);
      for (int64_t slice = slices * part / parts; slice < slices * (part + 1) / parts; ++slice) {
        for (int64_t i = 0; i < size; i += kBlock) {
          for (const Run& run : runs) {
            const int64_t m = run.length, count = std::min(taken(m) - i, kBlock);
            const int64_t begin = m * slice / slices, end = m * (slice + 1) / slices;
            if (count <= 0 || run.few_count == 0) {
              continue;
            }
            poll(count * run.few_count * (end - begin) * source.dim);
            if (grads) {
              few.add_gradients(sources + i, count, run.few, run.few_count, m, begin, end, *grads,
                                [&](int64_t k, int64_t row) { return to->row(i + k, row); });
            } else {
              few.add_distances(sources + i, count, run.few, run.few_count, m, begin, end,
                                mine + i * targets + (run.few - target_order.data()), targets);
            }
          }
        }
      }
    });
    run_parts(parts, [&](int64_t part) {
      for (int64_t i = size * part / parts; i < size * (part + 1) / parts; ++i) {
        for (int64_t from = 0; from < parts; ++from) {
          if (grads) {
            if (of_source) {
              source_grads[static_cast<size_t>(from)]->add_copies(i);
            }
            continue;
          }
          const T* theirs = own.data() + (from * chunk + i) * own_row;
          for (int64_t j = 0; j < targets; ++j) {
            const int64_t index = target_order[static_cast<size_t>(j)], m = pass.target.lengths[index];
            if (pass.takes_pair(source.lengths[sources[i]], m)) {
              T& sum = out[sources[i] * pass.source_stride + index * pass.target_stride];
              sum = (from == 0 ? T(0) : sum) + theirs[j] / static_cast<T>(m);
            }
          }
        }
      }
    });
  }
}

// Sequence i of the source with sequence i of the target, for each i that the pass takes.
template <class T>
void resampling_pairs(const Resampling<T>& pass, T* out, const ResamplingGrads<T>* grads) {
  const int64_t batch = pass.source.batch, parts = thread_count();
  run_parts(parts, [&](int64_t part) {
    FewCells<T> cells(pass, grads != nullptr);
    for (int64_t i = batch * part / parts; i < batch * (part + 1) / parts; ++i) {
      const int64_t m = pass.target.lengths[i];
      if (!pass.takes_pair(pass.source.lengths[i], m)) {
        continue;
      }
      poll(m * pass.source.dim);
      if (grads) {
        cells.add_gradients(&i, 1, &i, 1, m, 0, m, *grads, [&](int64_t, int64_t row) {
          return grads->source + (i * pass.source.steps + row) * pass.source.dim;
        });
      } else {
        T sum = 0;
        cells.add_distances(&i, 1, &i, 1, m, 0, m, &sum, 1);
        out[i] = sum / static_cast<T>(m);
      }
    }
  });
}

// Forward where `grad` is null: writes `out`. Else backward: adds to dx (B1, N, D) and dy (B2, M, D), zero on entry, or
// null. `resample` is one of "x", "y" and "shorter".
template <class T>
void interpolated_euclidean(const Inputs& inputs, bool squared, const std::string& resample, T* out, const T* grad,
                            T* dx, T* dy) {
  auto pass = [&](bool of_x, Takes takes) {
    // Of the results: (B1, B2), or (B,) when paired.
    const int64_t stride_x = inputs.paired ? 0 : inputs.batch_y(), stride_y = 1;
    const Resampling<T> direction =
        of_x ? Resampling<T>{inputs.sequences_x<T>(), inputs.sequences_y<T>(), takes, squared, stride_x, stride_y}
             : Resampling<T>{inputs.sequences_y<T>(), inputs.sequences_x<T>(), takes, squared, stride_y, stride_x};
    const ResamplingGrads<T> grads{grad, of_x ? dx : dy, of_x ? dy : dx};
    if (inputs.paired) {
      resampling_pairs(direction, out, grad ? &grads : nullptr);
    } else {
      resampling_pass(direction, out, grad ? &grads : nullptr);
    }
  };
  if (resample == "shorter") {
    pass(true, Takes::not_longer);
    pass(false, Takes::shorter);
  } else {
    pass(resample == "x", Takes::all);
  }
}

}  // namespace scav::SCAV_LEVEL
