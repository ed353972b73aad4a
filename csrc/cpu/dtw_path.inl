// One cell of DTW, and the walk along an optimal path.
// Included once per SIMD level (foreach_level.h): no include guard.

namespace scav::SCAV_LEVEL {

template <class V>
SCAV_INLINE V dtw_cell(V cost, V diagonal, V up, V left) {
  return cost + vmin(vmin(diagonal, up), left);
}

// The code of the step (shared/dtw.h), lane by lane.
template <class T, int W>
SCAV_INLINE Vec<IntOf<T>, W> dtw_step(Vec<T, W> diagonal, Vec<T, W> up, Vec<T, W> left) {
  using I = Vec<IntOf<T>, W>;
  static_assert(kDiagonal == 0);
  const I not_left = up < diagonal ? I{} + IntOf<T>(kUp) : I{};
  return left < vmin(diagonal, up) ? I{} + IntOf<T>(kLeft) : not_left;
}

// Cells whose three steps cost the same. As of every kind of steps, `weight` is the factor of the diagonal's cost, and
// `code` becomes the code of the step.
template <class T>
struct EqualSteps {
  explicit EqualSteps(const DtwOptions&) {}

  template <int W>
  SCAV_INLINE Vec<T, W> weight(bool) const {
    return Vec<T, W>{};
  }
  template <int W>
  SCAV_INLINE Vec<T, W> cell(Vec<T, W>, Vec<T, W> cost, Vec<T, W> diagonal, Vec<T, W> up, Vec<T, W> left) const {
    return dtw_cell(cost, diagonal, up, left);
  }
  template <int W>
  SCAV_INLINE Vec<T, W> cell(Vec<T, W>, Vec<T, W> cost, Vec<T, W> diagonal, Vec<T, W> up, Vec<T, W> left,
                             Vec<IntOf<T>, W>& code) const {
    code = dtw_step<T, W>(diagonal, up, left);
    return dtw_cell(cost, diagonal, up, left);
  }
};

// Cells with a step penalty and a diagonal weight.
template <class T>
struct WeightedSteps {
  T penalty, diagonal_weight;

  explicit WeightedSteps(const DtwOptions& options)
      : penalty(static_cast<T>(options.step_penalty)), diagonal_weight(static_cast<T>(options.diagonal_weight)) {}

  // A path starts diagonally, at weight 1.
  template <int W>
  SCAV_INLINE Vec<T, W> weight(bool first_row) const {
    return splat<T, W>(first_row ? T(1) : diagonal_weight);
  }
  template <int W>
  SCAV_INLINE Vec<T, W> cell(Vec<T, W> weight, Vec<T, W> cost, Vec<T, W> diagonal, Vec<T, W> up, Vec<T, W> left) const {
    return vmin(by_diagonal<W>(weight, cost, diagonal), vmin(up, left) + (cost + penalty));
  }
  template <int W>
  SCAV_INLINE Vec<T, W> cell(Vec<T, W> weight, Vec<T, W> cost, Vec<T, W> diagonal, Vec<T, W> up, Vec<T, W> left,
                             Vec<IntOf<T>, W>& code) const {
    using I = Vec<IntOf<T>, W>;
    const Vec<T, W> straight = vmin(up, left) + (cost + penalty), oblique = by_diagonal<W>(weight, cost, diagonal);
    const I side = left < up ? I{} + IntOf<T>(kLeft) : I{} + IntOf<T>(kUp);
    code = straight < oblique ? side : I{};
    return vmin(oblique, straight);
  }

 private:
  // A forbidden cell stays unreachable at every weight.
  template <int W>
  static SCAV_INLINE Vec<T, W> by_diagonal(Vec<T, W> weight, Vec<T, W> cost, Vec<T, W> diagonal) {
    return diagonal + (cost < kReached<T> ? weight * cost : cost);
  }
};

// A cell of a recursion over pairs (sweep.inl) that keeps nothing.
template <class T, int W, class Steps>
struct DtwCell {
  Steps kind;

  SCAV_INLINE Vec<T, W> operator()(int64_t s, int64_t, int, Vec<T, W> cost, Vec<T, W> diagonal, Vec<T, W> up,
                                   Vec<T, W> left) const {
    return kind.template cell<W>(kind.template weight<W>(s == 0), cost, diagonal, up, left);
  }
};

// One that writes the code of its step: of cell (s, t), vector v, at ((t - step0) * rows + s) * V * W + v * W.
template <class T, int W, int V, class Steps>
struct DtwRecorder {
  Steps kind;
  uint8_t* codes;
  int64_t step0, rows;

  SCAV_INLINE Vec<T, W> operator()(int64_t s, int64_t t, int v, Vec<T, W> cost, Vec<T, W> diagonal, Vec<T, W> up,
                                   Vec<T, W> left) const {
    typedef uint8_t Bytes __attribute__((vector_size(W)));
    Vec<IntOf<T>, W> code;
    const Vec<T, W> r = kind.template cell<W>(kind.template weight<W>(s == 0), cost, diagonal, up, left, code);
    const Bytes step = __builtin_convertvector(code, Bytes);
    std::memcpy(codes + (((t - step0) * rows + s) * V + v) * W, &step, W);
    return r;
  }
};

// Where the paths of some lanes end, and their sums: at a lane's last step, or where `open`, at the step of its last
// row with the smallest sum, the first of equal ones.
template <class T>
struct PathEnds {
  using I = IntOf<T>;
  int64_t lanes;
  bool open;
  Buffer<I> end_row, last_step, step;  // (lanes,)
  Buffer<T> sum;                       // (lanes,) unreachable until an end is known

  PathEnds(const Lanes<T>& of, bool open_end)
      : lanes(static_cast<int64_t>(of.last_row.size())),
        open(open_end),
        end_row(lanes),
        last_step(lanes),
        step(lanes),
        sum(lanes) {
    for (int64_t lane = 0; lane < lanes; ++lane) {
      end_row[lane] = static_cast<I>(of.last_row[static_cast<size_t>(lane)] + 1);
      last_step[lane] = step[lane] = static_cast<I>(of.last_step[static_cast<size_t>(lane)]);
      sum[lane] = kUnreachable<T>;
    }
  }

  // Takes the ends in column t from the state after it.
  __attribute__((noinline)) void take(int64_t t, const T* state) {
    for (int64_t lane = 0; lane < lanes; ++lane) {
      if (t == last_step[lane] || (open && t < last_step[lane])) {
        const T r = state[(end_row[lane] - 1) * lanes + lane];
        if (!open || r < sum[lane]) {
          sum[lane] = r;
          step[lane] = static_cast<I>(t);
        }
      }
    }
  }

  // Takes the ends among the cells `r` of one vector of lanes, in `steps` columns from t of the row before `row`.
  template <int W>
  __attribute__((noinline)) void take_cells(int64_t vector, int64_t row, int64_t t, const Vec<T, W>* r, int steps) {
    using IV = Vec<I, W>;
    const IV last = load<I, W>(last_step.data() + vector * W),
             in_row = load<I, W>(end_row.data() + vector * W) == static_cast<I>(row);
    Vec<T, W> lowest = load<T, W>(sum.data() + vector * W);
    IV at = load<I, W>(step.data() + vector * W);
    for (int j = 0; j < steps; ++j) {
      const IV now = IV{} + static_cast<I>(t + j);
      const IV taken = in_row & (open ? (last >= now) & (r[j] < lowest) : last == now);
      lowest = taken ? r[j] : lowest;
      at = taken ? now : at;
    }
    store<T, W>(sum.data() + vector * W, lowest);
    store<I, W>(step.data() + vector * W, at);
  }
};

// Where the distances of a batch go, and their paths unless `paths` is null: `path_stride` codes each.
template <class T>
struct DtwOutput {
  const DtwOptions& options;
  T* distances;
  uint8_t* paths;
  int64_t path_stride;

  // Bytes of a cell's step, if a path is walked.
  int64_t bytes_per_cell() const { return paths != nullptr || options.normalize == Normalize::path ? 1 : 0; }
  uint8_t* path_of(int64_t result) const { return paths ? paths + result * path_stride : nullptr; }

  // `cells` on the path count where they are the divisor.
  void put(int64_t result, T sum, int64_t n, int64_t m, int64_t cells) const {
    const int64_t divisor = options.normalize == Normalize::path ? cells : n + m;
    const T distance = sum < kReached<T> ? sum : std::numeric_limits<T>::infinity();
    distances[result] = options.normalize == Normalize::none ? distance : distance / static_cast<T>(divisor);
  }
};

// A walk along an optimal path, from its end backwards.
struct PathWalk {
  int64_t s = -1, t = -1;
  uint8_t* next = nullptr;  // or null where the path is not written
  bool open_begin = false;
  int64_t cells = 0;

  bool finished() const { return s < 0; }

  // From the end (s, t) of a path in a grid of m steps.
  void start(int64_t from_s, int64_t from_t, int64_t m) {
    s = from_s;
    t = from_t;
    if (next != nullptr) {
      next = std::fill_n(next, m - 1 - t, kSkip);
    }
  }

  // Writes the step that leads here, and takes it back. `code` means nothing where a cost is inf or NaN.
  void step(uint8_t code) {
    const bool first = s == 0 && (t == 0 || (open_begin && code != kLeft));
    code = first ? kPathEnd : (s == 0 ? kLeft : (t == 0 ? kUp : code));
    ++cells;
    if (next != nullptr) {
      *next++ = code;
    }
    t -= code != kUp;
    s -= first ? 1 : code != kLeft;
  }
};

// Walks along the paths of some lanes.
template <class T>
struct PathWalks {
  const Lanes<T>& lanes;
  const std::vector<int64_t>& results;  // of each lane; -1 where there is none
  const PathEnds<T>& ends;
  const DtwOutput<T>& out;
  std::vector<PathWalk> walks;

  int64_t width() const { return static_cast<int64_t>(results.size()); }

  __attribute__((noinline)) void start() {
    walks.resize(results.size());
    for (size_t lane = 0; lane < results.size(); ++lane) {
      if (results[lane] >= 0) {
        walks[lane].next = out.path_of(results[lane]);
        walks[lane].open_begin = out.options.open.begin;
        walks[lane].start(lanes.last_row[lane], ends.step[static_cast<int64_t>(lane)], lanes.last_step[lane] + 1);
      }
    }
  }

  // Goes back to step `step0`. `codes`: the step into cell (s, t) of a lane at ((t - step0) * rows + s) * width + lane.
  __attribute__((noinline)) void walk(int64_t step0, const uint8_t* codes) {
    for (int64_t lane = 0; lane < width(); ++lane) {
      PathWalk& at = walks[static_cast<size_t>(lane)];
      while (!at.finished() && at.t >= step0) {
        at.step(codes[((at.t - step0) * lanes.rows + at.s) * width() + lane]);
      }
    }
  }

  // Puts out the distances.
  __attribute__((noinline)) void finish() const {
    for (size_t lane = 0; lane < results.size(); ++lane) {
      if (results[lane] >= 0) {
        out.put(results[lane], ends.sum[static_cast<int64_t>(lane)], lanes.last_row[lane] + 1,
                lanes.last_step[lane] + 1, walks.empty() ? 0 : walks[lane].cells);
      }
    }
  }
};

}  // namespace scav::SCAV_LEVEL
