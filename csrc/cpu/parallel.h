#pragma once
// Splits work over torch's threads. Runs with equally many threads split it in the same way, so that their results are
// bit-identical.

#include <cstdint>
#include <functional>
#include <vector>

#include "shared/interrupt.h"

namespace scav {

// Threads that a parallel region started here would get: 1 inside another one.
int64_t thread_count();

// Every op calls this first. A forked child has none of its parent's threads, and GNU OpenMP would wait for them
// forever: there, torch is set to one thread, as it does itself in the workers of a DataLoader.
void leave_threads_behind_after_fork();

// Runs range(begin, end) for ranges that make up [0, count), on the threads, which take the floating-point settings of
// the caller. `range` throws nothing.
void run_ranges(int64_t count, const std::function<void(int64_t, int64_t)>& range);

// Runs part(0) … part(parts - 1) on the threads. An exception in one part ends the others at their next poll().
void run_parts(int64_t parts, const std::function<void(int64_t)>& part);

// Contiguous ranges of about equal weight: range i is [bounds[i], bounds[i + 1]).
std::vector<int64_t> split_by_weight(const std::vector<double>& weights, int64_t parts);

}  // namespace scav
