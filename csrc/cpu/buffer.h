#pragma once
// Scratch memory from torch's allocator, aligned for vectors, uninitialized.

#include <ATen/ATen.h>

namespace scav {

template <class T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(int64_t size) : storage_(at::empty({size}, at::dtype(c10::CppTypeToScalarType<T>::value))) {
    data_ = storage_.mutable_data_ptr<T>();
  }
  T* data() const { return data_; }
  T& operator[](int64_t index) const { return data_[index]; }

 private:
  at::Tensor storage_;
  T* data_ = nullptr;
};

}  // namespace scav
