// Weights of steps on a GPU, and their gradient: a block has a sequence.

#include "cuda/device.h"
#include "cuda/step_weights.h"

namespace scav::device {

namespace {

constexpr int kThreads = 128, kWarps = kThreads / kWarp;

SCAV_DEVICE int64_t length_of(const GivenWeights& given) {
  return given.lengths ? given.lengths[blockIdx.x] : given.steps;
}

template <class T>
__global__ void __launch_bounds__(kThreads, 1)
    prepare_weights(GivenWeights given, T* relative, double* means, T* nonfinite) {
  double* const sums = shared_memory<double>();
  const int64_t length = length_of(given), first = int64_t(blockIdx.x) * given.steps;
  double largest = 0, bad = 0, sum = 0;
  for (int64_t step = threadIdx.x; step < length; step += kThreads) {
    const double weight = given.weights[first + step];
    largest = max(largest, weight);
    bad += weight >= 0 && weight - weight == 0 ? 0.0 : 1.0;
  }
  largest = block_max(largest, sums);
  const bool kept = block_sum(bad, sums) == 0 && largest > 0;
  for (int64_t step = threadIdx.x; kept && step < length; step += kThreads) {
    sum += given.weights[first + step] / largest;
  }
  const double mean = block_sum(sum, sums) / static_cast<double>(length);
  for (int64_t step = threadIdx.x; step < given.steps; step += kThreads) {
    // The distances of a sequence without weights are NaN, whatever they are computed from.
    const double weight = kept ? given.weights[first + (step < length ? step : 0)] / largest / mean : 1.0;
    relative[first + step] = step < length ? static_cast<T>(weight) : T(0);
  }
  if (threadIdx.x == 0) {
    means[blockIdx.x] = kept ? mean * largest : 1.0;
    nonfinite[blockIdx.x] = kept ? T(0) : std::numeric_limits<T>::quiet_NaN();
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads, 1) weights_gradient(GivenWeights given, WeightSums<T> of, T* gradient) {
  double* const sums = shared_memory<double>();
  const int64_t length = length_of(given), first = int64_t(blockIdx.x) * given.steps;
  const auto result = [&](int64_t k) { return blockIdx.x * of.pairs.stride + k * of.pairs.step; };
  double marks = 0;
  for (int64_t k = threadIdx.x; k < of.pairs.count; k += kThreads) {
    const T held = of.nonfinite[result(k)];
    const bool without = of.blocked && held == std::numeric_limits<T>::infinity();
    marks += held != T(0) && !without && of.grads[result(k)] != T(0) ? 1.0 : 0.0;
  }
  const bool nonfinite = block_sum(marks, sums) > 0;
  double mean = 0;
  for (int64_t step = threadIdx.x; step < given.steps; step += kThreads) {
    double sum = 0;
    for (int64_t k = 0; step < length && k < of.pairs.count; ++k) {
      const T grad = of.grads[result(k)];
      if (grad == T(0) || of.nonfinite[result(k)] != T(0)) {
        continue;
      }
      const double value = static_cast<double>(of.potentials[result(k) * given.steps + step]);
      const double potential = of.epsilon * value;
      // Nothing finite leads to this step: an infinite cost is kUnreachable, or -kMasked in units of epsilon.
      const bool blocked = max(value, potential) > static_cast<double>(kReached<T>);
      sum += static_cast<double>(grad) * (blocked ? std::numeric_limits<double>::infinity() : potential);
    }
    const double relative = static_cast<double>(of.relative[first + step]);
    mean += relative > 0 ? relative * sum : 0.0;
    gradient[first + step] = static_cast<T>(sum);
  }
  mean = block_sum(mean, sums) / static_cast<double>(length);
  const double scale = static_cast<double>(length) * of.means[blockIdx.x];
  for (int64_t step = threadIdx.x; step < given.steps; step += kThreads) {
    const double value = (static_cast<double>(gradient[first + step]) - mean) / scale;
    const T valid = nonfinite ? std::numeric_limits<T>::quiet_NaN() : static_cast<T>(value);
    gradient[first + step] = step < length ? valid : T(0);
  }
}

}  // namespace

template <class T>
void prepare_step_weights(const GivenWeights& given, T* relative, double* means, T* nonfinite, Stream stream) {
  launch("weights of steps", prepare_weights<T>, given.batch, kThreads, kWarps * sizeof(double), stream, given,
         relative, means, nonfinite);
}

template <class T>
void write_weights_gradient(const GivenWeights& given, const WeightSums<T>& sums, T* gradient, Stream stream) {
  launch("gradient of weights", weights_gradient<T>, given.batch, kThreads, kWarps * sizeof(double), stream, given,
         sums, gradient);
}

#define SCAV_INSTANTIATE(T)                                                         \
  template void prepare_step_weights(const GivenWeights&, T*, double*, T*, Stream); \
  template void write_weights_gradient(const GivenWeights&, const WeightSums<T>&, T*, Stream)
SCAV_INSTANTIATE(float);
SCAV_INSTANTIATE(double);

}  // namespace scav::device
