// The pairs of a batch that are computed one by one, and the rule that chooses them.
// Included once per SIMD level (foreach_level.h): no include guard.

namespace scav::SCAV_LEVEL {

template <class T>
std::vector<PairIndex> all_pairs(const Sequences<T>& x, const Sequences<T>& y, bool paired) {
  std::vector<PairIndex> pairs;
  for (int64_t i = 0; i < x.batch; ++i) {
    for (int64_t j = paired ? i : 0; j < (paired ? i + 1 : y.batch); ++j) {
      pairs.push_back({i, j, paired ? i : i * y.batch + j, x.lengths[i], y.lengths[j]});
    }
  }
  return pairs;
}

// True where the y's, or pairs of their own, fill so few lanes of a recursion over pairs (sweep.inl) that rows fill
// more. Shorter sequences would leave most rows of a strip empty.
template <class T>
bool suits_wavefront(const GridSizes& sizes) {
  constexpr int64_t kMinSteps = 32;
  return 2 * sizes.ys <= kWidth<T> && std::min(sizes.rows, sizes.steps) >= kMinSteps;
}

// Calls f(pair) for every pair: on all threads, one pair after the other, or a thread to a pair where there are many.
template <class T, class F>
void for_each_pair_index(const std::vector<PairIndex>& pairs, const F& f) {
  const int64_t parts = thread_count(), count = static_cast<int64_t>(pairs.size());
  int64_t rows = 0;
  for (const PairIndex& pair : pairs) {
    rows = std::max(rows, pair.n);
  }
  // Threads of one pair wait for each other's first steps.
  if (parts == 1 || (count < 4 * parts && rows >= 4 * parts * kStripRows<T>)) {
    std::for_each(pairs.begin(), pairs.end(), f);
    return;
  }
  std::atomic<int64_t> next{0};
  run_parts(std::min(parts, count), [&](int64_t) {
    for (int64_t index = next++; index < count; index = next++) {
      f(pairs[static_cast<size_t>(index)]);
    }
  });
}

// y's packed for products, each by itself.
template <class T>
struct ProductPairs {
  const Inputs& inputs;
  Sequences<T> x, y;
  Packed<T> packed;
  Buffer<uint32_t> x_words;  // the x's where they are multiplied as bfloat16

  ProductPairs(const Inputs& given, bool with_rows)
      : inputs(given), x(given.sequences_x<T>()), y(given.sequences_y<T>()) {
    packed = pack<T>(y, one_by_one(y.lengths, y.batch), with_rows, inputs.in_bfloat16);
    if (inputs.in_bfloat16) {
      x_words = to_words<T>(x);
    }
  }
  ProductPairs(const ProductPairs&) = delete;

  GroupCosts<T> source(const PairIndex& pair) const {
    return {x, packed, packed.layout.groups[static_cast<size_t>(pair.y)], inputs.cost, pair.x, x_words.data()};
  }
};

// Calls f(source of costs, pair) for every pair.
template <class T, class F>
void for_each_wavefront_pair(const Inputs& inputs, std::optional<int64_t> band, const F& f) {
  const Sequences<T> x = inputs.sequences_x<T>(), y = inputs.sequences_y<T>();
  const std::vector<PairIndex> pairs = all_pairs(x, y, inputs.paired);
  if (x.dim <= kMaxDifferenceFeatures) {
    for_each_pair_index<T>(pairs,
                           [&](const PairIndex& pair) { f(DifferenceCosts<T>(inputs.cost, x, y, pair, band), pair); });
    return;
  }
  const ProductPairs<T> products(inputs, false);
  for_each_pair_index<T>(pairs, [&](const PairIndex& pair) {
    f(TileCosts<T, GroupCosts<T>>{products.source(pair), {pair.n, pair.m, band}}, pair);
  });
}

template <class T, class F>
void for_each_wavefront_pair(const CostInputs& costs, std::optional<int64_t> band, const F& f) {
  std::vector<PairIndex> pairs;
  for (int64_t pair = 0; pair < costs.pairs(); ++pair) {
    pairs.push_back({pair / costs.batch_y(), pair % costs.batch_y(), pair, costs.length_x(pair), costs.length_y(pair)});
  }
  for_each_pair_index<T>(pairs, [&](const PairIndex& pair) {
    f(TileCosts<T, MatrixCosts<T>>{matrix_costs<T>(costs, pair.result), {pair.n, pair.m, band}}, pair);
  });
}

}  // namespace scav::SCAV_LEVEL
