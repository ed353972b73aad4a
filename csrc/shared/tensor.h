#pragma once
// Tensors of PyTorch's stable ABI, and what the ops do with them. Nothing else of torch's C++ API is used, so that one
// binary runs with every torch from TORCH_TARGET_VERSION (setup.py) on.

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "shared/errors.h"

namespace scav {

using torch::headeronly::ScalarType;
using torch::stable::Device;
using torch::stable::Tensor;

using Shape = std::vector<int64_t>;

inline constexpr ScalarType kFloat = ScalarType::Float, kDouble = ScalarType::Double, kHalf = ScalarType::Half,
                            kBFloat16 = ScalarType::BFloat16, kLong = ScalarType::Long, kByte = ScalarType::Byte,
                            kBool = ScalarType::Bool;

template <class T>
inline constexpr ScalarType kTypeOf = torch::headeronly::CppTypeToScalarType<T>::value;

inline Device cpu() { return Device(torch::headeronly::DeviceType::CPU, -1); }

Shape shape_of(const Tensor& tensor);
// "(2, 3)"
std::string text_of(const Shape& shape);
std::string text_of(const Tensor& tensor);
// "cuda:0"
std::string text_of(const Device& device);

// A contiguous tensor whose values are not set.
Tensor new_empty(const Shape& shape, ScalarType dtype, const Device& device = cpu());
Tensor new_full(const Shape& shape, double value, ScalarType dtype, const Device& device = cpu());
inline Tensor new_zeros(const Shape& shape, ScalarType dtype, const Device& device = cpu()) {
  return new_full(shape, 0, dtype, device);
}
inline Tensor zeros_like(const Tensor& tensor) {
  return new_zeros(shape_of(tensor), tensor.scalar_type(), tensor.device());
}

// `tensor` itself if it has that form already, else a copy that autograd does not see.
Tensor to_dtype(const Tensor& tensor, ScalarType dtype);
Tensor to_contiguous(const Tensor& tensor);
// A contiguous copy that autograd does not see.
Tensor copy_of(const Tensor& tensor);

// A tensor of shape (0,) on the CPU for a result that is not asked for, in a fraction of new_empty's time.
Tensor new_nothing(ScalarType dtype);

// Throws OutOfMemoryError: a tensor of that shape does not fit.
[[noreturn]] void throw_out_of_memory(const Shape& shape, ScalarType dtype, const Device& device);

}  // namespace scav

// SCAV_DISPATCH(dtype, body) runs body, a lambda, where `scalar_t` is float or double.
#define SCAV_DISPATCH(dtype, ...)                                                  \
  [&] {                                                                            \
    const ::scav::ScalarType dispatched = (dtype);                                 \
    SCAV_CHECK_TYPE(dispatched == ::scav::kFloat || dispatched == ::scav::kDouble, \
                    "expected float32 or float64, got ", dispatched);              \
    if (dispatched == ::scav::kDouble) {                                           \
      using scalar_t = double;                                                     \
      return __VA_ARGS__();                                                        \
    }                                                                              \
    using scalar_t = float;                                                        \
    return __VA_ARGS__();                                                          \
  }()
