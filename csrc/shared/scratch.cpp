#include "shared/scratch.h"

#include <cstdlib>

namespace scav {

void* Scratch::allocate(int64_t size, ScalarType dtype, int64_t bytes) {
  // From malloc, aligned here: glibc rarely gives a freed aligned block to the next request of its size, so that with
  // torch's allocator, which asks it for alignment, memory grew with the number of calls.
  constexpr int64_t kAlignment = 64, kRoom = kAlignment + static_cast<int64_t>(sizeof(void*));
  int64_t total = 0;
  const bool overflows = __builtin_mul_overflow(size, bytes, &total) || __builtin_add_overflow(total, kRoom, &total);
  void* const memory = overflows ? nullptr : std::malloc(static_cast<size_t>(total));
  if (memory == nullptr) {
    throw_out_of_memory({size}, dtype, cpu());
  }
  const uintptr_t first = reinterpret_cast<uintptr_t>(memory) + sizeof(void*);
  void** const data = reinterpret_cast<void**>((first + kAlignment - 1) / kAlignment * kAlignment);
  data[-1] = memory;
  return data;
}

// unique_ptr does not call it with null.
void Scratch::Free::operator()(void* data) const { std::free(static_cast<void**>(data)[-1]); }

}  // namespace scav
