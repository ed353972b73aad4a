#pragma once
// Divides the recursions over the pairs of a batch, and its groups of y's, among the threads.

#include <cstdint>
#include <functional>
#include <vector>

#include "cpu/layout.h"

namespace scav {

// Calls f(group, first, end) for every recursion: of a group with the x's number [first, end) of `order`, up to
// `vectors` of them.
void for_each_recursion(const std::vector<Group>& groups, const std::vector<int64_t>& order, const int64_t* x_lengths,
                        int64_t vectors, const std::function<void(const Group&, int64_t, int64_t)>& f);

// The `order` of pairs that are not of every x: a group's recursion has x's of its own, and counts as one x.
inline const std::vector<int64_t> kOwnX{0};

// Calls f(group, part) for every group of y's. A thread owns whole groups, so that their gradients need no lock.
void for_each_group(const std::vector<Group>& groups, const std::function<void(const Group&, int64_t)>& f);

}  // namespace scav
