// The FLOP/s that multiply-adds between registers reach: no memory, no dependence but of each chain on itself.

#include <chrono>
#include <thread>
#include <vector>

namespace {

#if defined(__AVX512F__)
constexpr int VECTOR_BYTES = 64;
#elif defined(__AVX__)
constexpr int VECTOR_BYTES = 32;
#else
constexpr int VECTOR_BYTES = 16;
#endif

// Enough to hide the latency of two units, and few enough to stay in sixteen registers.
constexpr int CHAINS = 12;

template <typename Scalar>
void run_chains(long steps) {
  typedef Scalar Vector __attribute__((vector_size(VECTOR_BYTES)));
  Vector chain[CHAINS], half, one;
  half = Vector{} + Scalar(0.5);
  one = Vector{} + Scalar(1);
  for (int k = 0; k < CHAINS; ++k) chain[k] = Vector{} + Scalar(k);
  for (long i = 0; i < steps; ++i) {
#pragma GCC unroll 12
    for (int k = 0; k < CHAINS; ++k) chain[k] = chain[k] * half + one;  // tends to 2
  }
  Vector sum{};
  for (int k = 0; k < CHAINS; ++k) sum += chain[k];
  volatile Scalar used = sum[0];
  (void)used;
}

template <typename Scalar>
double flops(int threads, long steps) {
  const auto started = std::chrono::steady_clock::now();
  std::vector<std::thread> others;
  for (int i = 1; i < threads; ++i) others.emplace_back(run_chains<Scalar>, steps);
  run_chains<Scalar>(steps);
  for (auto& other : others) other.join();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - started;
  return 2.0 * CHAINS * (VECTOR_BYTES / sizeof(Scalar)) * steps * threads / seconds.count();
}

}  // namespace

extern "C" double float32_flops(int threads, long steps) { return flops<float>(threads, steps); }
extern "C" double float64_flops(int threads, long steps) { return flops<double>(threads, steps); }
