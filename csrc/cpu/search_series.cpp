// scav::nearest_series and scav::keogh_bounds on the CPU; schemas in scav_kernels/search/kernels.py.

#include <atomic>

#include "cpu/op.h"
#include "cpu/search.h"
#include "shared/dtw.h"

#define SCAV_KERNELS "cpu/search_series.inl"
#include "cpu/foreach_level.h"

namespace scav {
namespace {

Inputs check_series(const char* op, const Tensor& x, const Tensor& y, const std::optional<Tensor>& x_lengths,
                    const std::optional<Tensor>& y_lengths, const std::string& cost, std::optional<int64_t> band) {
  SCAV_CHECK_VALUE(cost != "cosine", op, ": expected cost 'euclidean' or 'sqeuclidean', got 'cosine'");
  Inputs inputs = check_inputs(op, x, y, x_lengths, y_lengths, cost, false);
  check_band(op, band);
  return inputs;
}

std::tuple<Tensor, Tensor, Tensor> nearest_series(const Tensor& x, const Tensor& y,
                                                  const std::optional<Tensor>& x_lengths,
                                                  const std::optional<Tensor>& y_lengths, std::string cost,
                                                  std::optional<int64_t> band, int64_t first_item, double rounding,
                                                  bool prune, const Tensor& distances, const Tensor& items) {
  constexpr const char* op = "nearest_series";
  const Inputs inputs = check_series(op, x, y, x_lengths, y_lengths, cost, band);
  SCAV_CHECK_VALUE(distances.dim() == 2 && distances.size(0) == inputs.batch_x() && distances.size(1) >= 1 &&
                       shape_of(distances) == shape_of(items),
                   op, ": expected distances and items (", inputs.batch_x(), ", k), got ", text_of(distances), " and ",
                   text_of(items));
  SCAV_CHECK_TYPE(distances.scalar_type() == inputs.x.scalar_type() && items.scalar_type() == kLong, op,
                  ": expected distances of dtype ", inputs.x.scalar_type(), " and items int64");
  SCAV_CHECK_VALUE(rounding > 0, op, ": expected rounding above 0, got ", rounding);
  Tensor nearest_distances = copy_of(distances), nearest_items = copy_of(items);
  SeriesCounts counts;
  if (!inputs.empty()) {
    SCAV_DISPATCH(inputs.x.scalar_type(), [&] {
      counts = SCAV_AT_LEVEL(nearest_series<scalar_t>)(inputs, band, {distances.size(1), first_item, rounding, prune},
                                                       nearest_distances.mutable_data_ptr<scalar_t>(),
                                                       nearest_items.mutable_data_ptr<int64_t>());
    });
  }
  Tensor where = new_empty({8}, kLong);
  int64_t* to = where.mutable_data_ptr<int64_t>();
  std::copy_n(counts.seen, 3, to);
  std::copy_n(counts.removed, 3, to + 3);
  to[6] = counts.scored;
  to[7] = counts.abandoned;
  return {nearest_distances, nearest_items, where};
}

Tensor keogh_bounds(const Tensor& x, const Tensor& y, const std::optional<Tensor>& x_lengths,
                    const std::optional<Tensor>& y_lengths, std::string cost, std::optional<int64_t> band) {
  const Inputs inputs = check_series("keogh_bounds", x, y, x_lengths, y_lengths, cost, band);
  Tensor out = inputs.new_result();
  if (!inputs.empty()) {
    SCAV_DISPATCH(out.scalar_type(),
                  [&] { SCAV_AT_LEVEL(keogh_bounds<scalar_t>)(inputs, band, out.mutable_data_ptr<scalar_t>()); });
    spread_nonfinite(inputs, out);
  }
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(scav, CPU, m) {
  m.impl("nearest_series", SCAV_BOX(&nearest_series));
  m.impl("keogh_bounds", SCAV_BOX(&keogh_bounds));
}

}  // namespace scav
