#include "cuda/inputs.h"

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/ops.h>

#include "cuda/aten.h"
#include "cuda/rows.h"
#include "cuda/sweep_shape.h"

namespace scav::device {

#if defined(SCAV_SIMT)

OnDevice::OnDevice(const Tensor& tensor)
    : device(tensor.device()),
      stream(nullptr),
      multiprocessors(simt::setting("MULTIPROCESSORS", 132)),
      scratch_bytes(simt::setting("SCRATCH_BYTES", kScratchBytes)),
      shared_bytes(simt::setting("SHARED_BYTES", int64_t(227) << 10)),
      block_pairs(simt::setting("BLOCK_PAIRS", kFusedPairs / 2)) {}

#else

namespace {

Stream current_stream(const Device& device) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device.index(), &stream));
  return static_cast<Stream>(stream);
}

int64_t attribute(const char* what, cudaDeviceAttr of, const Device& device) {
  int value = 0;
  check(what, cudaDeviceGetAttribute(&value, of, device.index()));
  return value;
}

}  // namespace

OnDevice::OnDevice(const Tensor& tensor)
    : device(tensor.device()),
      stream(current_stream(device)),
      multiprocessors(attribute("number of multiprocessors", cudaDevAttrMultiProcessorCount, device)),
      scratch_bytes(kScratchBytes),
      shared_bytes(attribute("size of shared memory", cudaDevAttrMaxSharedMemoryPerBlockOptin, device)),
      block_pairs(kFusedPairs / 2),
      guard_(device.index()) {}

#endif

Rows rows_of(const Tensor& rows) {
  const ScalarType dtype = rows.scalar_type();
  const Rows::Kind kind = dtype == kDouble     ? Rows::Kind::float64
                          : dtype == kFloat    ? Rows::Kind::float32
                          : dtype == kBFloat16 ? Rows::Kind::bfloat16
                                               : Rows::Kind::float16;
  return {rows.const_data_ptr(), kind, rows.size(2)};
}

const int64_t* lengths_or_null(const Tensor& lengths) {
  return lengths.defined() ? lengths.const_data_ptr<int64_t>() : nullptr;
}

namespace {

// The contiguous copy of given lengths, or nothing.
Tensor packed(const std::optional<Tensor>& lengths) { return lengths.has_value() ? to_contiguous(*lengths) : Tensor(); }

struct Prepared {
  Tensor rows, norms, nonfinite, lengths;
};

Prepared prepare(const Tensor& given, const Tensor& lengths, bool unit, ScalarType rows, int64_t dim,
                 ScalarType accumulation, Stream stream) {
  const int64_t batch = given.size(0), steps = given.size(1);
  const Device device = given.device();
  Prepared prepared{new_empty({batch, steps, dim}, rows, device),
                    new_empty({batch, steps}, accumulation, device),
                    {},
                    lengths.defined() ? new_empty({batch}, kLong, device) : Tensor()};
  Tensor bad = new_empty({batch, steps}, accumulation, device);
  const Side side{rows_of(given), batch, steps, lengths_or_null(lengths)};
  int64_t* clamped = lengths.defined() ? prepared.lengths.mutable_data_ptr<int64_t>() : nullptr;
  SCAV_DISPATCH(accumulation, [&] {
    prepare_rows<scalar_t>(side, unit, rows_of(prepared.rows), prepared.norms.mutable_data_ptr<scalar_t>(),
                           bad.mutable_data_ptr<scalar_t>(), clamped, stream);
  });
  prepared.nonfinite = torch::stable::sum(bad, Shape{1});
  return prepared;
}

}  // namespace

Shape DeviceInputs::result_shape(Shape tail) const {
  Shape shape{batch_x()};
  if (!paired) {
    shape.push_back(batch_y());
  }
  shape.insert(shape.end(), tail.begin(), tail.end());
  return shape;
}

Tensor DeviceInputs::nonfinite() const {
  return add(paired ? x_nonfinite : torch::stable::unsqueeze(x_nonfinite, 1), y_nonfinite);
}

DeviceInputs check_device_inputs(const char* op, const OnDevice& on, const Tensor& x, const Tensor& y,
                                 const std::optional<Tensor>& x_lengths, const std::optional<Tensor>& y_lengths,
                                 const std::string& cost, bool paired, RowsFor purpose) {
  check_pairs(op, x, y, x_lengths, y_lengths, paired);
  DeviceInputs inputs;
  inputs.cost = parse_cost(cost);
  inputs.paired = paired;
  inputs.dtype = accumulation_dtype(x);
  inputs.x_given = to_contiguous(x);
  inputs.y_given = to_contiguous(y);
  inputs.x_lengths_given = packed(x_lengths);
  inputs.y_lengths_given = packed(y_lengths);
  const bool unit = inputs.cost == Cost::cosine;
  // Unit rows of half-precision rows are not half-precision numbers; float16 has too small a range for weights.
  const bool fused = purpose == RowsFor::fused;
  const bool as_given = fused || (!unit && !(purpose == RowsFor::adjoint && x.scalar_type() == kHalf));
  const ScalarType rows = as_given ? x.scalar_type() : inputs.dtype;
  const int64_t dim = fused ? ceil_div<int64_t>(x.size(2), 8) * 8 : x.size(2);
  const Prepared of_x = prepare(inputs.x_given, inputs.x_lengths_given, unit, rows, dim, inputs.dtype, on.stream);
  const Prepared of_y = prepare(inputs.y_given, inputs.y_lengths_given, unit, rows, dim, inputs.dtype, on.stream);
  inputs.x = of_x.rows, inputs.x_norms = of_x.norms, inputs.x_nonfinite = of_x.nonfinite,
  inputs.x_lengths = of_x.lengths;
  inputs.y = of_y.rows, inputs.y_norms = of_y.norms, inputs.y_nonfinite = of_y.nonfinite,
  inputs.y_lengths = of_y.lengths;
  return inputs;
}

void spread_nonfinite(const DeviceInputs& inputs, Tensor& result) {
  const Tensor nonfinite = inputs.nonfinite();
  result = where(logical_not(nonfinite), result, nonfinite);
}

NonfiniteGradients separate_nonfinite(const DeviceInputs& inputs, const Tensor& grad) {
  const Tensor nonfinite = inputs.nonfinite(), nonfinite_gradients = logical_and(nonfinite, grad);
  const Tensor finite = zero_unless(logical_not(nonfinite), grad);
  if (inputs.paired) {
    return {finite, nonfinite_gradients, nonfinite_gradients};
  }
  return {finite, any(nonfinite_gradients, 1), any(nonfinite_gradients, 0)};
}

Tensor finish_gradient(const Tensor& given, const Tensor& lengths, bool unit, const Tensor& dx, const Tensor& along,
                       const Tensor& nonfinite_gradients, Stream stream) {
  if (!dx.defined()) {
    return new_empty({0}, given.scalar_type(), given.device());
  }
  Tensor gradient = new_empty(shape_of(given), given.scalar_type(), given.device());
  const Side side{rows_of(given), given.size(0), given.size(1), lengths_or_null(lengths)};
  const Tensor marks = to_contiguous(nonfinite_gradients);
  SCAV_DISPATCH(dx.scalar_type(), [&] {
    finish_rows<scalar_t>(side, unit, dx.const_data_ptr<scalar_t>(),
                          along.defined() ? along.const_data_ptr<scalar_t>() : nullptr, marks.const_data_ptr<bool>(),
                          gradient.mutable_data_ptr(), stream);
  });
  return gradient;
}

Shape DeviceCosts::result_shape(Shape tail) const {
  Shape shape{cost.size(0)};
  if (!paired) {
    shape.push_back(cost.size(1));
  }
  shape.insert(shape.end(), tail.begin(), tail.end());
  return shape;
}

DeviceCosts check_device_costs(const char* op, const OnDevice& on, const Tensor& cost,
                               const std::optional<Tensor>& x_lengths, const std::optional<Tensor>& y_lengths,
                               bool blocked) {
  check_grid(op, cost, x_lengths, y_lengths);
  const ScalarType dtype = accumulation_dtype(cost);
  DeviceCosts costs;
  costs.given = cost;
  costs.paired = cost.dim() == 3;
  costs.cost = to_dtype(costs.paired ? torch::stable::unsqueeze(cost, 1) : cost, dtype);
  costs.nonfinite = costs.new_result();
  const Tensor x_given = packed(x_lengths), y_given = packed(y_lengths);
  // As given, for a length out of range to be found.
  costs.x_lengths = x_given, costs.y_lengths = y_given;
  SCAV_DISPATCH(dtype, [&] {
    find_nonfinite<scalar_t>(whole<scalar_t>(costs), blocked, nullptr, nullptr,
                             costs.nonfinite.mutable_data_ptr<scalar_t>(), on.stream);
  });
  costs.x_lengths = x_given.defined() ? clamp(x_given, 1, costs.steps_x()) : Tensor();
  costs.y_lengths = y_given.defined() ? clamp(y_given, 1, costs.steps_y()) : Tensor();
  return costs;
}

void spread_nonfinite(const DeviceCosts& costs, Tensor& result) {
  result = where(logical_not(costs.nonfinite), result, costs.nonfinite);
}

}  // namespace scav::device
