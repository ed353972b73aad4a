#include "cpu/layout.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

namespace scav {

namespace {

int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

// The widest panel that computes no more empty columns than the narrowest would.
int64_t panel_for(int64_t columns) {
  const int64_t narrow = round_up(columns, kNarrowPanel);
  if (narrow <= kPanel) {
    return narrow;
  }
  return narrow % kPanel == 0 ? kPanel : (narrow % (kPanel / 2) == 0 ? kPanel / 2 : kNarrowPanel);
}

void append(Layout& layout, Group group) {
  group.column = layout.columns;
  group.columns = round_up(group.steps * group.lanes, group.panel);
  layout.columns += group.columns;
  layout.groups.push_back(group);
}

}  // namespace

std::vector<int64_t> by_length(const int64_t* lengths, int64_t batch) {
  std::vector<int64_t> order(static_cast<size_t>(batch));
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(),
            [&](int64_t a, int64_t b) { return std::pair(lengths[a], a) < std::pair(lengths[b], b); });
  return order;
}

namespace {
// Puts `lanes` y's that follow each other in the order in a group.
Layout in_order(std::vector<int64_t> order, const int64_t* lengths, int64_t lanes) {
  Layout layout;
  layout.order = std::move(order);
  const auto batch = static_cast<int64_t>(layout.order.size());
  for (int64_t first = 0; first < batch; first += lanes) {
    const int64_t count = std::min(lanes, batch - first);
    int64_t longest = 0;
    for (int64_t lane = 0; lane < count; ++lane) {
      longest = std::max(longest, lengths[layout.order[static_cast<size_t>(first + lane)]]);
    }
    append(layout, {first, count, lanes, longest, panel_for(longest * lanes), 0, 0});
  }
  return layout;
}
}  // namespace

Layout interleave(const int64_t* lengths, int64_t batch, int64_t lanes) {
  return in_order(by_length(lengths, batch), lengths, lanes);
}

Layout interleave_pairs(const int64_t* x_lengths, const int64_t* y_lengths, int64_t batch, int64_t lanes) {
  std::vector<int64_t> order = by_length(y_lengths, batch);
  // As many groups with y's of about one length as there are such lengths, each with x's of about one length.
  const auto groups = static_cast<double>((batch + lanes - 1) / lanes);
  const int64_t run = static_cast<int64_t>(std::ceil(std::sqrt(groups))) * lanes;
  for (int64_t first = 0; first < batch; first += run) {
    std::stable_sort(order.begin() + first, order.begin() + std::min(first + run, batch),
                     [&](int64_t a, int64_t b) { return x_lengths[a] < x_lengths[b]; });
  }
  return in_order(std::move(order), y_lengths, lanes);
}

Layout one_by_one(const int64_t* lengths, int64_t batch) {
  Layout layout;
  layout.order.resize(static_cast<size_t>(batch));
  std::iota(layout.order.begin(), layout.order.end(), 0);
  for (int64_t b = 0; b < batch; ++b) {
    append(layout, {b, 1, 1, lengths[b], panel_for(lengths[b]), 0, 0});
  }
  return layout;
}

Layout alone(int64_t index, int64_t length) {
  Layout layout;
  layout.order = {index};
  append(layout, {0, 1, 1, length, kNarrowPanel, 0, 0});
  return layout;
}

CheckpointPlan plan_checkpoints(int64_t rows, int64_t steps, int64_t lanes, int64_t panel_steps,
                                const KeptBytes& kept) {
  // Below this, running the recursion a second time costs more than reading its cells back from the last-level cache,
  // or of few features from the second-level cache.
  const int64_t max_whole = int64_t(kept.few_features ? 1 : 8) << 20;
  const int64_t whole = round_up(steps, panel_steps) * rows * lanes * kept.cell;
  if (whole <= max_whole || steps <= panel_steps) {
    return {round_up(steps, panel_steps), 1, whole + rows * lanes * kept.state};
  }
  const double balanced = std::sqrt(static_cast<double>(steps * kept.state) / static_cast<double>(kept.cell));
  const int64_t length = round_up(static_cast<int64_t>(balanced), panel_steps);
  const int64_t checkpoints = (steps + length - 1) / length;
  return {length, checkpoints, rows * lanes * (length * kept.cell + (checkpoints + 1) * kept.state)};
}

}  // namespace scav
