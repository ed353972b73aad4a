#pragma once
// Launchers of sinkhorn_kernels.cu and, below, sinkhorn_parts.cu.

#include "cuda/cut.h"
#include "cuda/device_costs.h"
#include "shared/sinkhorn.h"

namespace scav::device {

// Memory of a pair's K: spread over the registers of a block that covers 32 x 32, 64 x 64 or 128 x 128 steps, or in
// memory, from where the caches serve it, or nowhere.
enum class KernelPlace { registers_32, registers_64, registers_128, memory, none };

// `element`: bytes of a number; `cell_bytes`: what a cell takes of the scratch beside K.
KernelPlace choose_kernel_place(int64_t n, int64_t m, int64_t element, int64_t cell_bytes, int64_t scratch_bytes);

// Scratch for `pairs` pairs in elements: their vectors, and K where it is in memory.
int64_t sinkhorn_scratch(KernelPlace place, int64_t pairs, int64_t n, int64_t m);

// Scratch for the iterations on pairs of up to N by M steps, or for their plans, without the costs; numbers have
// `element` bytes.
Needs sinkhorn_needs(KernelPlace place, int64_t n, int64_t m, int64_t element);
Needs sinkhorn_plan_needs(int64_t n, int64_t m, int64_t element);

#if defined(__CUDACC__) || defined(SCAV_SIMT)

template <class T>
SCAV_DEVICE void put(const SinkhornReport<T>& report, int64_t result, int64_t iterations, T marginal_error) {
  if (report.iterations != nullptr) {
    report.iterations[result] = iterations;
    report.marginal_error[result] = marginal_error;
  }
}

#endif

// `out` by result; `f` (results, N), zero on entry, or null. Products of a tile become its costs, where they lie.
template <class T>
void launch_sinkhorn_forward(const Costs<T>& costs, KernelPlace place, const SinkhornOptions& options, T* scratch,
                             T* out, T* f, const SinkhornReport<T>& report, Stream stream);

// The plan of each pair, as weights; `grads` by result, `f` (results, N).
template <class T>
void launch_sinkhorn_backward(const Costs<T>& costs, double epsilon, const T* grads, const T* f, const Weights<T>& to,
                              Stream stream);

// Potentials of the pairs of a tile whose K is held nowhere: F, F of the iteration that runs, what its marginals lack
// (pairs, N); G, peaks and sums of its columns (pairs, M); whether a pair has converged (pairs,).
template <class T>
struct SinkhornState {
  T *f, *f_next, *errors, *g, *peak, *sum, *done;

  SinkhornState(T* memory, int64_t pairs, int64_t n, int64_t m)
      : f(memory),
        f_next(f + pairs * n),
        errors(f_next + pairs * n),
        g(errors + pairs * n),
        peak(g + pairs * m),
        sum(peak + pairs * m),
        done(sum + pairs * m) {}
  static constexpr int64_t size(int64_t pairs, int64_t n, int64_t m) { return pairs * (3 * n + 3 * m + 1); }
};

// start, then for each iteration every part, from the first, and settle; then finish. A tolerance of 0 stops nothing.
// settle reports on the pairs that it stops, after the `iteration` that have been before. Once more after the last
// iteration, with `measure`, it applies none and reports on all that are left.
template <class T>
void launch_sinkhorn_start(const Costs<T>& costs, const SinkhornState<T>& state, const SinkhornReport<T>& report,
                           Stream stream);
template <class T>
void launch_sinkhorn_part(const Costs<T>& costs, double epsilon, const SinkhornState<T>& state, Stream stream);
template <class T>
void launch_sinkhorn_settle(const Costs<T>& costs, double tolerance, int64_t iteration, bool measure,
                            const SinkhornState<T>& state, const SinkhornReport<T>& report, Stream stream);
template <class T>
void launch_sinkhorn_finish(const Costs<T>& costs, double epsilon, const SinkhornState<T>& state, T* out, T* f,
                            Stream stream);

// Every part, from the first, for the columns' peaks and sums (pairs, M) of f - S, then every part for its part of the
// plan. f (pairs, N); `done` (pairs,) or null.
template <class T>
void launch_sinkhorn_columns(const Costs<T>& costs, double epsilon, const T* f, const T* done, T* peak, T* sum,
                             Stream stream);
template <class T>
void launch_sinkhorn_plan_rows(const Costs<T>& costs, double epsilon, const T* grads, const T* f, const T* peak,
                               const T* sum, const Weights<T>& to, Stream stream);

}  // namespace scav::device
