// Sinkhorn on the CPU at one SIMD level (foreach_level.h): no include guard.
//
// One pair at a time, its costs row by row. In units of epsilon, with S = C / epsilon, potentials F and G and weights
// a = 1/n, b = 1/m, an iteration is
//     F[i] = -log sum_j b exp(G[j] - S[i, j]),    G[j] = -log sum_i a exp(F[i] - S[i, j]).
// Once the potentials are roughly right, K[i, j] = exp(F[i] + G[j] - S[i, j]) is held fixed and iterations are
// multiplications: u = 1 / (K b v), v = 1 / (K' a u). When u or v grows, it is absorbed into F and G by an iteration in
// logarithms, which is also how every iteration runs where a pair's K is larger than the scratch that a thread may use.

#include "cpu/simd.inl"
#include "cpu/gemm.inl"
#include "cpu/transpose.inl"
#include "cpu/packed.inl"
#include "cpu/difference_costs.inl"
#include "cpu/group_costs.inl"
#include "cpu/pair_costs.inl"
#include "cpu/pairs.inl"
#include "cpu/sweep.inl"
#include "cpu/matrix_costs.inl"

namespace scav::SCAV_LEVEL {

// Rows in a part of a pair, whose costs are held at a time: all rows of most pairs. K or the adjoint's weights take as
// much again.
template <class T, class Source>
int64_t sinkhorn_part_rows(const Source& source) {
  constexpr int64_t cells = (int64_t(16) << 20) / static_cast<int64_t>(sizeof(T));
  return std::clamp<int64_t>(cells / source.columns(), 1, source.rows());
}

// Adds the terms of rows [first, end) to sum_i exp(F[i] - S[i, j]) = sums[j] * exp(peaks[j]), for a row of `width`
// columns. Start from sums of 0 and masked peaks.
template <class T>
void add_log_columns(const T* costs, int64_t first, int64_t end, int64_t width, T scale, const T* f, T* sums,
                     T* peaks) {
  constexpr int w = kWidth<T>;
  for (int64_t j = 0; j < width; j += w) {
    const Vec<T, w> before = load<T, w>(peaks + j);
    Vec<T, w> peak = before;
    for (int64_t i = first; i < end; ++i) {
      peak = vmax(peak, f[i] - scale * load<T, w>(costs + i * width + j));
    }
    Vec<T, w> sum = load<T, w>(sums + j) * vexp<T, w>(before - peak);
    for (int64_t i = first; i < end; ++i) {
      sum += vexp<T, w>(f[i] - scale * load<T, w>(costs + i * width + j) - peak);
    }
    store<T, w>(peaks + j, peak);
    store<T, w>(sums + j, sum);
  }
}

// `Source` is a GroupCosts or MatrixCosts.
template <class T, class Source>
class SinkhornPair {
  static constexpr int w = kWidth<T>;
  using V = Vec<T, w>;
  static constexpr T kLargest = kLargestScaling<T>;

 public:
  SinkhornPair(const Source& source, double epsilon)
      : source_(source),
        n_(source.rows()),
        m_(source.steps()),
        width_(source.columns()),
        part_rows_(sinkhorn_part_rows<T>(source)),
        padded_n_((n_ + w - 1) / w * w),
        scale_(static_cast<T>(1 / epsilon)),
        scratch_((part_rows_ + (resident() ? n_ : 0) + 4) * width_ + 4 * padded_n_) {
    T* next = scratch_.data();
    const auto take = [&](int64_t size) { return std::exchange(next, next + size); };
    costs_ = take(part_rows_ * width_);
    kernel_ = take(resident() ? n_ * width_ : 0);
    g_ = take(width_), v_ = take(width_), sums_ = take(width_), peaks_ = take(width_);
    f_ = take(padded_n_), f_next_ = take(padded_n_), u_ = take(padded_n_), u_next_ = take(padded_n_);
    std::fill_n(f_, 4 * padded_n_, T(1));
    if (resident()) {
      source_.costs(0, source_.panels(), 0, n_, costs_, width_);
    }
    for (int64_t j = 0; j < width_; ++j) {
      g_[j] = j < m_ ? T(0) : kMasked<T>;
    }
  }

  // Stops once sum_i |sum_j P[i, j] - a[i]| of the iteration before is below `tolerance`. Where it does not stop so,
  // that error takes half an iteration more, to `measure`.
  void iterate(int64_t max_iterations, T tolerance, bool measure) {
    if (log_iteration(T(0))) {
      return;
    }
    bool stopped = false;
    for (; iterations_ < max_iterations && !stopped; poll_iteration()) {
      if (resident()) {
        const Outcome outcome = scaling_iteration(tolerance);
        if (outcome != Outcome::out_of_range) {
          stopped = outcome == Outcome::converged;
          continue;
        }
        absorb();
      }
      stopped = log_iteration(tolerance);
    }
    if (measure && !stopped) {
      if (resident()) {
        measure_rows();
      } else {
        measure_log_rows();
      }
    }
    if (resident()) {
      absorb();
    }
  }

  int64_t iterations() const { return iterations_; }
  // Error of the potentials after iterate(); NaN where they are not finite.
  T marginal_error() const { return error_; }

  // <a, f> + <b, g> in the unit of the cost: the dual objective, as the columns' sums are exact.
  T value(double epsilon) const {
    double rows = 0, columns = 0;
    for (int64_t i = 0; i < n_; ++i) {
      rows += f_[i];
    }
    for (int64_t j = 0; j < m_; ++j) {
      columns += g_[j];
    }
    return static_cast<T>(epsilon * (rows / static_cast<double>(n_) + columns / static_cast<double>(m_)));
  }

  // F, for the backward pass: (n,).
  void save(T* f) const { std::copy_n(f_, n_, f); }

 private:
  enum class Outcome { converged, done, out_of_range };

  bool resident() const { return part_rows_ == n_; }

  // Iterations by multiplications are too short to poll each.
  void poll_iteration() {
    constexpr int64_t kCells = int64_t(1) << 18;
    unpolled_ += n_ * width_;
    if (unpolled_ >= kCells) {
      poll(2 * std::exchange(unpolled_, 0));
    }
  }

  // Costs of rows [first, end): row i is at i * width_ from the pointer returned.
  const T* costs_of(int64_t first, int64_t end) {
    if (!resident()) {
      source_.costs(0, source_.panels(), first, end, costs_ - first * width_, width_);
    }
    return costs_ - first * width_;
  }

  // sum_i |exp(F[i] - f_next[i]) - 1| / n of rows [first, end): what their marginals lack.
  T log_error(int64_t first, int64_t end) const {
    T error = 0;
    for (int64_t i = first; i < end; ++i) {
      error += std::abs(std::exp(f_[i] - f_next_[i]) - 1) / static_cast<T>(n_);
    }
    return error;
  }

  void measure_log_rows() {
    error_ = 0;
    for (int64_t first = 0; first < n_; first += part_rows_) {
      const int64_t end = std::min(first + part_rows_, n_);
      log_rows(costs_of(first, end), first, end);
      error_ += log_error(first, end);
    }
  }

  // The same from K, u and v.
  void measure_rows() {
    T error = 0;
    for (int64_t i = 0; i < n_; ++i) {
      V dot{};
      for (int64_t j = 0; j < width_; j += w) {
        dot += load<T, w>(kernel_ + i * width_ + j) * load<T, w>(v_ + j);
      }
      error += std::abs(u_[i] * horizontal_sum<T, w>(dot) - 1);
    }
    error_ = error / static_cast<T>(n_);
  }

  // One iteration in logarithms, a part of the rows at a time. Returns true if the potentials had converged before it,
  // and leaves them as they were; a tolerance of 0 never has. Also if costs overflow in units of epsilon: no iteration
  // helps.
  bool log_iteration(T tolerance) {
    std::fill_n(sums_, width_, T(0));
    std::fill_n(peaks_, width_, kMasked<T>);
    T error = 0;
    bool finite = true;
    for (int64_t first = 0; first < n_; first += part_rows_) {
      const int64_t end = std::min(first + part_rows_, n_);
      const T* costs = costs_of(first, end);
      log_rows(costs, first, end);
      for (int64_t i = first; i < end; ++i) {
        finite &= std::isfinite(f_next_[i]);
      }
      if (tolerance > 0) {
        error += log_error(first, end);
      }
      add_log_columns(costs, first, end, width_, scale_, f_next_, sums_, peaks_);
    }
    if (error < tolerance) {
      error_ = error;
      return true;
    }
    ++iterations_;
    std::swap(f_, f_next_);
    if (!finite) {
      return true;
    }
    const T log_n = std::log(static_cast<T>(n_));
    for (int64_t j = 0; j < width_; j += w) {
      store<T, w>(g_ + j, log_n - load<T, w>(peaks_ + j) - log_of(load<T, w>(sums_ + j)));
    }
    std::fill(g_ + m_, g_ + width_, kMasked<T>);
    if (resident()) {
      fill_kernel();
    }
    return false;
  }

  // Minus infinity where every exponential of the sum vanished.
  static V log_of(V sum) { return sum > T(0) ? vlog<T, w>(sum) : splat<T, w>(-std::numeric_limits<T>::infinity()); }

  // f_next[i] = -log sum_j b exp(G[j] - S[i, j]) for rows [first, end)
  void log_rows(const T* costs, int64_t first, int64_t end) {
    const T log_m = std::log(static_cast<T>(m_));
    for (int64_t start = first; start < end; start += w) {
      V peaks = splat<T, w>(T(0)), sums = splat<T, w>(T(1));
      for (int64_t i = start; i < std::min(start + w, end); ++i) {
        const T* row = costs + i * width_;
        V peak = splat<T, w>(kMasked<T>), sum{};
        for (int64_t j = 0; j < width_; j += w) {
          peak = vmax(peak, load<T, w>(g_ + j) - scale_ * load<T, w>(row + j));
        }
        T highest = peak[0];
        for (int lane = 1; lane < w; ++lane) {
          highest = std::max(highest, peak[lane]);
        }
        for (int64_t j = 0; j < width_; j += w) {
          sum += vexp<T, w>(load<T, w>(g_ + j) - scale_ * load<T, w>(row + j) - highest);
        }
        peaks[i - start] = highest;
        sums[i - start] = horizontal_sum<T, w>(sum);
      }
      const V next = log_m - peaks - log_of(sums);
      std::memcpy(f_next_ + start, &next, static_cast<size_t>(std::min<int64_t>(w, end - start)) * sizeof(T));
    }
  }

  // K = exp(F + G - S), u = 1, b v = b
  void fill_kernel() {
    for (int64_t i = 0; i < n_; ++i) {
      u_[i] = 1;
      for (int64_t j = 0; j < width_; j += w) {
        const V exponent = f_[i] + load<T, w>(g_ + j) - scale_ * load<T, w>(costs_ + i * width_ + j);
        store<T, w>(kernel_ + i * width_ + j, vexp<T, w>(exponent));
      }
    }
    for (int64_t j = 0; j < width_; ++j) {
      v_[j] = j < m_ ? 1 / static_cast<T>(m_) : T(0);
    }
  }

  // One iteration by multiplications, in one pass over K.
  Outcome scaling_iteration(T tolerance) {
    constexpr int kNarrow = std::min(w, 4);
    std::fill_n(sums_, width_, T(0));
    T error = 0;
    bool in_range = true;
    int64_t i = 0;
    for (; i + w <= n_; i += w) {
      scale_rows<w>(i, error, in_range);
    }
    for (; i + kNarrow <= n_; i += kNarrow) {
      scale_rows<kNarrow>(i, error, in_range);
    }
    for (; i < n_; ++i) {
      scale_rows<1>(i, error, in_range);
    }
    if (error / static_cast<T>(n_) < tolerance) {
      error_ = error / static_cast<T>(n_);
      return Outcome::converged;
    }
    // Past the last column K is 0, and so stays v.
    std::fill(sums_ + m_, sums_ + width_, T(1));
    for (int64_t j = 0; j < width_; j += w) {
      in_range &= within_range<w>(load<T, w>(sums_ + j));
    }
    if (!in_range) {
      return Outcome::out_of_range;
    }
    std::swap(u_, u_next_);
    const T ratio = static_cast<T>(n_) / static_cast<T>(m_);
    for (int64_t j = 0; j < width_; j += w) {
      store<T, w>(v_ + j, ratio / load<T, w>(sums_ + j));
    }
    std::fill(v_ + m_, v_ + width_, T(0));
    ++iterations_;
    return Outcome::done;
  }

  template <int R>
  SCAV_INLINE void scale_rows(int64_t first, T& error, bool& in_range) {
    const T* rows = kernel_ + first * width_;
    V dots[R] = {};
    for (int64_t j = 0; j < width_; j += w) {
      const V v = load<T, w>(v_ + j);
      for (int r = 0; r < R; ++r) {
        dots[r] += load<T, w>(rows + r * width_ + j) * v;
      }
    }
    const Vec<T, R> sums = horizontal_sums<T, w, R>(dots), u = T(1) / sums;
    const Vec<T, R> deviation = load<T, R>(u_ + first) * sums - T(1);
    error += horizontal_sum<T, R>(vmax(deviation, -deviation));
    in_range &= within_range<R>(sums);
    store<T, R>(u_next_ + first, u);
    for (int64_t j = 0; j < width_; j += w) {
      // Two chains of additions, as each waits for itself.
      V sum[2] = {load<T, w>(sums_ + j), V{}};
      for (int r = 0; r < R; ++r) {
        sum[r % 2] += u[r] * load<T, w>(rows + r * width_ + j);
      }
      store<T, w>(sums_ + j, sum[0] + sum[1]);
    }
  }

  template <int R>
  static bool within_range(Vec<T, R> value) {
    const auto within = (value < kLargest) & (value > 1 / kLargest);
    return !any_negative<T, R>(within ? Vec<T, R>{} : splat<T, R>(T(-1)));
  }

  // F + log u, G + log v
  void absorb() {
    for (int64_t i = 0; i < padded_n_; i += w) {
      store<T, w>(f_ + i, load<T, w>(f_ + i) + vlog<T, w>(load<T, w>(u_ + i)));
      store<T, w>(u_ + i, splat<T, w>(T(1)));
    }
    const T m = static_cast<T>(m_);
    for (int64_t j = 0; j < width_; j += w) {
      store<T, w>(g_ + j, load<T, w>(g_ + j) + vlog<T, w>(load<T, w>(v_ + j) * m));
    }
    std::fill(g_ + m_, g_ + width_, kMasked<T>);
    std::fill(v_, v_ + m_, 1 / m);
  }

  const Source& source_;
  int64_t n_, m_, width_, part_rows_, padded_n_;
  T scale_;
  int64_t iterations_ = 0, unpolled_ = 0;
  T error_ = std::numeric_limits<T>::quiet_NaN();
  Buffer<T> scratch_;              // all that follow
  T* costs_;                       // (part_rows, width)
  T* kernel_;                      // (n, width), where resident
  T *g_, *v_, *sums_, *peaks_;     // (width,) G, b v, and the columns' sums
  T *f_, *f_next_, *u_, *u_next_;  // (padded_n,) F, u
};

// Every pair of a PairBatch or MatrixBatch of one lane. `f` may be null: (results, f_stride) potentials.
template <class T, class Batch>
void sinkhorn_batch(const Batch& batch, const SinkhornOptions& options, T* out, T* f, int64_t f_stride,
                    const SinkhornReport<T>& report) {
  for_each_pairs(batch, [&](const auto& pairs, const std::vector<int64_t>& results) {
    const auto& source = pairs.source_of(0);
    const int64_t result = results[0];
    // A pair that holds inf or NaN gets its value elsewhere, and would only run through every iteration here.
    if (source.is_nonfinite()) {
      out[result] = 0;
      if (report.iterations != nullptr) {
        report.iterations[result] = 0;
        report.marginal_error[result] = std::numeric_limits<T>::quiet_NaN();
      }
      return;
    }
    SinkhornPair<T, std::decay_t<decltype(source)>> pair(source, options.epsilon);
    pair.iterate(options.max_iterations, static_cast<T>(options.tolerance), report.iterations != nullptr);
    out[result] = pair.value(options.epsilon);
    if (report.iterations != nullptr) {
      report.iterations[result] = pair.iterations();
      report.marginal_error[result] = pair.marginal_error();
    }
    if (f != nullptr) {
      pair.save(f + result * f_stride);
    }
  });
}

// One pair's gradient: d out / d cost is the plan, by the envelope theorem. An iteration leaves the columns' sums
// exact, so P[:, j] = b softmax_i(F[i] - S[i, j]): from F alone, without the rounding of G, and never more than there
// is to move.
template <class T, class Source, class To>
void sinkhorn_pair_backward(const Source& source, double epsilon, T grad, const T* f, const To& to) {
  constexpr int w = kWidth<T>;
  const T scale = static_cast<T>(1 / epsilon);
  const int64_t n = source.rows(), m = source.steps(), width = source.columns(),
                part_rows = sinkhorn_part_rows<T>(source);
  if (grad == 0 || source.is_nonfinite()) {
    return;
  }
  Buffer<T> costs(part_rows * width), weights(part_rows * width), sums(width), peaks(width);
  std::fill_n(sums.data(), width, T(0));
  std::fill_n(peaks.data(), width, kMasked<T>);
  // Calls visit(first, end, costs) for each part of the rows, whose costs are computed unless they are held already.
  int64_t held = -1;
  const auto for_each_part = [&](const auto& visit) {
    for (int64_t first = 0; first < n; first += part_rows) {
      const int64_t end = std::min(first + part_rows, n);
      T* c = costs.data() - first * width;
      if (held != first) {
        source.costs(0, source.panels(), first, end, c, width);
        held = first;
      }
      visit(first, end, c);
    }
  };
  for_each_part([&](int64_t first, int64_t end, const T* c) {
    add_log_columns(c, first, end, width, scale, f, sums.data(), peaks.data());
  });
  for (int64_t j = 0; j < width; ++j) {
    sums[j] = j < m ? grad / (static_cast<T>(m) * sums[j]) : T(0);
  }
  for_each_part([&](int64_t first, int64_t end, const T* c) {
    T* p = weights.data() - first * width;
    for (int64_t i = first; i < end; ++i) {
      for (int64_t j = 0; j < width; j += w) {
        const Vec<T, w> exponent = f[i] - scale * load<T, w>(c + i * width + j) - load<T, w>(peaks.data() + j);
        store<T, w>(p + i * width + j, load<T, w>(sums.data() + j) * vexp<T, w>(exponent));
      }
    }
    source.adjoint(0, source.panels(), first, end, c, p, width, to);
  });
}

template <class T>
void sinkhorn_forward(const Inputs& inputs, const SinkhornOptions& options, T* out, T* f,
                      const SinkhornReport<T>& report) {
  sinkhorn_batch<T>(PairBatch<T>(inputs, {1, 1}, false), options, out, f, inputs.steps_x(), report);
}

template <class T>
void sinkhorn_from_cost_forward(const CostInputs& costs, const SinkhornOptions& options, T* out, T* f,
                                const SinkhornReport<T>& report) {
  sinkhorn_batch<T>(MatrixBatch<T>(costs, {1, 1}), options, out, f, costs.steps_x(), report);
}

// dx, dy: (B1, N, D) and (B2, M, D), zero on entry, or null.
template <class T>
void sinkhorn_backward(const Inputs& inputs, double epsilon, const T* grad, const T* f, T* dx, T* dy) {
  const PairBatch<T> batch(inputs, {1, 1}, true);
  backward_pairs(batch, dx, dy, [&](const auto& pairs, const std::vector<int64_t>& results, const auto& to) {
    const int64_t result = results[0];
    sinkhorn_pair_backward(pairs.source_of(0), epsilon, grad[result], f + result * inputs.steps_x(), to[0]);
  });
}

// d_cost: (B1, B2, N, M), zero on entry.
template <class T>
void sinkhorn_from_cost_backward(const CostInputs& costs, double epsilon, const T* grad, const T* f, T* d_cost) {
  const MatrixBatch<T> batch(costs, {1, 1});
  for_each_pairs(batch, [&](const auto& pairs, const std::vector<int64_t>& results) {
    const int64_t result = results[0];
    sinkhorn_pair_backward(pairs.source_of(0), epsilon, grad[result], f + result * costs.steps_x(),
                           batch.adjoints(results, d_cost)[0]);
  });
}

}  // namespace scav::SCAV_LEVEL
