#include "shared/tensor.h"

#include <torch/csrc/stable/ops.h>

#include <cstdlib>
#include <new>

namespace scav {

namespace {

// Shares the memory and is outside autograd.
Tensor detach(const Tensor& tensor) {
  std::array<StableIValue, 1> stack{torch::stable::detail::from(tensor)};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::detach", "", stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}

int32_t shim_dtype(ScalarType dtype) { return torch::stable::detail::to<int32_t>(torch::stable::detail::from(dtype)); }

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

void* allocate_scratch(int64_t count, int64_t size) {
  // From malloc, aligned here: glibc rarely gives a freed aligned block to the next request of its size, so that with
  // torch's allocator, which asks it for alignment, memory grew with the number of calls.
  constexpr uintptr_t kAlignment = 64;
  int64_t bytes = 0;
  bool overflows = __builtin_mul_overflow(count, size, &bytes);
  // torch_from_blob ends the process where the bytes of a tensor are no int64.
  overflows |= __builtin_add_overflow(bytes, int64_t(sizeof(void*) + kAlignment), &bytes);
  void* const memory = overflows ? nullptr : std::malloc(static_cast<size_t>(bytes));
  if (memory == nullptr) {
    return nullptr;
  }
  const uintptr_t first = reinterpret_cast<uintptr_t>(memory) + sizeof(void*);
  void** const data = reinterpret_cast<void**>((first + kAlignment - 1) / kAlignment * kAlignment);
  data[-1] = memory;
  return data;
}

void free_scratch(void* data) {
  if (data != nullptr) {
    std::free(static_cast<void**>(data)[-1]);
  }
}

Tensor new_scratch(const Shape& shape, ScalarType dtype) {
  Shape strides(shape.size());
  int64_t count = 1;
  bool overflows = false;
  for (size_t axis = shape.size(); axis-- > 0;) {
    strides[axis] = count;
    overflows |= __builtin_mul_overflow(count, shape[axis], &count);
  }
  void* const data =
      overflows ? nullptr : allocate_scratch(count, int64_t(aoti_torch_dtype_element_size(shim_dtype(dtype))));
  if (data == nullptr) {
    throw_out_of_memory(shape, dtype, cpu());
  }
  return torch::stable::from_blob(data, shape, strides, cpu(), dtype, &free_scratch);
}

}  // namespace scav
