// scav::aligned_bounds, scav::aligned_nearest, scav::aligned_survivors and scav::listed_interpolated_euclidean on the
// CPU; schemas in scav_kernels/search/kernels.py.

#include "cpu/stored_inputs.h"

#define SCAV_KERNELS "cpu/search.inl"
#include "cpu/foreach_level.h"

namespace scav {
namespace {

void check_level(const char* op, const at::Tensor& x, const at::Tensor& panels, const at::Tensor& limits) {
  TORCH_CHECK_VALUE(x.dim() == 3 && panels.dim() == 4 && panels.size(1) == x.size(1) && panels.size(2) == x.size(2) &&
                        panels.size(3) == kBoundLanes && limits.dim() == 1 && limits.size(0) == x.size(0),
                    op, ": expected x (Q, S, R), panels (P, S, R, ", kBoundLanes, ") and limits (Q,), got ",
                    shape_of(x), ", ", shape_of(panels), " and ", shape_of(limits));
  TORCH_CHECK_TYPE(panels.scalar_type() == x.scalar_type() && limits.scalar_type() == x.scalar_type(), op,
                   ": expected x, panels and limits of one dtype");
}

at::Tensor aligned_bounds(const at::Tensor& x, const at::Tensor& panels, const at::Tensor& limits, bool squared) {
  constexpr const char* op = "aligned_bounds";
  leave_threads_behind_after_fork();
  check_level(op, x, panels, limits);
  const at::Tensor rows = x.contiguous(), columns = panels.contiguous(), limit_rows = limits.contiguous();
  at::Tensor out = at::empty({x.size(0), panels.size(0) * kBoundLanes}, x.options());
  if (out.numel() == 0) {
    return out;
  }
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), op, [&] {
    const BoundLevel<scalar_t> level{rows.const_data_ptr<scalar_t>(), columns.const_data_ptr<scalar_t>(), x.size(1),
                                     x.size(2)};
    SCAV_AT_LEVEL(aligned_sums<scalar_t>)
    (level, x.size(0), panels.size(0), limit_rows.const_data_ptr<scalar_t>(), squared,
     out.mutable_data_ptr<scalar_t>());
  });
  return out;
}

std::tuple<at::Tensor, at::Tensor> aligned_nearest(const at::Tensor& x, const at::Tensor& panels, int64_t count,
                                                   int64_t first_item, const at::Tensor& bounds,
                                                   const at::Tensor& items, bool squared) {
  constexpr const char* op = "aligned_nearest";
  leave_threads_behind_after_fork();
  TORCH_CHECK_VALUE(
      bounds.dim() == 2 && bounds.size(1) >= 1 && bounds.sizes() == items.sizes() && items.scalar_type() == at::kLong,
      op, ": expected bounds and items (Q, k), items int64, got ", shape_of(bounds), " and ", shape_of(items),
      " of dtype ", items.scalar_type());
  check_level(op, x, panels, bounds.select(1, 0));
  TORCH_CHECK_VALUE(count >= 0 && count <= panels.size(0) * kBoundLanes, op, ": expected count from 0 to ",
                    panels.size(0) * kBoundLanes, ", got ", count);
  const at::Tensor rows = x.contiguous(), columns = panels.contiguous();
  const auto contiguous = at::MemoryFormat::Contiguous;
  at::Tensor nearest_bounds = bounds.clone(contiguous), nearest_items = items.clone(contiguous);
  if (x.size(0) == 0 || count == 0) {
    return {nearest_bounds, nearest_items};
  }
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), op, [&] {
    const BoundLevel<scalar_t> level{rows.const_data_ptr<scalar_t>(), columns.const_data_ptr<scalar_t>(), x.size(1),
                                     x.size(2)};
    SCAV_AT_LEVEL(aligned_nearest<scalar_t>)
    (level, x.size(0), count, first_item, bounds.size(1), squared, nearest_bounds.mutable_data_ptr<scalar_t>(),
     nearest_items.mutable_data_ptr<int64_t>());
  });
  return {nearest_bounds, nearest_items};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> aligned_survivors(at::TensorList x, at::TensorList panels,
                                                                             const at::Tensor& limits,
                                                                             const at::Tensor& skip, bool squared) {
  constexpr const char* op = "aligned_survivors";
  leave_threads_behind_after_fork();
  TORCH_CHECK_VALUE(!x.empty() && x.size() == panels.size(), op, ": expected as many x as panels, and at least one");
  std::vector<at::Tensor> rows, columns;
  for (size_t number = 0; number < x.size(); ++number) {
    check_level(op, x[number], panels[number], limits);
    TORCH_CHECK_VALUE(panels[number].size(0) == panels[0].size(0), op, ": expected equally many panels at each level");
    rows.push_back(x[number].contiguous());
    columns.push_back(panels[number].contiguous());
  }
  const int64_t batch = limits.size(0), count = panels[0].size(0), lanes = count * kBoundLanes;
  TORCH_CHECK_VALUE(
      skip.scalar_type() == at::kBool && skip.dim() == 2 && skip.size(0) == batch && skip.size(1) == lanes, op,
      ": expected skip (", batch, ", ", lanes, ") bool, got ", shape_of(skip), " of dtype ", skip.scalar_type());
  const at::Tensor limit_rows = limits.contiguous(), skipped = skip.contiguous();
  const at::TensorOptions integers = at::dtype(at::kLong);
  at::Tensor removed = at::zeros({static_cast<int64_t>(x.size())}, integers), found_x, found_y, bounds;
  AT_DISPATCH_FLOATING_TYPES(limits.scalar_type(), op, [&] {
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
    found_x = at::empty({size}, integers);
    found_y = at::empty({size}, integers);
    bounds = at::empty({size}, limits.options());
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

at::Tensor listed_interpolated_euclidean(const at::Tensor& x, const at::Tensor& y,
                                         const std::optional<at::Tensor>& x_lengths,
                                         const std::optional<at::Tensor>& y_lengths, const at::Tensor& pairs_x,
                                         const at::Tensor& pairs_y, const at::Tensor& limits, bool squared,
                                         std::string resample) {
  constexpr const char* op = "listed_interpolated_euclidean";
  leave_threads_behind_after_fork();
  check_pairs(op, x, y, x_lengths, y_lengths, false);
  check_cpu(op, "x", x);
  TORCH_CHECK_VALUE(resample == "x" || resample == "y" || resample == "shorter", op,
                    ": expected resample 'x', 'y' or 'shorter', got '", resample, "'");
  const StoredSteps stored_x(op, "x_lengths", x, x_lengths), stored_y(op, "y_lengths", y, y_lengths);
  const at::Tensor first = check_indices(op, "pairs_x", pairs_x, x.size(0));
  const at::Tensor second = check_indices(op, "pairs_y", pairs_y, y.size(0));
  const at::ScalarType dtype = accumulation_dtype(x);
  TORCH_CHECK_VALUE(
      pairs_x.sizes() == pairs_y.sizes() && limits.sizes() == pairs_x.sizes() && limits.scalar_type() == dtype, op,
      ": expected pairs_x, pairs_y and limits of one shape (P,), limits of dtype ", dtype);
  const at::Tensor limit_rows = limits.contiguous();
  at::Tensor out = at::empty(pairs_x.sizes(), limits.options());
  AT_DISPATCH_FLOATING_TYPES(dtype, op, [&] {
    const PairList<scalar_t> pairs{first.const_data_ptr<int64_t>(), second.const_data_ptr<int64_t>(),
                                   limit_rows.const_data_ptr<scalar_t>(), first.numel()};
    SCAV_AT_LEVEL(listed_distances<scalar_t>)
    (stored_x.rows<scalar_t>(), stored_y.rows<scalar_t>(), pairs, squared, resample, out.mutable_data_ptr<scalar_t>());
  });
  return out;
}

}  // namespace

TORCH_LIBRARY_IMPL(scav, CPU, m) {
  m.impl("aligned_bounds", &aligned_bounds);
  m.impl("aligned_nearest", &aligned_nearest);
  m.impl("aligned_survivors", &aligned_survivors);
  m.impl("listed_interpolated_euclidean", &listed_interpolated_euclidean);
}

}  // namespace scav
