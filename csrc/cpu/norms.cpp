#include "cpu/norms.h"

#include <cmath>
#include <cstring>
#include <type_traits>

#include "cpu/parallel.h"
#include "shared/constants.h"

#define SCAV_KERNELS "cpu/norms.inl"
#include "cpu/foreach_level.h"

namespace scav {

template <class T>
void measure(const T* data, const int64_t* lengths, int64_t batch, int64_t steps, int64_t dim, T* norms, T* nonfinite) {
  const auto of_sequence = SCAV_AT_LEVEL(measure_sequence<T>);
  const auto range = [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      of_sequence(data + b * steps * dim, lengths[b], dim, norms == nullptr ? nullptr : norms + b * steps,
                  nonfinite + b);
    }
  };
  // Waking threads takes longer than measuring so many numbers.
  constexpr int64_t kSmall = int64_t(1) << 15;
  if (batch * steps * dim <= kSmall) {
    range(0, batch);
  } else {
    run_ranges(batch, range);
  }
}

template void measure<float>(const float*, const int64_t*, int64_t, int64_t, int64_t, float*, float*);
template void measure<double>(const double*, const int64_t*, int64_t, int64_t, int64_t, double*, double*);

}  // namespace scav
