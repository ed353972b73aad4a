// Counts what torch allocates on the CPU: scav_simt::count_memory starts, scav_simt::most_memory() is the most bytes
// that were held at a time since.

// The stable ABI has no allocators.
#undef TORCH_TARGET_VERSION

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <torch/library.h>

#include <algorithm>
#include <atomic>

namespace {

std::atomic<int64_t> held{0}, most{0};

struct Block {
  c10::DataPtr memory;
  int64_t bytes;
};

void release(void* context) {
  const auto* block = static_cast<Block*>(context);
  held -= block->bytes;
  delete block;
}

class Counting final : public c10::Allocator {
 public:
  explicit Counting(c10::Allocator* of) : of_(of) {}

  c10::DataPtr allocate(size_t bytes) override {
    auto* block = new Block{of_->allocate(bytes), static_cast<int64_t>(bytes)};
    held += block->bytes;
    most = std::max(most.load(), held.load());
    return {block->memory.get(), block, &release, block->memory.device()};
  }
  void copy_data(void* to, const void* from, size_t bytes) const override { of_->copy_data(to, from, bytes); }

 private:
  c10::Allocator* of_;
};

void count_memory() {
  static Counting counting(c10::GetCPUAllocator());
  c10::SetCPUAllocator(&counting, 1);
  held = most = 0;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(scav_simt, m) {
  m.def("count_memory() -> ()", &count_memory);
  m.def("most_memory() -> int", [] { return most.load(); });
}
