#include "cpu/pipeline.h"

#include <thread>

#include "shared/interrupt.h"

namespace scav {

void Pipeline::wait_longer(const std::atomic<int64_t>& finished, int64_t amount) {
  // A thread that waits takes its turn from others only where it waits long, as for a thread that has no core.
  constexpr int64_t kSpins = 4096;
  for (int64_t spin = 0; finished.load(std::memory_order_acquire) < amount; ++spin) {
    poll(64);
    if (spin >= kSpins) {
      std::this_thread::yield();
    }
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }
}

}  // namespace scav
