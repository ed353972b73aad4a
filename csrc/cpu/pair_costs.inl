// Ground costs of pairs of their own, x number i against y number i, and their adjoint. Nothing is shared between
// pairs, so y is packed a few panels at a time, while their costs are computed. Included once per SIMD level
// (foreach_level.h): no include guard.

namespace scav::SCAV_LEVEL {

// Destination of one pair's gradient: (N, D) and (M, D), or null for a side that needs none.
template <class T>
struct PairAdjoint {
  T *dx, *dy;
};

// What the pairs of a recursion pack, some panels of one y after the other.
template <class T>
struct PairScratch {
  Packed<T> packed;  // kPanel columns
  PackScratch<T> rows;
  Buffer<uint32_t> x_words;  // (N, words_of(D)) of x number x_in_words, where rows are multiplied as bfloat16
  int64_t x_in_words = -1;
  Buffer<T> dy, dy_weights;  // (kPanel, D), (kPanel,): the panels' part of an Adjoint

  PairScratch(const Sequences<T>& x, const Sequences<T>& y, bool in_bfloat16, bool with_gradients)
      : packed(packed_room(y, alone(0, y.steps), kPanel, with_gradients, in_bfloat16)), rows(y.dim, in_bfloat16) {
    if (in_bfloat16) {
      x_words = Buffer<uint32_t>(x.steps * words_of(x.dim));
    }
    if (with_gradients) {
      dy = Buffer<T>(kPanel * y.dim);
      dy_weights = Buffer<T>(kPanel);
    }
  }
};

// Costs of the steps of x number `b` (rows) against those of y number `b`.
template <class T>
class PairCosts {
 public:
  static constexpr bool kForbids = false;

  PairCosts(std::shared_ptr<PairScratch<T>> scratch, const Inputs& inputs, const Sequences<T>& x, const Sequences<T>& y,
            int64_t b)
      : scratch_(std::move(scratch)),
        inputs_(inputs),
        x_(x),
        y_(y),
        b_(b),
        group_(alone(b, y.lengths[b]).groups[0]),
        measured_(inputs.measured) {}

  int64_t rows() const { return x_.lengths[b_]; }
  int64_t steps() const { return group_.steps; }
  int64_t panels() const { return group_.panels(); }
  int64_t columns() const { return group_.columns; }
  // Of a pair that is measured.
  bool is_nonfinite() const { return x_.nonfinite[b_] + y_.nonfinite[b_] != 0; }

  // As GroupCosts::costs. The first costs of a pair measure it.
  void costs(int64_t panel0, int64_t panel1, int64_t row0, int64_t row1, T* out, int64_t stride) const {
    if (!measured_) {
      measure_pair<T>(inputs_, b_);
      measured_ = true;
    }
    for_panels(panel0, panel1, [&](const GroupCosts<T>& source, int64_t panel, int64_t column) {
      source.costs(panel, panel + 1, row0, row1, out + column, stride);
    });
  }

  // As GroupCosts::adjoint, but adds the whole gradient of y.
  void adjoint(int64_t panel0, int64_t panel1, int64_t row0, int64_t row1, const T* costs, T* weights, int64_t stride,
               const PairAdjoint<T>& to) const {
    const PairScratch<T>& scratch = *scratch_;
    const int64_t dim = x_.dim;
    for_panels(panel0, panel1, [&](const GroupCosts<T>& source, int64_t panel, int64_t column) {
      const int64_t width = source.group.panel, first = panel * width;
      std::fill_n(scratch.dy.data(), width * dim, T(0));
      std::fill_n(scratch.dy_weights.data(), width, T(0));
      source.adjoint(panel, panel + 1, row0, row1, costs + column, weights + column, stride,
                     {to.dx, to.dy ? scratch.dy.data() : nullptr, scratch.dy_weights.data()});
      for (int64_t j = 0; to.dy != nullptr && j < std::min(width, steps() - first); ++j) {
        const T *row = y_.row(b_, first + j), *gathered = scratch.dy.data() + j * dim;
        T* dy = to.dy + (first + j) * dim;
        for (int64_t k = 0; k < dim; ++k) {
          dy[k] += gathered[k] + scratch.dy_weights[j] * row[k];
        }
      }
    });
  }

 private:
  // Calls f(GroupCosts, panel, column) for the panels from `panel0` to `panel1`, packed: up to four of them as one wide
  // `panel` of the GroupCosts, which begins `column` columns after `panel0`.
  template <class F>
  void for_panels(int64_t panel0, int64_t panel1, const F& f) const {
    PairScratch<T>& scratch = *scratch_;
    scratch.packed.layout.order[0] = b_;
    for (int64_t at = panel0, count = 0; at < panel1; at += count) {
      count = kPanel / kNarrowPanel;
      // A panel begins at a multiple of its columns.
      while (at % count != 0 || at + count > panel1) {
        count /= 2;
      }
      Group group = group_;
      group.panel = count * kNarrowPanel;
      group.column = -at * kNarrowPanel;  // the scratch begins with this panel
      const int64_t panel = at / count;
      pack_panel(scratch.packed, group, panel, scratch.rows);
      f(GroupCosts<T>{x_, scratch.packed, group, inputs_.cost, b_, words_of_x()}, panel, (at - panel0) * kNarrowPanel);
    }
  }

  // Words of all x's, of which those of x number b_ are there; null where there are none.
  const uint32_t* words_of_x() const {
    PairScratch<T>& scratch = *scratch_;
    if (scratch.x_words.data() == nullptr) {
      return nullptr;
    }
    const int64_t words = words_of(x_.dim);
    for (int64_t s = 0; s < rows() && scratch.x_in_words != b_; ++s) {
      to_words<T>(x_.row(b_, s), x_.dim, scratch.x_words.data() + s * words);
    }
    scratch.x_in_words = b_;
    return scratch.x_words.data() - b_ * x_.steps * words;
  }

  std::shared_ptr<PairScratch<T>> scratch_;
  const Inputs& inputs_;
  const Sequences<T>&x_, &y_;
  int64_t b_;
  Group group_;
  mutable bool measured_;
};

}  // namespace scav::SCAV_LEVEL
