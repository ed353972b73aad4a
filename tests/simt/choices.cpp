// What the launchers choose for a shape, for tests to ask.

#include <torch/library.h>

#include "common/warping.h"
#include "sinkhorn_cuda.h"

namespace {

std::string sweep(int64_t pairs, int64_t multiprocessors) {
  return scav::device::choose_sweep(pairs, multiprocessors) == scav::device::Sweep::lanes ? "lanes" : "wavefront";
}

std::string kernel_place(int64_t n, int64_t m, bool float64) {
  constexpr const char* names[] = {"registers_32", "registers_64", "registers_128", "memory"};
  return names[static_cast<int>(scav::device::choose_kernel_place(n, m, float64))];
}

}  // namespace

TORCH_LIBRARY(scav_simt, m) {
  m.def("sweep(int pairs, int multiprocessors) -> str", &sweep);
  m.def("kernel_place(int n, int m, bool float64) -> str", &kernel_place);
}
