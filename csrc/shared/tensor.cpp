#include "shared/tensor.h"

#include <torch/csrc/stable/ops.h>

namespace scav {

namespace {

// Shares the memory and is outside autograd.
Tensor detach(const Tensor& tensor) {
  std::array<StableIValue, 1> stack{torch::stable::detail::from(tensor)};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::detach", "", stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}

// The stable ABI says that a call failed, not why: for a shape that torch can have, memory is the reason.
template <class Allocation>
Tensor allocate(const Shape& shape, ScalarType dtype, const Device& device, const Allocation& allocation) {
  try {
    return allocation();
  } catch (const std::exception&) {
    throw_out_of_memory(shape, dtype, device);
  }
}

}  // namespace

void throw_out_of_memory(const Shape& shape, ScalarType dtype, const Device& device) {
  throw_error<OutOfMemoryError>("out of memory: a tensor of shape ", text_of(shape), " and dtype ", dtype, " on ",
                                text_of(device), " cannot be allocated; use smaller batches");
}

Shape shape_of(const Tensor& tensor) { return tensor.sizes().vec(); }

std::string text_of(const Shape& shape) {
  std::ostringstream text;
  text << "(";
  for (size_t axis = 0; axis < shape.size(); ++axis) {
    text << (axis ? ", " : "") << shape[axis];
  }
  text << (shape.size() == 1 ? ",)" : ")");
  return text.str();
}

std::string text_of(const Tensor& tensor) { return text_of(shape_of(tensor)); }

std::string text_of(const Device& device) {
  using torch::headeronly::DeviceType;
  std::string name;
  switch (device.type()) {
    case DeviceType::CPU:
      name = "cpu";
      break;
    case DeviceType::CUDA:
      name = "cuda";
      break;
    case DeviceType::Meta:
      name = "meta";
      break;
    case DeviceType::MPS:
      name = "mps";
      break;
    case DeviceType::XPU:
      name = "xpu";
      break;
    default:
      name = "device type " + std::to_string(static_cast<int>(device.type()));
  }
  return device.has_index() ? name + ":" + std::to_string(device.index()) : name;
}

Tensor new_empty(const Shape& shape, ScalarType dtype, const Device& device) {
  return allocate(shape, dtype, device, [&] { return torch::stable::empty(shape, dtype, std::nullopt, device); });
}

Tensor new_full(const Shape& shape, double value, ScalarType dtype, const Device& device) {
  return allocate(shape, dtype, device, [&] { return torch::stable::full(shape, value, dtype, std::nullopt, device); });
}

Tensor to_dtype(const Tensor& tensor, ScalarType dtype) {
  return tensor.scalar_type() == dtype ? tensor : torch::stable::to(detach(tensor), dtype);
}

Tensor to_contiguous(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(detach(tensor));
}

Tensor copy_of(const Tensor& tensor) {
  Tensor copy = new_empty(shape_of(tensor), tensor.scalar_type(), tensor.device());
  torch::stable::copy_(copy, detach(tensor));
  return copy;
}

Tensor new_nothing(ScalarType dtype) { return torch::stable::from_blob(nullptr, {0}, {1}, cpu(), dtype); }

}  // namespace scav
