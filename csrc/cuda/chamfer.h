#pragma once
// Launchers of chamfer_kernels.cu.

#include "cuda/cut.h"
#include "cuda/device_costs.h"
#include "shared/chamfer.h"

namespace scav::device {

// Scratch for the minima of pairs of up to N by M steps, without the costs; numbers have `element` bytes.
Needs chamfer_needs(int64_t n, int64_t m, int64_t element);

// Where the minima of the pairs of a tile go, and the nearest steps unless `nearest` is null.
template <class T>
struct ChamferMinima {
  ChamferSides sides;
  bool root;          // the distances are the roots of the costs
  T *rows, *columns;  // (pairs, N), (pairs, M) scratch
  int32_t* nearest;   // (results, sides.saved_steps(N, M)), zero on entry

  ChamferMinima(ChamferSides of, bool of_root, T* scratch, int64_t pairs, int64_t n, int32_t* steps)
      : sides(of), root(of_root), rows(scratch), columns(scratch + pairs * n), nearest(steps) {}
  static constexpr int64_t size(int64_t pairs, int64_t n, int64_t m) { return pairs * (n + m); }
};

// Every part of the rows, from the first; then finish, `out` by result. Euclidean costs are to be left squared.
template <class T>
void launch_chamfer_part(const Costs<T>& costs, const ChamferMinima<T>& minima, Stream stream);
template <class T>
void launch_chamfer_finish(const Costs<T>& costs, const ChamferMinima<T>& minima, T* out, Stream stream);

// The weights of the chosen cells that are in the tile's rows, `grads` by result; `to` is zero on entry.
template <class T>
void launch_chamfer_backward(const Costs<T>& costs, ChamferSides sides, const T* grads, const int32_t* nearest,
                             const Weights<T>& to, Stream stream);

}  // namespace scav::device
