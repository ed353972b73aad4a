#pragma once
// Launchers of sinkhorn_kernels.cu and, below, sinkhorn_parts.cu.

#include "cuda/cut.h"
#include "cuda/device_costs.h"
#include "cuda/step_weights.h"
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
// `element` bytes. Pairs of weighted steps keep weighted potentials for the plans.
Needs sinkhorn_needs(KernelPlace place, int64_t n, int64_t m, int64_t element);
Needs sinkhorn_plan_needs(int64_t n, int64_t m, int64_t element, bool weighted);

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
// `weights` are null where all steps weigh the same and epsilon is not scaled.
template <class T>
void launch_sinkhorn_forward(const Costs<T>& costs, KernelPlace place, const SinkhornOptions& options,
                             const StepWeights<T>& weights, T* scratch, T* out, T* f, const SinkhornReport<T>& report,
                             Stream stream);

// What a plan follows from: `f` (results, N); and of weighted steps, else null, their weights, F + log n a by pair of
// the tile (pairs, N), and where G goes (results, M), or null.
template <class T>
struct SinkhornPotentials {
  const T* f;
  StepWeights<T> weights;
  T *weighted_f, *g;
};

// Fills weighted_f.
template <class T>
void launch_sinkhorn_weigh_rows(const Costs<T>& costs, const SinkhornPotentials<T>& from, Stream stream);

// The plan of each pair, as weights; `grads` by result.
template <class T>
void launch_sinkhorn_backward(const Costs<T>& costs, double epsilon, const T* grads, const SinkhornPotentials<T>& from,
                              const Weights<T>& to, Stream stream);

// Potentials of the pairs of a tile whose K is held nowhere: F, F of the iteration that runs, without and with the
// weights, what its marginals lack (pairs, N); G, which includes the weights, peaks and sums of its columns (pairs, M);
// whether a pair has converged, and the epsilon that it is at (pairs,).
template <class T>
struct SinkhornState {
  T *f, *f_next, *weighted_f, *errors, *g, *peak, *sum, *done, *epsilon;
  StepWeights<T> weights;  // null where all steps weigh the same and epsilon is not scaled

  SinkhornState(T* memory, int64_t pairs, int64_t n, int64_t m, const StepWeights<T>& of)
      : f(memory),
        f_next(f + pairs * n),
        weighted_f(f_next + pairs * n),
        errors(weighted_f + pairs * n),
        g(errors + pairs * n),
        peak(g + pairs * m),
        sum(peak + pairs * m),
        done(sum + pairs * m),
        epsilon(done + pairs),
        weights(of) {}
  static constexpr int64_t size(int64_t pairs, int64_t n, int64_t m) { return pairs * (4 * n + 3 * m + 2); }
};

// start; where epsilon is scaled, every part for the largest cost, then anneal, and for each iteration on the way every
// part, then anneal, and start again, which leaves G; then for each iteration every part, from the first, and settle;
// then finish. A tolerance of 0 stops nothing.
// settle reports on the pairs that it stops, after the `iteration` that have been before. Once more after the last
// iteration, with `measure`, it applies none and reports on all that are left.
template <class T>
void launch_sinkhorn_start(const Costs<T>& costs, double epsilon, bool annealed, const SinkhornState<T>& state,
                           const SinkhornReport<T>& report, Stream stream);
template <class T>
void launch_sinkhorn_largest(const Costs<T>& costs, const SinkhornState<T>& state, Stream stream);
template <class T>
void launch_sinkhorn_anneal(const Costs<T>& costs, const SinkhornOptions& options, int64_t iteration,
                            const SinkhornState<T>& state, Stream stream);
template <class T>
void launch_sinkhorn_part(const Costs<T>& costs, double epsilon, const SinkhornState<T>& state, Stream stream);
template <class T>
void launch_sinkhorn_settle(const Costs<T>& costs, double tolerance, int64_t iteration, bool measure,
                            const SinkhornState<T>& state, const SinkhornReport<T>& report, Stream stream);
template <class T>
void launch_sinkhorn_finish(const Costs<T>& costs, double epsilon, const SinkhornState<T>& state, T* out, T* f,
                            Stream stream);

// Every part, from the first, for the columns' peaks and sums (pairs, M) of f - S, then every part for its part of the
// plan. f (pairs, N); `done` and `epsilons` (pairs,) or null. `from` has the weights and G.
template <class T>
void launch_sinkhorn_columns(const Costs<T>& costs, double epsilon, const T* epsilons, const T* f, const T* done,
                             T* peak, T* sum, Stream stream);
template <class T>
void launch_sinkhorn_plan_rows(const Costs<T>& costs, double epsilon, const T* grads, const T* f, const T* peak,
                               const T* sum, const SinkhornPotentials<T>& from, const Weights<T>& to, Stream stream);

}  // namespace scav::device
