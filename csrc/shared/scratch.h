#pragma once
// Scratch memory of numbers on the CPU, aligned for vectors, uninitialized.

#include <memory>

#include "shared/tensor.h"

namespace scav {

// Numbers whose type is known where they are used.
class Scratch {
 public:
  Scratch() = default;
  template <class T>
  static Scratch of(int64_t size) {
    Scratch scratch;
    scratch.memory_.reset(allocate(size, kTypeOf<T>, sizeof(T)));
    return scratch;
  }
  template <class T>
  T* data() const {
    return static_cast<T*>(memory_.get());
  }

 private:
  struct Free {
    void operator()(void* data) const;
  };
  // Throws where there is too little memory for `size` numbers of `bytes` bytes each.
  static void* allocate(int64_t size, ScalarType dtype, int64_t bytes);

  std::unique_ptr<void, Free> memory_;
};

// Numbers of one type.
template <class T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(int64_t size) : memory_(Scratch::of<T>(size)) {}
  T* data() const { return memory_.data<T>(); }
  T& operator[](int64_t index) const { return data()[index]; }

 private:
  Scratch memory_;
};

}  // namespace scav
