// Sinkhorn on the CPU at one SIMD level (foreach_level.h): no include guard.
//
// One pair at a time, its costs row by row. In units of epsilon, with S = C / epsilon, potentials F and G and weights
// a, b that sum to 1, an iteration is
//     F[i] = -log sum_j b[j] exp(G[j] - S[i, j]),    G[j] = -log sum_i a[i] exp(F[i] - S[i, j]).
// Once the potentials are roughly right, K[i, j] = exp(F[i] + G[j] - S[i, j]) is held fixed and iterations are
// multiplications: u = 1 / (K b v), v = 1 / (K' a u). When u or v grows, it is absorbed into F and G by an iteration in
// logarithms, which is also how every iteration runs where a pair's K is larger than the scratch that a thread may use.
// The exponentials of that iteration's rows, E[i, j] = exp(G[j] - S[i, j] - max of row i), are a K of other potentials:
// its columns' sums and the next K are E times a factor for each row and a factor for each column.
// Weights are held over their means, n a and m b, which are 1 for uniform ones. G and K include m b, so that K is at
// most 1, and 0 in the columns of steps without weight as in those past the last step. Rows without weight are computed
// as all others, and count nowhere.

#include "cpu/simd.inl"
#include "cpu/gemm.inl"
#include "cpu/transpose.inl"
#include "cpu/packed.inl"
#include "cpu/difference_costs.inl"
#include "cpu/group_costs.inl"
#include "cpu/pair_costs.inl"
#include "cpu/pairs.inl"
#include "cpu/values.inl"
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
  // K of a row without weight may be larger before the iterations converge; beyond this, it is out of range in any sum.
  static constexpr T kHighest = sizeof(T) == 4 ? T(60) : T(500);
  // Columns of E with smaller sums may have lost some of them: E is 0 below the smallest normal number.
  static constexpr T kSmallest = sizeof(T) == 4 ? T(1e-20) : T(1e-280);

 public:
  // `a` (n,) and `b` (m,) are weights over their means, or null: 1.
  SinkhornPair(const Source& source, double epsilon, const T* a, const T* b)
      : source_(source),
        n_(source.rows()),
        m_(source.steps()),
        width_(source.columns()),
        part_rows_(sinkhorn_part_rows<T>(source)),
        padded_n_((n_ + w - 1) / w * w),
        epsilon_(epsilon),
        scale_(static_cast<T>(1 / epsilon)),
        scratch_((part_rows_ + (resident() ? n_ : 0) + 6) * width_ + 7 * padded_n_) {
    T* next = scratch_.data();
    const auto take = [&](int64_t size) { return std::exchange(next, next + size); };
    costs_ = take(part_rows_ * width_);
    kernel_ = take(resident() ? n_ * width_ : 0);
    g_ = take(width_), v_ = take(width_), sums_ = take(width_), peaks_ = take(width_);
    b_ = take(width_), log_b_ = take(width_);
    f_ = take(padded_n_), f_next_ = take(padded_n_), u_ = take(padded_n_), u_next_ = take(padded_n_);
    weighted_f_ = take(padded_n_), a_ = take(padded_n_), log_a_ = take(padded_n_);
    std::fill_n(f_, 5 * padded_n_, T(1));
    put_weights(a, n_, padded_n_, a_, log_a_);
    put_weights(b, m_, width_, b_, log_b_);
    if (resident()) {
      source_.costs(0, source_.panels(), 0, n_, costs_, width_);
    }
    std::copy_n(log_b_, width_, g_);
  }

  // Leaves the G of iterations in logarithms at epsilons that fall by `scaling` from the largest cost, at most `count`,
  // for iterate() to start from.
  void anneal(double scaling, int64_t count) {
    const double last = epsilon_;
    for (double next = largest_cost(); next > last && iterations_ < count; next *= scaling, poll_iteration()) {
      set_epsilon(next);
      log_iteration(T(0));
    }
    set_epsilon(last);
    iterations_ = 0;
  }

  // Stops once sum_i |sum_j P[i, j] - a[i]| of the iteration before is below `tolerance`. Where it does not stop so,
  // that error takes half an iteration more, to `measure`.
  void iterate(int64_t max_iterations, T tolerance, bool measure) {
    if (log_iteration(T(0))) {
      return;
    }
    fill_kernel();
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
      if (!stopped) {
        fill_kernel();
      }
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
  T value() const {
    double rows = 0, columns = 0;
    for (int64_t i = 0; i < n_; ++i) {
      rows += a_[i] > 0 ? a_[i] * f_[i] : T(0);
    }
    for (int64_t j = 0; j < m_; ++j) {
      columns += b_[j] > 0 ? b_[j] * (g_[j] - log_b_[j]) : T(0);
    }
    return static_cast<T>(epsilon_ * (rows / static_cast<double>(n_) + columns / static_cast<double>(m_)));
  }

  // F, for the backward pass: (n,).
  void save(T* f) const { std::copy_n(f_, n_, f); }

 private:
  enum class Outcome { converged, done, out_of_range };

  bool resident() const { return part_rows_ == n_; }

  // Weights and their logarithms, padded to `size`: where there is no weight, 0 and kMasked.
  static void put_weights(const T* given, int64_t count, int64_t size, T* weights, T* logarithms) {
    std::fill_n(weights, count, T(1));
    std::fill_n(logarithms, count, T(0));
    std::fill(weights + count, weights + size, T(0));
    std::fill(logarithms + count, logarithms + size, kMasked<T>);
    for (int64_t k = 0; given != nullptr && k < count; ++k) {
      weights[k] = given[k];
      logarithms[k] = given[k] > 0 ? std::log(given[k]) : kMasked<T>;
    }
  }

  // Of the finite ones between steps that have weight.
  double largest_cost() {
    T largest = 0;
    for (int64_t first = 0; first < n_; first += part_rows_) {
      const int64_t end = std::min(first + part_rows_, n_);
      const T* costs = costs_of(first, end);
      for (int64_t i = first; i < end; ++i) {
        for (int64_t j = 0; a_[i] > 0 && j < m_; ++j) {
          const T cost = costs[i * width_ + j];
          largest = b_[j] > 0 && cost < kReached<T> ? std::max(largest, cost) : largest;
        }
      }
    }
    return static_cast<double>(largest);
  }

  // G stays as it is in the unit of the cost.
  void set_epsilon(double epsilon) {
    const T ratio = static_cast<T>(epsilon_ / epsilon);
    for (int64_t j = 0; j < m_; ++j) {
      g_[j] = b_[j] > 0 ? (g_[j] - log_b_[j]) * ratio + log_b_[j] : kMasked<T>;
    }
    epsilon_ = epsilon;
    scale_ = static_cast<T>(1 / epsilon);
  }

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

  // sum_i a |exp(F[i] - f_next[i]) - 1| of rows [first, end): what their marginals lack.
  T log_error(int64_t first, int64_t end) const {
    T error = 0;
    for (int64_t i = first; i < end; ++i) {
      error += a_[i] > 0 ? a_[i] * std::abs(std::exp(f_[i] - f_next_[i]) - 1) / static_cast<T>(n_) : T(0);
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
      error += a_[i] > 0 ? a_[i] * std::abs(u_[i] * horizontal_sum<T, w>(dot) - 1) : T(0);
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
        finite &= std::isfinite(f_next_[i]) || a_[i] == 0;
        weighted_f_[i] = a_[i] > 0 ? f_next_[i] + log_a_[i] : kMasked<T>;
      }
      if (tolerance > 0) {
        error += log_error(first, end);
      }
      if (!resident()) {
        add_log_columns(costs, first, end, width_, scale_, weighted_f_, sums_, peaks_);
      }
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
    if (resident()) {
      kernel_lacks_factors_ = scale_columns();
      if (kernel_lacks_factors_) {
        return false;
      }
      std::fill_n(sums_, width_, T(0));
      add_log_columns(costs_, 0, n_, width_, scale_, weighted_f_, sums_, peaks_);
    }
    const T log_n = std::log(static_cast<T>(n_));
    for (int64_t j = 0; j < width_; j += w) {
      const V log_b = load<T, w>(log_b_ + j);
      const V g = log_n + log_b - load<T, w>(peaks_ + j) - log_of(load<T, w>(sums_ + j));
      store<T, w>(g_ + j, load<T, w>(b_ + j) > T(0) ? g : log_b);
    }
    return false;
  }

  // Takes G from E, which the rows left in `kernel_` with m over their sums in `u_next_`, and leaves in `v_` what
  // makes E a K with these. Returns false where it cannot.
  bool scale_columns() {
    std::fill_n(sums_, width_, T(0));
    bool in_range = true;
    for (int64_t i = 0; i < n_; ++i) {
      in_range &= std::isfinite(u_next_[i]);
      const T weight = a_[i] * u_next_[i];
      for (int64_t j = 0; j < width_; j += w) {
        store<T, w>(sums_ + j, load<T, w>(sums_ + j) + weight * load<T, w>(kernel_ + i * width_ + j));
      }
    }
    for (int64_t j = 0; j < width_; j += w) {
      const V b = load<T, w>(b_ + j);
      in_range &= !any_negative<T, w>(load<T, w>(sums_ + j) > kSmallest * b ? V{} : -b);
    }
    if (!in_range) {
      return false;
    }
    const T n = static_cast<T>(n_);
    for (int64_t j = 0; j < width_; j += w) {
      const V b = load<T, w>(b_ + j), log_b = load<T, w>(log_b_ + j), factor = n * b / load<T, w>(sums_ + j);
      store<T, w>(g_ + j, b > T(0) ? load<T, w>(g_ + j) + vlog<T, w>(factor) : log_b);
      store<T, w>(v_ + j, b > T(0) ? factor : V{});
    }
    return true;
  }

  // Minus infinity where every exponential of the sum vanished.
  static V log_of(V sum) { return sum > T(0) ? vlog<T, w>(sum) : splat<T, w>(-std::numeric_limits<T>::infinity()); }

  // f_next[i] = -log sum_j exp(G[j] - S[i, j]) / m for rows [first, end). Leaves the exponentials in `kernel_` and m
  // over their sums in `u_next_`, where K is held.
  void log_rows(const T* costs, int64_t first, int64_t end) {
    const T log_m = std::log(static_cast<T>(m_));
    for (int64_t start = first; start < end; start += w) {
      V peaks = splat<T, w>(T(0)), sums = splat<T, w>(T(1));
      for (int64_t i = start; i < std::min(start + w, end); ++i) {
        const T* row = costs + i * width_;
        T* const kept = resident() ? kernel_ + i * width_ : nullptr;
        V peak = splat<T, w>(kMasked<T>), sum{};
        for (int64_t j = 0; j < width_; j += w) {
          peak = vmax(peak, load<T, w>(g_ + j) - scale_ * load<T, w>(row + j));
        }
        T highest = peak[0];
        for (int lane = 1; lane < w; ++lane) {
          highest = std::max(highest, peak[lane]);
        }
        for (int64_t j = 0; j < width_; j += w) {
          const V exponential = vexp<T, w>(load<T, w>(g_ + j) - scale_ * load<T, w>(row + j) - highest);
          sum += exponential;
          if (kept != nullptr) {
            store<T, w>(kept + j, exponential);
          }
        }
        peaks[i - start] = highest;
        sums[i - start] = horizontal_sum<T, w>(sum);
        u_next_[i] = static_cast<T>(m_) / sums[i - start];
      }
      const V next = log_m - peaks - log_of(sums);
      std::memcpy(f_next_ + start, &next, static_cast<size_t>(std::min<int64_t>(w, end - start)) * sizeof(T));
    }
  }

  // K = exp(F + G - S), u = 1, v / m = 1 / m, where K is held.
  void fill_kernel() {
    if (!resident()) {
      return;
    }
    for (int64_t i = 0; i < n_; ++i) {
      T* const row = kernel_ + i * width_;
      for (int64_t j = 0; j < width_; j += w) {
        if (kernel_lacks_factors_) {
          store<T, w>(row + j, load<T, w>(row + j) * (u_next_[i] * load<T, w>(v_ + j)));
        } else {
          const V exponent = f_[i] + load<T, w>(g_ + j) - scale_ * load<T, w>(costs_ + i * width_ + j);
          store<T, w>(row + j, vexp<T, w>(vmin(exponent, splat<T, w>(kHighest))));
        }
      }
      u_[i] = 1;
    }
    std::fill_n(v_, width_, 1 / static_cast<T>(m_));
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
    for (int64_t j = 0; j < width_; j += w) {
      in_range &= within_range<w>(load<T, w>(sums_ + j), load<T, w>(b_ + j));
    }
    if (!in_range) {
      return Outcome::out_of_range;
    }
    std::swap(u_, u_next_);
    const T ratio = static_cast<T>(n_) / static_cast<T>(m_);
    for (int64_t j = 0; j < width_; j += w) {
      const V b = load<T, w>(b_ + j);
      // K is 0 in the columns without weight.
      store<T, w>(v_ + j, b > T(0) ? ratio * b / load<T, w>(sums_ + j) : V{});
    }
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
    const Vec<T, R> sums = horizontal_sums<T, w, R>(dots), u = T(1) / sums, a = load<T, R>(a_ + first);
    const Vec<T, R> deviation = load<T, R>(u_ + first) * sums - T(1);
    error += horizontal_sum<T, R>(a * vmax(deviation, -deviation));
    in_range &= within_range<R>(sums, splat<T, R>(T(1)));
    store<T, R>(u_next_ + first, u);
    const Vec<T, R> weighted = a * u;
    for (int64_t j = 0; j < width_; j += w) {
      // Two chains of additions, as each waits for itself.
      V sum[2] = {load<T, w>(sums_ + j), V{}};
      for (int r = 0; r < R; ++r) {
        sum[r % 2] += weighted[r] * load<T, w>(rows + r * width_ + j);
      }
      store<T, w>(sums_ + j, sum[0] + sum[1]);
    }
  }

  // Whether `value` / `unit` is in range; a unit of 0 is that of a column without weight.
  template <int R>
  static bool within_range(Vec<T, R> value, Vec<T, R> unit) {
    const auto within = (value < kLargest * unit) & (value * kLargest > unit);
    return !any_negative<T, R>(within ? Vec<T, R>{} : Vec<T, R>{} - unit);
  }

  // F + log u, G + log v
  void absorb() {
    for (int64_t i = 0; i < padded_n_; i += w) {
      store<T, w>(f_ + i, load<T, w>(f_ + i) + vlog<T, w>(load<T, w>(u_ + i)));
      store<T, w>(u_ + i, splat<T, w>(T(1)));
    }
    const T m = static_cast<T>(m_);
    for (int64_t j = 0; j < width_; j += w) {
      const V g = load<T, w>(g_ + j) + vlog<T, w>(load<T, w>(v_ + j) * m);
      store<T, w>(g_ + j, load<T, w>(b_ + j) > T(0) ? g : splat<T, w>(kMasked<T>));
    }
    std::fill_n(v_, width_, 1 / m);
  }

  const Source& source_;
  int64_t n_, m_, width_, part_rows_, padded_n_;
  double epsilon_;
  T scale_;
  int64_t iterations_ = 0, unpolled_ = 0;
  T error_ = std::numeric_limits<T>::quiet_NaN();
  bool kernel_lacks_factors_ = false;  // K is kernel_[i, j] u_next_[i] v_[j]
  Buffer<T> scratch_;                  // all that follow
  T* costs_;                           // (part_rows, width)
  T* kernel_;                          // (n, width), where resident
  T *g_, *v_, *sums_, *peaks_;         // (width,) G + log m b, v / m, and the columns' sums
  T *b_, *log_b_;                      // (width,) m b
  T *f_, *f_next_, *u_, *u_next_;      // (padded_n,) F, u
  T *weighted_f_, *a_, *log_a_;        // (padded_n,) f_next + log n a, n a
};

// Every pair of a PairBatch or MatrixBatch of one lane. `f` may be null: (results, f_stride) potentials.
template <class T, class Batch>
void sinkhorn_batch(const Batch& batch, const PairWeights& weights, const SinkhornOptions& options, T* out, T* f,
                    int64_t f_stride, const SinkhornReport<T>& report) {
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
    SinkhornPair<T, std::decay_t<decltype(source)>> pair(source, options.epsilon, weights.of_x<T>(result),
                                                         weights.of_y<T>(result));
    if (options.scaling.has_value()) {
      pair.anneal(*options.scaling, options.max_iterations);
    }
    pair.iterate(options.max_iterations, static_cast<T>(options.tolerance), report.iterations != nullptr);
    out[result] = pair.value();
    if (report.iterations != nullptr) {
      report.iterations[result] = pair.iterations();
      report.marginal_error[result] = pair.marginal_error();
    }
    if (f != nullptr) {
      pair.save(f + result * f_stride);
    }
  });
}

// What a pair's gradient starts from: F (n,), weights over their means, or null, and G (m,) to write, or null.
template <class T>
struct PairPotentials {
  const T *f, *a, *b;
  T* g;
};

// One pair's gradient: d out / d cost is the plan, by the envelope theorem. An iteration leaves the columns' sums
// exact, so P[:, j] = b softmax_i(F[i] + log a[i] - S[i, j]): from F alone, without the rounding of G, and never more
// than there is to move.
template <class T, class Source, class To>
void sinkhorn_pair_backward(const Source& source, double epsilon, T grad, const PairPotentials<T>& given,
                            const To& to) {
  constexpr int w = kWidth<T>;
  const T scale = static_cast<T>(1 / epsilon);
  const int64_t n = source.rows(), m = source.steps(), width = source.columns(),
                part_rows = sinkhorn_part_rows<T>(source);
  if (grad == 0 || source.is_nonfinite()) {
    return;
  }
  Buffer<T> costs(part_rows * width), weights(part_rows * width), sums(width), peaks(width), weighted(n);
  T* const f = weighted.data();
  for (int64_t i = 0; i < n; ++i) {
    f[i] = given.a == nullptr ? given.f[i] : given.a[i] > 0 ? given.f[i] + std::log(given.a[i]) : kMasked<T>;
  }
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
  for (int64_t j = 0; j < m && given.g != nullptr; ++j) {
    given.g[j] = std::log(static_cast<T>(n)) - peaks[j] - std::log(sums[j]);
  }
  for (int64_t j = 0; j < width; ++j) {
    const T b = j >= m ? T(0) : given.b == nullptr ? T(1) : given.b[j];
    sums[j] = b > 0 ? grad * b / (static_cast<T>(m) * sums[j]) : T(0);
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
void sinkhorn_forward(const Inputs& inputs, const PairWeights& weights, const SinkhornOptions& options, T* out, T* f,
                      const SinkhornReport<T>& report) {
  sinkhorn_batch<T>(PairBatch<T>(inputs, {1, 1}, false), weights, options, out, f, inputs.steps_x(), report);
}

template <class T>
void sinkhorn_from_cost_forward(const CostInputs& costs, const PairWeights& weights, const SinkhornOptions& options,
                                T* out, T* f, const SinkhornReport<T>& report) {
  sinkhorn_batch<T>(MatrixBatch<T>(costs, {1, 1}), weights, options, out, f, costs.steps_x(), report);
}

// Potentials of the pair of a result: `f` (results, n), and `g` (results, m) or null.
template <class T>
PairPotentials<T> potentials_of(int64_t result, const PairWeights& weights, const T* f, int64_t n, T* g, int64_t m) {
  return {f + result * n, weights.of_x<T>(result), weights.of_y<T>(result), g == nullptr ? nullptr : g + result * m};
}

// dx, dy: (B1, N, D) and (B2, M, D), zero on entry, or null; g (results, M) for G, or null.
template <class T>
void sinkhorn_backward(const Inputs& inputs, const PairWeights& weights, double epsilon, const T* grad, const T* f,
                       T* dx, T* dy, T* g) {
  const PairBatch<T> batch(inputs, {1, 1}, true);
  backward_pairs(batch, dx, dy, [&](const auto& pairs, const std::vector<int64_t>& results, const auto& to) {
    const int64_t result = results[0];
    sinkhorn_pair_backward(pairs.source_of(0), epsilon, grad[result],
                           potentials_of(result, weights, f, inputs.steps_x(), g, inputs.steps_y()), to[0]);
  });
}

// d_cost: (B1, B2, N, M), zero on entry; g (B1, B2, M) for G, or null.
template <class T>
void sinkhorn_from_cost_backward(const CostInputs& costs, const PairWeights& weights, double epsilon, const T* grad,
                                 const T* f, T* d_cost, T* g) {
  const MatrixBatch<T> batch(costs, {1, 1});
  for_each_pairs(batch, [&](const auto& pairs, const std::vector<int64_t>& results) {
    const int64_t result = results[0];
    sinkhorn_pair_backward(pairs.source_of(0), epsilon, grad[result],
                           potentials_of(result, weights, f, costs.steps_x(), g, costs.steps_y()),
                           batch.adjoints(results, d_cost)[0]);
  });
}

}  // namespace scav::SCAV_LEVEL
