// Tiles of pairs, their products by the library, and the two products of the adjoint.

#include <torch/csrc/stable/ops.h>

#include "cuda/aten.h"
#include "cuda/inputs.h"
#include "cuda/rows.h"
#include "cuda/sweep_shape.h"

namespace scav::device {

namespace {

CellKind kind_of(Cost cost) {
  return cost == Cost::euclidean     ? CellKind::euclidean
         : cost == Cost::sqeuclidean ? CellKind::sqeuclidean
                                     : CellKind::cosine;
}

// Place of a tile in the batch, and of the rows of its part.
template <class T>
struct Tile {
  Costs<T> costs;
  int64_t x0, x1, y0, y1;
  int64_t height;         // of a part; the last may be lower
  Tensor x_rows, y_rows;  // (x's height, D), (y's M, D) or (M y's, D); (pairs, height, D), (pairs, M, D) if paired

  int64_t high() const { return x1 - x0; }
  int64_t wide() const { return y1 - y0; }
};

template <class T>
Costs<T> describe(const DeviceInputs& inputs) {
  Costs<T> costs{};
  costs.kind = kind_of(inputs.cost);
  costs.batch_y = inputs.batch_y();
  costs.paired = inputs.paired;
  costs.steps_x = inputs.steps_x();
  costs.steps_y = inputs.steps_y();
  costs.end = static_cast<int>(inputs.steps_x());
  costs.x_lengths = lengths_or_null(inputs.x_lengths);
  costs.y_lengths = lengths_or_null(inputs.y_lengths);
  costs.x_norms = inputs.x_norms.const_data_ptr<T>();
  costs.y_norms = inputs.y_norms.const_data_ptr<T>();
  costs.x_nonfinite = inputs.x_nonfinite.const_data_ptr<T>();
  costs.y_nonfinite = inputs.y_nonfinite.const_data_ptr<T>();
  costs.x = rows_of(inputs.x);
  costs.y = rows_of(inputs.y);
  return costs;
}

// Address of row 0, from which kernels count rows, for rows that begin `elements` after it.
template <class T>
T* row_zero(T* rows, int64_t elements) {
  return reinterpret_cast<T*>(reinterpret_cast<uintptr_t>(rows) - static_cast<uintptr_t>(elements) * sizeof(T));
}

// Brings the products of a part into `cells`.
template <class T>
void multiply_part(const DeviceInputs& inputs, Order order, int64_t number, Tensor& cells, Tile<T>& tile) {
  const int64_t m = inputs.steps_y(), dim = inputs.dim(), high = tile.high(), wide = tile.wide();
  const int64_t begin = number * tile.height, rows = std::min(tile.height, inputs.steps_x() - begin);
  const Tensor x = narrow(narrow(inputs.x, 0, tile.x0, high), 1, begin, rows);
  Tensor products;
  if (inputs.paired) {
    tile.x_rows = x;
    products = torch::stable::view(narrow(cells, 0, 0, high * rows * m), Shape{high, rows, m});
    multiply(products, x, torch::stable::transpose(tile.y_rows, 1, 2));
  } else {
    // Only a tile of one pair has parts.
    tile.x_rows = torch::stable::view(x, Shape{high * rows, dim});
    products = torch::stable::view(narrow(cells, 0, 0, high * rows * wide * m), Shape{high * rows, wide * m});
    multiply(products, tile.x_rows, torch::stable::transpose(tile.y_rows, 0, 1));
  }
  Costs<T>& costs = tile.costs;
  costs.stride =
      order == Order::by_step ? Strides{rows * m * wide, 1, m * wide, wide} : Strides{rows * m * wide, m, m * wide, 1};
  costs.cells = row_zero(cells.const_data_ptr<T>(), begin * costs.stride.s);
  costs.begin = static_cast<int>(begin);
  costs.end = static_cast<int>(begin + rows);
}

template <class T, class F>
void visit_tiles(const DeviceInputs& inputs, const OnDevice& on, Order order, const Needs& beside, const F& f) {
  const int64_t n = inputs.steps_x(), m = inputs.steps_y(), dim = inputs.dim();
  const int64_t end_y = inputs.paired ? 1 : inputs.batch_y();
  const auto bytes = [&](int64_t pairs, int64_t rows) {
    return pairs * rows * m * int64_t(sizeof(T)) + beside.bytes(pairs, rows);
  };
  const Extent extent = within(on.scratch_bytes, {inputs.batch_x(), end_y, n}, {bytes, beside.unit});
  Tensor cells = inputs.new_empty({extent.x * extent.y * extent.rows * m});
  Tile<T> tile{describe<T>(inputs), 0, 0, 0, 0, extent.rows, {}, {}};
  Costs<T>& costs = tile.costs;
  for (tile.y0 = 0; tile.y0 < end_y; tile.y0 = tile.y1) {
    tile.y1 = std::min(tile.y0 + extent.y, end_y);
    const int64_t wide = tile.wide();
    if (!inputs.paired) {
      const Tensor y = narrow(inputs.y, 0, tile.y0, wide);
      tile.y_rows =
          torch::stable::reshape(order == Order::by_step ? torch::stable::transpose(y, 0, 1) : y, Shape{wide * m, dim});
    }
    for (tile.x0 = 0; tile.x0 < inputs.batch_x(); tile.x0 = tile.x1) {
      tile.x1 = std::min(tile.x0 + extent.x, inputs.batch_x());
      if (inputs.paired) {
        tile.y_rows = narrow(inputs.y, 0, tile.x0, tile.high());
      }
      costs.count = tile.high() * wide;
      costs.columns = wide;
      costs.first_x = tile.x0;
      costs.first_y = tile.y0;
      int64_t there = -1;
      const auto at = [&](int64_t number) -> const Costs<T>& {
        if (number != there) {
          multiply_part(inputs, order, number, cells, tile);
          there = number;
        }
        return costs;
      };
      f(tile, Parts<T>{ceil_div(n, extent.rows), at});
    }
  }
}

// Sums of the backward pass for one side: - sum w other, and sum w.
template <class T>
struct Collected {
  Tensor rows, along;

  Collected(bool needed, const Tensor& side, const DeviceInputs& inputs) {
    if (needed) {
      rows = inputs.new_zeros(shape_of(side));
      // The gradient of a cosine is across the row; what lies along it is removed when it is divided by its norm.
      if (inputs.cost != Cost::cosine) {
        along = inputs.new_zeros({side.size(0), side.size(1)});
      }
    }
  }

  // Adds what the weights give for rows from the `first`, in the order that `share` says.
  void add(const Tensor& weights, const Tensor& other, Share<T> share, int64_t first, Stream stream) {
    Shape shape = shape_of(weights);
    shape.back() = share.dim;
    Tensor products = new_empty(shape, kTypeOf<T>, weights.device()), sums;
    multiply(products, weights, other);
    share.rows = products.const_data_ptr<T>();
    T* to_along = nullptr;
    if (along.defined()) {
      sums = to_contiguous(torch::stable::sum(weights, Shape{-1}, false, kTypeOf<T>));
      share.along = sums.const_data_ptr<T>();
      to_along = along.mutable_data_ptr<T>() + first;
    }
    add_share<T>(share, rows.size(1), rows.mutable_data_ptr<T>() + first * share.dim, to_along, stream);
  }
};

// Runs an adjoint over parts: `survey` first, then f(costs) for each part, from the last.
template <class T, class F>
void survey_and_descend(const Adjoint<T>& adjoint, const Parts<T>& parts, const F& f) {
  if (parts.count > 1 && adjoint.survey) {
    adjoint.survey(parts);
  }
  for (int64_t number = parts.count - 1; number >= 0; --number) {
    f(parts.at(number));
  }
}

}  // namespace

template <class T>
void for_each_tile(const DeviceInputs& inputs, const OnDevice& on, Order order, const Needs& beside,
                   const std::function<void(const Parts<T>&)>& f) {
  visit_tiles<T>(inputs, on, order, beside, [&](const Tile<T>&, const Parts<T>& parts) { f(parts); });
}

void for_each_fused_tile(const DeviceInputs& inputs, const OnDevice& on, int64_t block_bytes,
                         const std::function<void(const Costs<float>&, int64_t blocks)>& f) {
  const Extent blocks = within(
      on.scratch_bytes, {ceil_div<int64_t>(inputs.batch_x(), kFusedX), ceil_div<int64_t>(inputs.batch_y(), kFusedY), 1},
      {[&](int64_t blocks, int64_t) { return blocks * block_bytes; }, 1});
  Costs<float> costs = describe<float>(inputs);
  for (costs.first_y = 0; costs.first_y < inputs.batch_y(); costs.first_y += costs.columns) {
    costs.columns = std::min(blocks.y * kFusedY, inputs.batch_y() - costs.first_y);
    int64_t high = 0;
    for (costs.first_x = 0; costs.first_x < inputs.batch_x(); costs.first_x += high) {
      high = std::min(blocks.x * kFusedX, inputs.batch_x() - costs.first_x);
      costs.count = high * costs.columns;
      f(costs, FusedShape::blocks(high, costs.columns));
    }
  }
}

template <class T>
std::tuple<Tensor, Tensor> gradients(const DeviceInputs& inputs, const OnDevice& on, Order order, const Tensor& grad,
                                     bool need_x, bool need_y, const Needs& beside, const Adjoint<T>& adjoint) {
  const int64_t n = inputs.steps_x(), m = inputs.steps_y(), dim = inputs.dim();
  const NonfiniteGradients nonfinite_gradients = separate_nonfinite(inputs, grad);
  const Tensor grads = to_contiguous(nonfinite_gradients.grad);
  Collected<T> to_x(need_x, inputs.x, inputs), to_y(need_y, inputs.y, inputs);
  const int64_t bytes = inputs.x.element_size();
  Tensor scratch;
  const auto collect = [&](const Tile<T>& tile) {
    const int64_t high = tile.high(), wide = tile.wide(), begin = tile.costs.begin, rows = tile.costs.end - begin;
    Tensor w = narrow(scratch, 0, 0, high * wide * rows * m);
    torch::stable::zero_(w);
    Tensor near_x = new_zeros({high * n}, kByte, on.device);
    Tensor near_y = new_zeros({(inputs.paired ? high : wide) * m}, kByte, on.device);
    const int64_t above = begin * tile.costs.stride.s * bytes;
    const Weights<T> weights{row_zero(static_cast<char*>(w.mutable_data_ptr()), above), w.scalar_type() == kBFloat16,
                             tile.costs.stride, near_x.mutable_data_ptr<uint8_t>(), near_y.mutable_data_ptr<uint8_t>()};
    adjoint.write(tile.costs, grads.const_data_ptr<T>(), weights);
    if (inputs.cost != Cost::cosine) {
      add_near<T>(tile.costs, weights, need_x ? to_x.rows.template mutable_data_ptr<T>() : nullptr,
                  need_y ? to_y.rows.template mutable_data_ptr<T>() : nullptr, on.stream);
    }
    const int64_t first_y = inputs.paired ? tile.x0 : tile.y0, count_y = inputs.paired ? high : wide;
    w = torch::stable::view(w, inputs.paired ? Shape{high, rows, m} : Shape{high * rows, wide * m});
    if (need_x) {
      to_x.add(w, tile.y_rows, {nullptr, nullptr, high, rows, dim, rows, 1}, tile.x0 * n + begin, on.stream);
    }
    if (need_y) {
      const bool by_step = order == Order::by_step;
      to_y.add(torch::stable::transpose(w, -2, -1), tile.x_rows,
               {nullptr, nullptr, count_y, m, dim, by_step ? 1 : m, by_step ? count_y : 1}, first_y * m, on.stream);
    }
  };
  const auto with_weights = [&](int64_t pairs, int64_t rows) {
    return pairs * rows * m * bytes + beside.bytes(pairs, rows);
  };
  visit_tiles<T>(inputs, on, order, {with_weights, beside.unit}, [&](const Tile<T>& tile, const Parts<T>& parts) {
    // The first tile is the largest.
    if (!scratch.defined()) {
      scratch = new_empty({tile.high() * tile.wide() * tile.height * m}, inputs.x.scalar_type(), on.device);
    }
    survey_and_descend<T>(adjoint, parts, [&](const Costs<T>&) { collect(tile); });
  });
  const bool unit = inputs.cost == Cost::cosine;
  return {finish_gradient(inputs.x_given, inputs.x_lengths_given, unit, to_x.rows, to_x.along, nonfinite_gradients.x,
                          on.stream),
          finish_gradient(inputs.y_given, inputs.y_lengths_given, unit, to_y.rows, to_y.along, nonfinite_gradients.y,
                          on.stream)};
}

template <class T>
Costs<T> whole(const DeviceCosts& given) {
  Costs<T> costs{};
  costs.kind = CellKind::given;
  costs.cells = given.cost.const_data_ptr<T>();
  costs.stride = {given.cost.stride(0), given.cost.stride(1), given.cost.stride(2), given.cost.stride(3)};
  costs.count = given.pairs();
  costs.columns = costs.batch_y = given.cost.size(1);
  costs.paired = given.paired;
  costs.steps_x = given.steps_x();
  costs.steps_y = given.steps_y();
  costs.end = static_cast<int>(given.steps_x());
  costs.x_lengths = lengths_or_null(given.x_lengths);
  costs.y_lengths = lengths_or_null(given.y_lengths);
  costs.nonfinite = given.nonfinite.const_data_ptr<T>();
  return costs;
}

template <class T>
void for_each_tile(const DeviceCosts& given, const OnDevice& on, const Needs& needs,
                   const std::function<void(const Parts<T>&)>& f) {
  const int64_t n = given.steps_x();
  const Extent extent = within(on.scratch_bytes, {given.pairs(), 1, n}, needs);
  Costs<T> costs = whole<T>(given);
  for (costs.first = 0; costs.first < given.pairs(); costs.first += costs.count) {
    costs.count = std::min(extent.x, given.pairs() - costs.first);
    const auto at = [&](int64_t number) -> const Costs<T>& {
      const int64_t begin = number * extent.rows;
      costs.begin = static_cast<int>(begin);
      costs.end = static_cast<int>(std::min(begin + extent.rows, n));
      return costs;
    };
    f(Parts<T>{ceil_div(n, extent.rows), at});
  }
}

template <class T>
Tensor gradient(const DeviceCosts& given, const OnDevice& on, const Tensor& grad, const Needs& needs,
                const Adjoint<T>& adjoint) {
  const int64_t n = given.steps_x(), m = given.steps_y(), wide = given.cost.size(1);
  Tensor result = new_zeros(shape_of(given.given), given.dtype(), on.device);
  const Tensor grads = to_contiguous(zero_unless(logical_not(given.nonfinite), grad));
  const Weights<T> weights{result.mutable_data_ptr(), false, {wide * n * m, n * m, m, 1}, nullptr, nullptr};
  for_each_tile<T>(given, on, needs, [&](const Parts<T>& parts) {
    survey_and_descend<T>(adjoint, parts,
                          [&](const Costs<T>& costs) { adjoint.write(costs, grads.const_data_ptr<T>(), weights); });
  });
  mark_nonfinite_costs<T>(whole<T>(given), grad.const_data_ptr<T>(), result.mutable_data_ptr<T>(), on.stream);
  return to_dtype(result, given.given.scalar_type());
}

#define SCAV_INSTANTIATE(T)                                                                                       \
  template void for_each_tile(const DeviceInputs&, const OnDevice&, Order, const Needs&,                          \
                              const std::function<void(const Parts<T>&)>&);                                       \
  template std::tuple<Tensor, Tensor> gradients(const DeviceInputs&, const OnDevice&, Order, const Tensor&, bool, \
                                                bool, const Needs&, const Adjoint<T>&);                           \
  template Costs<T> whole(const DeviceCosts&);                                                                    \
  template void for_each_tile(const DeviceCosts&, const OnDevice&, const Needs&,                                  \
                              const std::function<void(const Parts<T>&)>&);                                       \
  template Tensor gradient(const DeviceCosts&, const OnDevice&, const Tensor&, const Needs&, const Adjoint<T>&)
SCAV_INSTANTIATE(float);
SCAV_INSTANTIATE(double);

}  // namespace scav::device
