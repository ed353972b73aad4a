#pragma once
// Scratch memory from torch's allocator, aligned for vectors, uninitialized.

#include "shared/tensor.h"

namespace scav {

template <class T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(int64_t size) : storage_(new_scratch({size}, kTypeOf<T>)) {
    data_ = static_cast<T*>(storage_->mutable_data_ptr());
  }
  T* data() const { return data_; }
  T& operator[](int64_t index) const { return data_[index]; }

 private:
  std::optional<Tensor> storage_;
  T* data_ = nullptr;
};

}  // namespace scav
