// scav::aligned_bounds, scav::aligned_nearest, scav::aligned_survivors and scav::listed_interpolated_euclidean on the
// CPU; schemas in scav_kernels/search/kernels.py.

#include "cpu/stored_inputs.h"

#define SCAV_KERNELS "cpu/search.inl"
#include "cpu/foreach_level.h"

namespace scav {
namespace {

void check_level(const char* op, const Tensor& x, const Tensor& panels, const Tensor& limits) {
  SCAV_CHECK_VALUE(x.dim() == 3 && panels.dim() == 4 && panels.size(1) == x.size(1) && panels.size(2) == x.size(2) &&
                       panels.size(3) == kBoundLanes && limits.dim() == 1 && limits.size(0) == x.size(0),
                   op, ": expected x (Q, S, R), panels (P, S, R, ", kBoundLanes, ") and limits (Q,), got ", text_of(x),
                   ", ", text_of(panels), " and ", text_of(limits));
  SCAV_CHECK_TYPE(panels.scalar_type() == x.scalar_type() && limits.scalar_type() == x.scalar_type(), op,
                  ": expected x, panels and limits of one dtype");
}

Tensor aligned_bounds(const Tensor& x, const Tensor& panels, const Tensor& limits, bool squared) {
  constexpr const char* op = "aligned_bounds";
  leave_threads_behind_after_fork();
  check_level(op, x, panels, limits);
  const Tensor rows = to_contiguous(x), columns = to_contiguous(panels), limit_rows = to_contiguous(limits);
  Tensor out = new_empty({x.size(0), panels.size(0) * kBoundLanes}, x.scalar_type());
  if (out.numel() == 0) {
    return out;
  }
  SCAV_DISPATCH(x.scalar_type(), [&] {
    const BoundLevel<scalar_t> level{rows.const_data_ptr<scalar_t>(), columns.const_data_ptr<scalar_t>(), x.size(1),
                                     x.size(2)};
    SCAV_AT_LEVEL(aligned_sums<scalar_t>)
    (level, x.size(0), panels.size(0), limit_rows.const_data_ptr<scalar_t>(), squared,
     out.mutable_data_ptr<scalar_t>());
  });
  return out;
}

std::tuple<Tensor, Tensor> aligned_nearest(const Tensor& x, const Tensor& panels, int64_t count, int64_t first_item,
                                           const Tensor& bounds, const Tensor& items, bool squared) {
  constexpr const char* op = "aligned_nearest";
  leave_threads_behind_after_fork();
  SCAV_CHECK_VALUE(
      bounds.dim() == 2 && bounds.size(1) >= 1 && shape_of(bounds) == shape_of(items) && items.scalar_type() == kLong,
      op, ": expected bounds and items (Q, k), items int64, got ", text_of(bounds), " and ", text_of(items),
      " of dtype ", items.scalar_type());
  check_level(op, x, panels, torch::stable::select(bounds, 1, 0));
  SCAV_CHECK_VALUE(count >= 0 && count <= panels.size(0) * kBoundLanes, op, ": expected count from 0 to ",
                   panels.size(0) * kBoundLanes, ", got ", count);
  const Tensor rows = to_contiguous(x), columns = to_contiguous(panels);
  Tensor nearest_bounds = copy_of(bounds), nearest_items = copy_of(items);
  if (x.size(0) == 0 || count == 0) {
    return {nearest_bounds, nearest_items};
  }
  SCAV_DISPATCH(x.scalar_type(), [&] {
    const BoundLevel<scalar_t> level{rows.const_data_ptr<scalar_t>(), columns.const_data_ptr<scalar_t>(), x.size(1),
                                     x.size(2)};
    SCAV_AT_LEVEL(aligned_nearest<scalar_t>)
    (level, x.size(0), count, first_item, bounds.size(1), squared, nearest_bounds.mutable_data_ptr<scalar_t>(),
     nearest_items.mutable_data_ptr<int64_t>());
  });
  return {nearest_bounds, nearest_items};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> aligned_survivors(const std::vector<Tensor>& x,
                                                             const std::vector<Tensor>& panels, const Tensor& limits,
                                                             const Tensor& skip, bool squared) {
  constexpr const char* op = "aligned_survivors";
  leave_threads_behind_after_fork();
  SCAV_CHECK_VALUE(!x.empty() && x.size() == panels.size(), op, ": expected as many x as panels, and at least one");
  std::vector<Tensor> rows, columns;
  for (size_t number = 0; number < x.size(); ++number) {
    check_level(op, x[number], panels[number], limits);
    SCAV_CHECK_VALUE(panels[number].size(0) == panels[0].size(0), op, ": expected equally many panels at each level");
    rows.push_back(to_contiguous(x[number]));
    columns.push_back(to_contiguous(panels[number]));
  }
  const int64_t batch = limits.size(0), count = panels[0].size(0), lanes = count * kBoundLanes;
  SCAV_CHECK_VALUE(skip.scalar_type() == kBool && skip.dim() == 2 && skip.size(0) == batch && skip.size(1) == lanes, op,
                   ": expected skip (", batch, ", ", lanes, ") bool, got ", text_of(skip), " of dtype ",
                   skip.scalar_type());
  const Tensor limit_rows = to_contiguous(limits), skipped = to_contiguous(skip);
  Tensor removed = new_zeros({static_cast<int64_t>(x.size())}, kLong), found_x, found_y, bounds;
  SCAV_DISPATCH(limits.scalar_type(), [&] {
    std::vector<BoundLevel<scalar_t>> levels;
    for (size_t number = 0; number < rows.size(); ++number) {
      levels.push_back({rows[number].const_data_ptr<scalar_t>(), columns[number].const_data_ptr<scalar_t>(),
                        rows[number].size(1), rows[number].size(2)});
    }
    std::vector<Survivor<scalar_t>> found;
    if (batch > 0) {
      found = SCAV_AT_LEVEL(aligned_survivors<scalar_t>)(levels, batch, count, limit_rows.const_data_ptr<scalar_t>(),
                                                         skipped.const_data_ptr<bool>(), squared,
                                                         removed.mutable_data_ptr<int64_t>());
    }
    const auto size = static_cast<int64_t>(found.size());
    found_x = new_empty({size}, kLong);
    found_y = new_empty({size}, kLong);
    bounds = new_empty({size}, limits.scalar_type());
    int64_t *to_x = found_x.mutable_data_ptr<int64_t>(), *to_y = found_y.mutable_data_ptr<int64_t>();
    scalar_t* to_bounds = bounds.mutable_data_ptr<scalar_t>();
    for (size_t i = 0; i < found.size(); ++i) {
      to_x[i] = found[i].x;
      to_y[i] = found[i].y;
      to_bounds[i] = found[i].bound;
    }
  });
  return {found_x, found_y, bounds, removed};
}

Tensor listed_interpolated_euclidean(const Tensor& x, const Tensor& y, const std::optional<Tensor>& x_lengths,
                                     const std::optional<Tensor>& y_lengths, const Tensor& pairs_x,
                                     const Tensor& pairs_y, const Tensor& limits, bool squared, std::string resample) {
  constexpr const char* op = "listed_interpolated_euclidean";
  leave_threads_behind_after_fork();
  check_pairs(op, x, y, x_lengths, y_lengths, false);
  check_cpu(op, "x", x);
  SCAV_CHECK_VALUE(resample == "x" || resample == "y" || resample == "shorter", op,
                   ": expected resample 'x', 'y' or 'shorter', got '", resample, "'");
  const StoredSteps stored_x(op, "x_lengths", x, x_lengths), stored_y(op, "y_lengths", y, y_lengths);
  const Tensor first = check_indices(op, "pairs_x", pairs_x, x.size(0));
  const Tensor second = check_indices(op, "pairs_y", pairs_y, y.size(0));
  const ScalarType dtype = accumulation_dtype(x);
  SCAV_CHECK_VALUE(
      shape_of(pairs_x) == shape_of(pairs_y) && shape_of(limits) == shape_of(pairs_x) && limits.scalar_type() == dtype,
      op, ": expected pairs_x, pairs_y and limits of one shape (P,), limits of dtype ", dtype);
  const Tensor limit_rows = to_contiguous(limits);
  Tensor out = new_empty(shape_of(pairs_x), dtype);
  SCAV_DISPATCH(dtype, [&] {
    const PairList<scalar_t> pairs{first.const_data_ptr<int64_t>(), second.const_data_ptr<int64_t>(),
                                   limit_rows.const_data_ptr<scalar_t>(), first.numel()};
    SCAV_AT_LEVEL(listed_distances<scalar_t>)
    (stored_x.rows<scalar_t>(), stored_y.rows<scalar_t>(), pairs, squared, resample, out.mutable_data_ptr<scalar_t>());
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(scav, CPU, m) {
  m.impl("aligned_bounds", SCAV_BOX(&aligned_bounds));
  m.impl("aligned_nearest", SCAV_BOX(&aligned_nearest));
  m.impl("aligned_survivors", SCAV_BOX(&aligned_survivors));
  m.impl("listed_interpolated_euclidean", SCAV_BOX(&listed_interpolated_euclidean));
}

}  // namespace scav
