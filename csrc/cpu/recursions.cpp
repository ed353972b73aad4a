#include "cpu/recursions.h"

#include <algorithm>

#include "cpu/parallel.h"

namespace scav {

void for_each_recursion(const std::vector<Group>& groups, const std::vector<int64_t>& order, const int64_t* x_lengths,
                        int64_t vectors, const std::function<void(const Group&, int64_t, int64_t)>& f) {
  const int64_t parts = thread_count(), xs = static_cast<int64_t>(order.size());
  const int64_t recursions = (xs + vectors - 1) / vectors;  // of one group
  // Tasks are a group against a part of the x's: small enough to balance, few enough to list.
  const int64_t x_parts = std::clamp<int64_t>(16 * parts / static_cast<int64_t>(groups.size()), 1, recursions);
  const auto first_of = [&](int64_t x_part) { return std::min(recursions * x_part / x_parts * vectors, xs); };
  std::vector<double> weights;
  for (const Group& group : groups) {
    for (int64_t x_part = 0; x_part < x_parts; ++x_part) {
      int64_t rows = 0;
      for (int64_t at = first_of(x_part); at < first_of(x_part + 1); ++at) {
        rows += x_lengths[order[static_cast<size_t>(at)]];
      }
      weights.push_back(static_cast<double>(group.steps * rows));
    }
  }
  const auto bounds = split_by_weight(weights, parts);
  run_parts(parts, [&](int64_t part) {
    for (int64_t task = bounds[static_cast<size_t>(part)]; task < bounds[static_cast<size_t>(part) + 1]; ++task) {
      const int64_t x_part = task % x_parts, end = first_of(x_part + 1);
      for (int64_t first = first_of(x_part); first < end; first += vectors) {
        f(groups[static_cast<size_t>(task / x_parts)], first, std::min(first + vectors, end));
      }
    }
  });
}

void for_each_group(const std::vector<Group>& groups, const std::function<void(const Group&, int64_t)>& f) {
  std::vector<double> weights;
  for (const Group& group : groups) {
    weights.push_back(static_cast<double>(group.steps));
  }
  const int64_t parts = thread_count();
  const auto bounds = split_by_weight(weights, parts);
  run_parts(parts, [&](int64_t part) {
    for (int64_t g = bounds[static_cast<size_t>(part)]; g < bounds[static_cast<size_t>(part) + 1]; ++g) {
      f(groups[static_cast<size_t>(g)], part);
    }
  });
}

}  // namespace scav
