#pragma once
// Headers that every cpu/<distance>.cpp includes before its kernels: all ordinary headers that the kernels use
// (foreach_level.h says why they come first).

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "shared/scratch.h"
#include "cpu/cost_inputs.h"
#include "cpu/inputs.h"
#include "cpu/layout.h"
#include "cpu/library_gemm.h"
#include "cpu/parallel.h"
#include "cpu/recursions.h"
#include "shared/boxed.h"
#include "shared/constants.h"

namespace scav {

// A gradient that is not needed is an undefined tensor.
template <class T>
T* data_or_null(Tensor& tensor) {
  return tensor.defined() ? tensor.mutable_data_ptr<T>() : nullptr;
}

}  // namespace scav
