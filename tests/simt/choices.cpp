// What the launchers choose for a shape, for tests to ask.

#include "cuda/inputs.h"
#include "cuda/sweep.h"
#include "cuda/dtw.h"
#include "cuda/sinkhorn.h"
#include "cuda/soft_dtw.h"
#include "shared/boxed.h"

namespace {

using scav::device::Needs;
using scav::device::Sweep;

std::string sweep(int64_t b1, int64_t b2, int64_t n, int64_t m, int64_t d, bool paired, bool halves,
                  int64_t column_bytes, int64_t multiprocessors, int64_t shared_bytes) {
  constexpr const char* names[] = {"lanes", "wavefront", "fused"};
  const scav::device::Workload of{b1,
                                  b2,
                                  n,
                                  m,
                                  d,
                                  paired,
                                  4,
                                  halves,
                                  column_bytes,
                                  multiprocessors,
                                  scav::device::kScratchBytes,
                                  shared_bytes,
                                  scav::device::kFusedPairs / 2};
  return names[static_cast<int>(scav::device::choose_sweep(of))];
}

std::string kernel_place(int64_t n, int64_t m, int64_t element, int64_t cell_bytes) {
  constexpr const char* names[] = {"registers_32", "registers_64", "registers_128", "memory", "none"};
  return names[static_cast<int>(
      scav::device::choose_kernel_place(n, m, element, cell_bytes, scav::device::kScratchBytes))];
}

// Rows of a part of one pair, and bytes of the scratch that it takes: numbers of `element` bytes, costs and weights of
// `cell_bytes` together.
std::tuple<int64_t, int64_t> part(std::string pass, int64_t n, int64_t m, int64_t element, int64_t cell_bytes) {
  const auto place = scav::device::choose_kernel_place(n, m, element, cell_bytes, scav::device::kScratchBytes);
  const auto adjoint = [&](int64_t kept) {
    return scav::device::soft_dtw_adjoint_needs(Sweep::wavefront, n, m, element, kept, false);
  };
  const Needs beside = pass == "dtw"                 ? scav::device::dtw_needs(Sweep::wavefront, n, m, element, true)
                       : pass == "soft_dtw"          ? scav::device::soft_dtw_needs(Sweep::wavefront, n, m, element)
                       : pass == "soft_dtw_backward" ? adjoint(2 * element)
                       : pass == "soft_dtw_backward_of_16_bits"
                           ? adjoint(scav::device::kKeptBytes<float, scav::device::PackedWeights>)
                       : pass == "sinkhorn" ? scav::device::sinkhorn_needs(place, n, m, element)
                                            : scav::device::sinkhorn_plan_needs(n, m, element, true);
  const Needs all{
      [&](int64_t pairs, int64_t rows) { return pairs * rows * m * cell_bytes + beside.bytes(pairs, rows); },
      beside.unit};
  const int64_t rows = scav::device::within(scav::device::kScratchBytes, {1, 1, n}, all).rows;
  return {rows, all.bytes(1, rows)};
}

}  // namespace

STABLE_TORCH_LIBRARY(scav_simt, m) {
  m.def(
      "sweep(int b1, int b2, int n, int m, int d, bool paired, bool halves, int column_bytes, int multiprocessors, "
      "int shared_bytes) -> str");
  m.def("kernel_place(int n, int m, int element, int cell_bytes) -> str");
  m.def("part(str pass_, int n, int m, int element, int cell_bytes) -> (int, int)");
}

STABLE_TORCH_LIBRARY_IMPL(scav_simt, CompositeExplicitAutograd, m) {
  m.impl("sweep", SCAV_BOX(&sweep));
  m.impl("kernel_place", SCAV_BOX(&kernel_place));
  m.impl("part", SCAV_BOX(&part));
}
