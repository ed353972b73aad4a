// Interpolated cosine on the CPU at one SIMD level (foreach_level.h): no include guard.
//
// `source` is resampled to the lengths of `target`. The sum of the cosines of a pair is one inner product: that of all
// resampled unit steps with all unit steps of the target. So tiles of sources and of targets of one length are
// multiplied a few steps at a time. In the backward pass, a thread owns sources, and then targets.

#include "cpu/simd.inl"
#include "cpu/gemm.inl"
#include "cpu/squares.inl"
#include "cpu/interpolation.inl"

namespace scav::SCAV_LEVEL {

// One side's steps as they are, and divided by their norms.
template <class T>
struct DirectedSteps {
  Sequences<T> raw, unit;
};

// One direction of resampling, and the strides of its pairs in the result.
template <class T>
struct CosineResampling {
  DirectedSteps<T> source, target;
  PairFilter takes;
  bool nearest;
  int64_t source_stride, target_stride;  // of the result, in elements
  double largest;                        // number of the caller's dtype

  Interpolation at(int64_t b, int64_t t, int64_t m) const {
    const int64_t n = source.raw.lengths[b];
    return nearest ? nearest_at<T>(t, n, m) : interpolation_at(t, n, m);
  }
  int64_t result(int64_t source_index, int64_t target_index) const {
    return source_index * source_stride + target_index * target_stride;
  }
};

// Some sequences of one side, by their indices.
struct Indices {
  const int64_t* first;
  int64_t count;
  int64_t operator[](int64_t at) const { return first[at]; }
};

// Norm of a row. Squares of large features overflow: then in float64.
template <class T>
double norm_of_row(const T* row, int64_t dim) {
  const T square = sum_of_squares<T, false>(row, nullptr, dim);
  if (std::isfinite(square)) {
    return std::sqrt(static_cast<double>(square));
  }
  double sum = 0;
  for (int64_t k = 0; k < dim; ++k) {
    sum += static_cast<double>(row[k]) * static_cast<double>(row[k]);
  }
  return std::sqrt(sum);
}

// In place, the gradient of a unit row to that of the row that was divided by its norm: the part across it, over the
// norm. It is 0 where the norm is below kSmallestNorm, or so small that the caller's dtype does not hold the gradient.
template <class T>
void through_unit_row(const T* unit, double norm, double largest, int64_t dim, T* grad) {
  if (norm < kSmallestNorm) {
    std::fill_n(grad, dim, T(0));
    return;
  }
  const T scale = static_cast<T>(1 / norm);
  T along = 0;
  for (int64_t k = 0; k < dim; ++k) {
    along += grad[k] * unit[k];
  }
  for (int64_t k = 0; k < dim; ++k) {
    grad[k] = (grad[k] - along * unit[k]) * scale;
  }
  if (norm * largest < 1 && std::any_of(grad, grad + dim, [&](T value) { return std::abs(value) > largest; })) {
    std::fill_n(grad, dim, T(0));
  }
}

// Adds the inner products of S rows `u` and C rows `v` of `size` features to `sums`.
template <class T, int S, int C>
void add_inner_products(const T* u, int64_t stride_u, const T* const* v, int64_t size, T* sums, int64_t stride) {
  constexpr int w = kWidth<T>;
  Vec<T, w> sum[S][C] = {};
  int64_t k = 0;
  for (; k + w <= size; k += w) {
    Vec<T, w> columns[C];
    for (int j = 0; j < C; ++j) {
      columns[j] = load<T, w>(v[j] + k);
    }
    for (int i = 0; i < S; ++i) {
      const Vec<T, w> row = load<T, w>(u + i * stride_u + k);
      for (int j = 0; j < C; ++j) {
        sum[i][j] += row * columns[j];
      }
    }
  }
  for (int i = 0; i < S; ++i) {
    for (int j = 0; j < C; ++j) {
      T total = horizontal_sum<T, w>(sum[i][j]);
      for (int64_t rest = k; rest < size; ++rest) {
        total += u[i * stride_u + rest] * v[j][rest];
      }
      sums[i * stride + j] += total;
    }
  }
}

// A tile of sources and of targets of one length, a block of steps at a time.
template <class T>
class CosineTile {
 public:
  // The most sources and targets of a tile.
  static constexpr int64_t kSources = 32, kTargets = 64;

  CosineTile(const CosineResampling<T>& direction, bool backward)
      : direction_(direction), dim_(direction.source.raw.dim), block_steps_(std::max<int64_t>(1, kFeatures / dim_)) {
    const int64_t size = block_steps_ * dim_;
    rows_ = Buffer<T>(kSources * size);
    norms_ = Buffer<double>(kSources * block_steps_);
    zeros_ = Buffer<T>(size);
    std::fill_n(zeros_.data(), size, T(0));
    if (backward) {
      columns_ = Buffer<T>(kTargets * size);
      gradients_ = Buffer<T>(kTargets * size);
      weights_ = Buffer<T>(kSources * kTargets);
    }
  }

  // Writes the distances of all pairs of the tile.
  void distances(const Indices& sources, const Indices& targets, int64_t m, T* out) {
    T sums[kSources * kTargets] = {};
    for (int64_t begin = 0; begin < m; begin += block_steps_) {
      const int64_t end = std::min(begin + block_steps_, m);
      resample(sources, begin, end, m);
      const T* columns[kTargets];
      for (int64_t j = 0; j < targets.count; ++j) {
        columns[j] = target_rows(targets[j], begin);
      }
      multiply(sources.count, targets.count, columns, (end - begin) * dim_, sums);
    }
    for (int64_t i = 0; i < sources.count; ++i) {
      for (int64_t j = 0; j < targets.count; ++j) {
        out[direction_.result(sources[i], targets[j])] = 1 - sums[i * kTargets + j] / static_cast<T>(m);
      }
    }
  }

  // Adds the gradients of sources from all targets of length m, which are the panels.
  void add_source_gradients(const Indices& sources, const std::vector<Indices>& panels, int64_t m, const T* grads,
                            T* dsource) {
    for (int64_t begin = 0; begin < m; begin += block_steps_) {
      const int64_t end = std::min(begin + block_steps_, m), size = (end - begin) * dim_;
      resample(sources, begin, end, m);
      std::fill_n(gradients_.data(), sources.count * size, T(0));
      for (const Indices& targets : panels) {
        poll(sources.count * targets.count * size);
        for (int64_t j = 0; j < targets.count; ++j) {
          std::copy_n(target_rows(targets[j], begin), size, columns_.data() + j * size);
          for (int64_t i = 0; i < sources.count; ++i) {
            weights_[i * targets.count + j] = weight(sources[i], targets[j], m, grads);
          }
        }
        gemm<T>(sources.count, size, targets.count, targets.count, size, size, true, weights_.data(), columns_.data(),
                gradients_.data());
      }
      for (int64_t i = 0; i < sources.count; ++i) {
        for (int64_t t = begin; t < end; ++t) {
          const int64_t row = i * size + (t - begin) * dim_;
          through_unit_row(rows_.data() + row, norms_[i * block_steps_ + t - begin], direction_.largest, dim_,
                           gradients_.data() + row);
          const Interpolation at = direction_.at(sources[i], t, m);
          T* to = dsource + sources[i] * direction_.source.raw.steps * dim_;
          spread_row(gradients_.data() + row, at, dim_, to + at.left * dim_, to + at.right * dim_);
        }
      }
    }
  }

  // Adds the gradients of targets of length m from all sources, which are the tiles.
  void add_target_gradients(const std::vector<Indices>& tiles, const Indices& targets, int64_t m, const T* grads,
                            T* dtarget) {
    for (int64_t begin = 0; begin < m; begin += block_steps_) {
      const int64_t end = std::min(begin + block_steps_, m), size = (end - begin) * dim_;
      std::fill_n(gradients_.data(), targets.count * size, T(0));
      for (const Indices& sources : tiles) {
        poll(sources.count * targets.count * size);
        resample(sources, begin, end, m);
        for (int64_t j = 0; j < targets.count; ++j) {
          for (int64_t i = 0; i < sources.count; ++i) {
            weights_[j * sources.count + i] = weight(sources[i], targets[j], m, grads);
          }
        }
        gemm<T>(targets.count, size, sources.count, sources.count, size, size, true, weights_.data(), rows_.data(),
                gradients_.data());
      }
      for (int64_t j = 0; j < targets.count; ++j) {
        const Sequences<T>& raw = direction_.target.raw;
        for (int64_t t = begin; raw.nonfinite[targets[j]] == 0 && t < end; ++t) {
          T* grad = gradients_.data() + j * size + (t - begin) * dim_;
          through_unit_row(direction_.target.unit.row(targets[j], t), norm_of_row(raw.row(targets[j], t), dim_),
                           direction_.largest, dim_, grad);
          T* to = dtarget + (targets[j] * raw.steps + t) * dim_;
          for (int64_t k = 0; k < dim_; ++k) {
            to[k] += grad[k];
          }
        }
      }
    }
  }

 private:
  // Features of a block of steps: tiles of these fit in cache.
  static constexpr int64_t kFeatures = 512;

  // Resamples steps [begin, end) of m of the sources, and divides them by their norms.
  void resample(const Indices& sources, int64_t begin, int64_t end, int64_t m) {
    const Sequences<T>& source = direction_.source.raw;
    for (int64_t i = 0; i < sources.count; ++i) {
      for (int64_t t = begin; t < end; ++t) {
        T* row = rows_.data() + (i * (end - begin) + t - begin) * dim_;
        double& norm = norms_[i * block_steps_ + t - begin];
        if (source.nonfinite[sources[i]] != 0) {
          std::fill_n(row, dim_, T(0));
          norm = 0;
          continue;
        }
        resample_row(source, sources[i], direction_.at(sources[i], t, m), row);
        norm = norm_of_row(row, dim_);
        const T scale = static_cast<T>(1 / std::max(norm, kSmallestNorm));
        for (int64_t k = 0; k < dim_; ++k) {
          row[k] *= scale;
        }
      }
    }
  }

  // Unit steps of a target from step `begin` on; those of a nonfinite one are a block of zeros.
  const T* target_rows(int64_t b, int64_t begin) const {
    const Sequences<T>& target = direction_.target.unit;
    return target.nonfinite[b] == 0 ? target.row(b, begin) : zeros_.data();
  }

  // d out / d cosine of one step, times the gradient of the pair's result.
  T weight(int64_t source, int64_t target, int64_t m, const T* grads) const {
    return -grads[direction_.result(source, target)] / static_cast<T>(m);
  }

  // Adds the inner products of the resampled rows and `columns` to sums (kSources, kTargets).
  void multiply(int64_t sources, int64_t targets, const T* const* columns, int64_t size, T* sums) const {
    constexpr int S = SCAV_VECTOR_BYTES == 64 ? 4 : 2, C = 4;
    poll(sources * targets * size);
    const auto rows = [&]<int R>(std::integral_constant<int, R>, int64_t i) {
      const T* u = rows_.data() + i * size;
      int64_t j = 0;
      for (; j + C <= targets; j += C) {
        add_inner_products<T, R, C>(u, size, columns + j, size, sums + i * kTargets + j, kTargets);
      }
      for (; j < targets; ++j) {
        add_inner_products<T, R, 1>(u, size, columns + j, size, sums + i * kTargets + j, kTargets);
      }
    };
    int64_t i = 0;
    for (; i + S <= sources; i += S) {
      rows(std::integral_constant<int, S>{}, i);
    }
    for (; i < sources; ++i) {
      rows(std::integral_constant<int, 1>{}, i);
    }
  }

  const CosineResampling<T>& direction_;
  int64_t dim_, block_steps_;
  Buffer<T> rows_;                 // (sources, steps, D): resampled unit steps
  Buffer<double> norms_;           // (kSources, block_steps): before the division
  Buffer<T> zeros_;                // (block_steps, D)
  Buffer<T> columns_, gradients_;  // backward: (targets, steps, D), (sources or targets, steps, D)
  Buffer<T> weights_;              // backward: (sources, targets) or its transpose
};

// All pairs of one direction of resampling.
template <class T>
class CosinePass {
 public:
  explicit CosinePass(const CosineResampling<T>& direction)
      : direction_(direction),
        source_lengths_(direction.source.raw.lengths),
        source_order_(by_length(source_lengths_, direction.source.raw.batch)),
        target_order_(by_length(direction.target.raw.lengths, direction.target.raw.batch)),
        tile_sources_(per_part(direction.source.raw.batch, CosineTile<T>::kSources)) {
    const int64_t panel_targets = per_part(direction.target.raw.batch, CosineTile<T>::kTargets);
    const auto end = static_cast<int64_t>(target_order_.size());
    for (int64_t first = 0, last = 0; first < end; first = last) {
      const int64_t m = target_length(first);
      while (last < end && target_length(last) == m) {
        ++last;
      }
      groups_.push_back({m, sources_for(m), split(target_order_, first, last, panel_targets)});
    }
  }

  void distances(T* out) const {
    struct Task {
      Indices sources, targets;
      int64_t m;
    };
    std::vector<Task> tasks;
    std::vector<double> weights;
    for (const Group& group : groups_) {
      for (const Indices& sources : split(source_order_, 0, group.sources, tile_sources_)) {
        for (const Indices& targets : group.panels) {
          tasks.push_back({sources, targets, group.m});
          weights.push_back(static_cast<double>(sources.count * targets.count * group.m));
        }
      }
    }
    run_tasks(weights, false, [&](CosineTile<T>& tile, size_t task) {
      tile.distances(tasks[task].sources, tasks[task].targets, tasks[task].m, out);
    });
  }

  void source_gradients(const T* grads, T* dsource) const {
    const std::vector<Indices> tiles =
        split(source_order_, 0, static_cast<int64_t>(source_order_.size()), tile_sources_);
    run_tasks(std::vector<double>(tiles.size(), 1.0), true, [&](CosineTile<T>& tile, size_t task) {
      for (const Group& group : groups_) {
        const int64_t before = tiles[task].first - source_order_.data();
        const Indices sources{tiles[task].first, std::clamp<int64_t>(group.sources - before, 0, tiles[task].count)};
        if (sources.count > 0) {
          tile.add_source_gradients(sources, group.panels, group.m, grads, dsource);
        }
      }
    });
  }

  void target_gradients(const T* grads, T* dtarget) const {
    std::vector<std::pair<const Group*, Indices>> tasks;
    std::vector<double> weights;
    for (const Group& group : groups_) {
      for (const Indices& targets : group.panels) {
        tasks.emplace_back(&group, targets);
        weights.push_back(static_cast<double>(targets.count * group.m));
      }
    }
    run_tasks(weights, true, [&](CosineTile<T>& tile, size_t task) {
      const auto& [group, targets] = tasks[task];
      tile.add_target_gradients(split(source_order_, 0, group->sources, tile_sources_), targets, group->m, grads,
                                dtarget);
    });
  }

 private:
  // Targets of one length, and the number of sources that pair with them: by length, they come first.
  struct Group {
    int64_t m, sources;
    std::vector<Indices> panels;
  };

  // Sequences of a tile: few enough that all threads have one.
  static int64_t per_part(int64_t batch, int64_t most) {
    return std::clamp<int64_t>((batch / thread_count() + 3) / 4 * 4, 4, most);
  }

  static std::vector<Indices> split(const std::vector<int64_t>& order, int64_t first, int64_t last, int64_t size) {
    std::vector<Indices> found;
    for (; first < last; first += size) {
      found.push_back({order.data() + first, std::min(size, last - first)});
    }
    return found;
  }

  int64_t target_length(int64_t place) const {
    return direction_.target.raw.lengths[target_order_[static_cast<size_t>(place)]];
  }
  int64_t sources_for(int64_t m) const {
    const auto takes = [&](int64_t b) { return takes_pair(direction_.takes, source_lengths_[b], m); };
    return std::partition_point(source_order_.begin(), source_order_.end(), takes) - source_order_.begin();
  }

  template <class F>
  void run_tasks(const std::vector<double>& weights, bool backward, const F& f) const {
    const int64_t parts = thread_count();
    const std::vector<int64_t> bounds = split_by_weight(weights, parts);
    run_parts(parts, [&](int64_t part) {
      CosineTile<T> tile(direction_, backward);
      for (int64_t task = bounds[static_cast<size_t>(part)]; task < bounds[static_cast<size_t>(part) + 1]; ++task) {
        f(tile, static_cast<size_t>(task));
      }
    });
  }

  const CosineResampling<T>& direction_;
  const int64_t* source_lengths_;
  std::vector<int64_t> source_order_, target_order_;
  int64_t tile_sources_;
  std::vector<Group> groups_;
};

// Pairs sequence i of the source with sequence i of the target, for each i that the direction takes.
template <class T>
void cosine_pairs(const CosineResampling<T>& direction, T* out, const T* grads, T* dsource, T* dtarget) {
  const int64_t batch = direction.source.raw.batch, parts = thread_count();
  run_parts(parts, [&](int64_t part) {
    CosineTile<T> tile(direction, out == nullptr);
    for (int64_t i = batch * part / parts; i < batch * (part + 1) / parts; ++i) {
      const int64_t m = direction.target.raw.lengths[i];
      const Indices one{&i, 1};
      if (!takes_pair(direction.takes, direction.source.raw.lengths[i], m)) {
        continue;
      }
      if (out != nullptr) {
        tile.distances(one, one, m, out);
      }
      if (dsource != nullptr) {
        tile.add_source_gradients(one, {one}, m, grads, dsource);
      }
      if (dtarget != nullptr) {
        tile.add_target_gradients({one}, one, m, grads, dtarget);
      }
    }
  });
}

// Forward: writes `out`, where `grad` and the gradients are null. Backward: adds to dx (B1, N, D) and dy (B2, M, D),
// zero on entry, or null, where `out` is null. `inputs` have unit rows; `resample` is one of "x", "y" and "shorter".
template <class T>
void interpolated_cosine(const Inputs& inputs, bool nearest, const std::string& resample, T* out, const T* grad, T* dx,
                         T* dy) {
  const ScalarType given = inputs.x_given.scalar_type();
  const double largest = given == kHalf ? static_cast<double>(std::numeric_limits<torch::headeronly::Half>::max())
                                        : std::numeric_limits<double>::infinity();
  const Tensor raw_x = to_contiguous(to_dtype(inputs.x_given, inputs.x.scalar_type()));
  const Tensor raw_y = to_contiguous(to_dtype(inputs.y_given, inputs.y.scalar_type()));
  DirectedSteps<T> x{inputs.sequences_x<T>(), inputs.sequences_x<T>()};
  DirectedSteps<T> y{inputs.sequences_y<T>(), inputs.sequences_y<T>()};
  x.raw.data = raw_x.const_data_ptr<T>();
  y.raw.data = raw_y.const_data_ptr<T>();
  const auto pass = [&](bool of_x, PairFilter takes) {
    // Strides in the results: (B1, B2), or (B,) when paired.
    const int64_t stride_x = inputs.paired ? 0 : inputs.batch_y(), stride_y = 1;
    const CosineResampling<T> direction = of_x ? CosineResampling<T>{x, y, takes, nearest, stride_x, stride_y, largest}
                                               : CosineResampling<T>{y, x, takes, nearest, stride_y, stride_x, largest};
    T *dsource = of_x ? dx : dy, *dtarget = of_x ? dy : dx;
    if (inputs.paired) {
      cosine_pairs(direction, out, grad, dsource, dtarget);
      return;
    }
    const CosinePass<T> all(direction);
    if (out != nullptr) {
      all.distances(out);
    }
    if (dsource != nullptr) {
      all.source_gradients(grad, dsource);
    }
    if (dtarget != nullptr) {
      all.target_gradients(grad, dtarget);
    }
  };
  if (resample == "shorter") {
    pass(true, PairFilter::not_longer);
    pass(false, PairFilter::shorter);
  } else {
    pass(resample == "x", PairFilter::all);
  }
}

}  // namespace scav::SCAV_LEVEL
