// What arithmetic between registers reaches: no memory, no dependence but of each chain on itself. FLOP/s of
// multiply-adds; and cells per second of the least that dynamic time warping of one feature needs: a subtraction, two
// minima and a multiply-add.

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

template <typename Vector>
inline Vector minimum(Vector a, Vector b) {
  return a < b ? a : b;
}

template <typename Scalar>
void run_cells(long steps) {
  typedef Scalar Vector __attribute__((vector_size(VECTOR_BYTES)));
  Vector chain[CHAINS], step, up, left, one;
  // Unknown to the compiler: a subtraction as a multiply-add by one uses other ports than the minima.
  volatile Scalar hidden = 1;
  one = Vector{} + hidden;
  step = one * Scalar(0.5);
  up = one * Scalar(3);
  left = one * Scalar(4);
  for (int k = 0; k < CHAINS; ++k) chain[k] = Vector{} + Scalar(k);
  for (long i = 0; i < steps; ++i) {
#pragma GCC unroll 12
    for (int k = 0; k < CHAINS; ++k) {
      const Vector difference = chain[k] * one - step;
      chain[k] = difference * difference + minimum(minimum(chain[k], up), left);
    }
  }
  Vector sum{};
  for (int k = 0; k < CHAINS; ++k) sum += chain[k];
  volatile Scalar used = sum[0];
  (void)used;
}

// Vectors of all chains per second.
double rate(void (*run)(long), int threads, long steps) {
  const auto started = std::chrono::steady_clock::now();
  std::vector<std::thread> others;
  for (int i = 1; i < threads; ++i) others.emplace_back(run, steps);
  run(steps);
  for (auto& other : others) other.join();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - started;
  return double(CHAINS) * steps * threads / seconds.count();
}

template <typename Scalar>
double flops(int threads, long steps) {
  return 2.0 * (VECTOR_BYTES / sizeof(Scalar)) * rate(run_chains<Scalar>, threads, steps);
}

template <typename Scalar>
double cells(int threads, long steps) {
  return double(VECTOR_BYTES / sizeof(Scalar)) * rate(run_cells<Scalar>, threads, steps);
}

}  // namespace

extern "C" double float32_flops(int threads, long steps) { return flops<float>(threads, steps); }
extern "C" double float64_flops(int threads, long steps) { return flops<double>(threads, steps); }
extern "C" double float32_cells(int threads, long steps) { return cells<float>(threads, steps); }
extern "C" double float64_cells(int threads, long steps) { return cells<double>(threads, steps); }
