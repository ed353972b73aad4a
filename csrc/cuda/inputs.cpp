#include "cuda/inputs.h"

#include <limits>

#include "cuda/rows.h"
#include "cuda/sweep_shape.h"

#if !defined(SCAV_SIMT)
#include <c10/cuda/CUDAStream.h>
#endif

namespace scav::device {

#if defined(SCAV_SIMT)

OnDevice::OnDevice(const at::Tensor& tensor)
    : stream(nullptr),
      multiprocessors(simt::setting("MULTIPROCESSORS", 132)),
      scratch_bytes(simt::setting("SCRATCH_BYTES", kScratchBytes)),
      shared_bytes(simt::setting("SHARED_BYTES", int64_t(227) << 10)),
      block_pairs(simt::setting("BLOCK_PAIRS", kFusedPairs / 2)),
      guard_(tensor.device()) {}

#else

OnDevice::OnDevice(const at::Tensor& tensor)
    : stream(c10::cuda::getCurrentCUDAStream(tensor.device().index())),
      scratch_bytes(kScratchBytes),
      block_pairs(kFusedPairs / 2),
      guard_(tensor.device()) {
  int value = 0;
  check("number of multiprocessors",
        cudaDeviceGetAttribute(&value, cudaDevAttrMultiProcessorCount, tensor.device().index()));
  multiprocessors = value;
  check("size of shared memory",
        cudaDeviceGetAttribute(&value, cudaDevAttrMaxSharedMemoryPerBlockOptin, tensor.device().index()));
  shared_bytes = value;
}

#endif

Rows rows_of(const at::Tensor& rows) {
  const at::ScalarType dtype = rows.scalar_type();
  const Rows::Kind kind = dtype == at::kDouble     ? Rows::Kind::float64
                          : dtype == at::kFloat    ? Rows::Kind::float32
                          : dtype == at::kBFloat16 ? Rows::Kind::bfloat16
                                                   : Rows::Kind::float16;
  return {rows.const_data_ptr(), kind, rows.size(2)};
}

const int64_t* lengths_or_null(const at::Tensor& lengths) {
  return lengths.defined() ? lengths.const_data_ptr<int64_t>() : nullptr;
}

namespace {

// The contiguous copy of given lengths, or nothing.
at::Tensor packed(const std::optional<at::Tensor>& lengths) {
  return lengths.has_value() ? lengths->contiguous() : at::Tensor();
}

struct Prepared {
  at::Tensor rows, norms, nonfinite, lengths;
};

Prepared prepare(const at::Tensor& given, const at::Tensor& lengths, bool unit, at::ScalarType rows, int64_t dim,
                 at::ScalarType accumulation, Stream stream) {
  const auto options = given.options().dtype(accumulation);
  Prepared prepared{at::empty({given.size(0), given.size(1), dim}, given.options().dtype(rows)),
                    at::empty({given.size(0), given.size(1)}, options),
                    {},
                    lengths.defined() ? at::empty_like(lengths) : at::Tensor()};
  at::Tensor bad = at::empty_like(prepared.norms);
  const Side side{rows_of(given), given.size(0), given.size(1), lengths_or_null(lengths)};
  int64_t* clamped = lengths.defined() ? prepared.lengths.mutable_data_ptr<int64_t>() : nullptr;
  AT_DISPATCH_FLOATING_TYPES(accumulation, "prepare_rows", [&] {
    prepare_rows<scalar_t>(side, unit, rows_of(prepared.rows), prepared.norms.mutable_data_ptr<scalar_t>(),
                           bad.mutable_data_ptr<scalar_t>(), clamped, stream);
  });
  prepared.nonfinite = bad.sum(1);
  return prepared;
}

}  // namespace

std::vector<int64_t> DeviceInputs::result_shape(std::vector<int64_t> tail) const {
  std::vector<int64_t> shape{batch_x()};
  if (!paired) {
    shape.push_back(batch_y());
  }
  shape.insert(shape.end(), tail.begin(), tail.end());
  return shape;
}

at::Tensor DeviceInputs::nonfinite() const {
  return paired ? x_nonfinite + y_nonfinite : x_nonfinite.unsqueeze(1) + y_nonfinite;
}

DeviceInputs check_device_inputs(const char* op, const OnDevice& on, const at::Tensor& x, const at::Tensor& y,
                                 const std::optional<at::Tensor>& x_lengths, const std::optional<at::Tensor>& y_lengths,
                                 const std::string& cost, bool paired, RowsFor purpose) {
  check_pairs(op, x, y, x_lengths, y_lengths, paired);
  DeviceInputs inputs;
  inputs.cost = parse_cost(cost);
  inputs.paired = paired;
  inputs.dtype = accumulation_dtype(x);
  inputs.x_given = x.detach().contiguous();
  inputs.y_given = y.detach().contiguous();
  inputs.x_lengths_given = packed(x_lengths);
  inputs.y_lengths_given = packed(y_lengths);
  const bool unit = inputs.cost == Cost::cosine;
  // Unit rows of half-precision rows are not half-precision numbers; float16 has too small a range for weights.
  const bool fused = purpose == RowsFor::fused;
  const bool as_given = fused || (!unit && !(purpose == RowsFor::adjoint && x.scalar_type() == at::kHalf));
  const at::ScalarType rows = as_given ? x.scalar_type() : inputs.dtype;
  const int64_t dim = fused ? ceil_div<int64_t>(x.size(2), 8) * 8 : x.size(2);
  const Prepared of_x = prepare(inputs.x_given, inputs.x_lengths_given, unit, rows, dim, inputs.dtype, on.stream);
  const Prepared of_y = prepare(inputs.y_given, inputs.y_lengths_given, unit, rows, dim, inputs.dtype, on.stream);
  inputs.x = of_x.rows, inputs.x_norms = of_x.norms, inputs.x_nonfinite = of_x.nonfinite,
  inputs.x_lengths = of_x.lengths;
  inputs.y = of_y.rows, inputs.y_norms = of_y.norms, inputs.y_nonfinite = of_y.nonfinite,
  inputs.y_lengths = of_y.lengths;
  return inputs;
}

void spread_nonfinite(const DeviceInputs& inputs, at::Tensor& result) {
  const at::Tensor nonfinite = inputs.nonfinite();
  result = at::where(nonfinite == 0, result, nonfinite);
}

NonfiniteGradients separate_nonfinite(const DeviceInputs& inputs, const at::Tensor& grad) {
  const at::Tensor bad = inputs.nonfinite() != 0, nonfinite_gradients = bad.logical_and(grad != 0);
  if (inputs.paired) {
    return {grad.masked_fill(bad, 0), nonfinite_gradients, nonfinite_gradients};
  }
  return {grad.masked_fill(bad, 0), nonfinite_gradients.any(1), nonfinite_gradients.any(0)};
}

at::Tensor finish_gradient(const at::Tensor& given, const at::Tensor& lengths, bool unit, const at::Tensor& dx,
                           const at::Tensor& along, const at::Tensor& nonfinite_gradients, Stream stream) {
  if (!dx.defined()) {
    return at::empty({0}, given.options());
  }
  at::Tensor gradient = at::empty_like(given);
  const Side side{rows_of(given), given.size(0), given.size(1), lengths_or_null(lengths)};
  const at::Tensor marks = nonfinite_gradients.contiguous();
  AT_DISPATCH_FLOATING_TYPES(dx.scalar_type(), "finish_rows", [&] {
    finish_rows<scalar_t>(side, unit, dx.const_data_ptr<scalar_t>(),
                          along.defined() ? along.const_data_ptr<scalar_t>() : nullptr, marks.const_data_ptr<bool>(),
                          gradient.mutable_data_ptr(), stream);
  });
  return gradient;
}

std::vector<int64_t> DeviceCosts::result_shape(std::vector<int64_t> tail) const {
  std::vector<int64_t> shape{cost.size(0), cost.size(1)};
  shape.insert(shape.end(), tail.begin(), tail.end());
  return shape;
}

DeviceCosts check_device_costs(const char* op, const OnDevice& on, const at::Tensor& cost,
                               const std::optional<at::Tensor>& x_lengths, const std::optional<at::Tensor>& y_lengths,
                               bool blocked) {
  check_grid(op, cost, x_lengths, y_lengths);
  const at::ScalarType dtype = accumulation_dtype(cost);
  DeviceCosts costs;
  costs.given = cost;
  costs.cost = cost.detach().to(dtype);
  costs.nonfinite = at::empty(costs.result_shape(), costs.options());
  const at::Tensor x_given = packed(x_lengths), y_given = packed(y_lengths);
  // As given, for a length out of range to be found.
  costs.x_lengths = x_given, costs.y_lengths = y_given;
  AT_DISPATCH_FLOATING_TYPES(dtype, "find_nonfinite", [&] {
    find_nonfinite<scalar_t>(whole<scalar_t>(costs), blocked, costs.nonfinite.mutable_data_ptr<scalar_t>(), on.stream);
  });
  costs.x_lengths = x_given.defined() ? x_given.clamp(1, costs.steps_x()) : at::Tensor();
  costs.y_lengths = y_given.defined() ? y_given.clamp(1, costs.steps_y()) : at::Tensor();
  return costs;
}

void spread_nonfinite(const DeviceCosts& costs, at::Tensor& result) {
  result = at::where(costs.nonfinite == 0, result, costs.nonfinite);
}

}  // namespace scav::device
