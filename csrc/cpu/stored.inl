// Rows of sequences that are stored in the caller's dtype, as the kernel's numbers.
// Included once per SIMD level (foreach_level.h): no include guard.

namespace scav::SCAV_LEVEL {

// Numbers [k, k + W) of a stored row.
template <class T, int W, Stored form>
SCAV_INLINE Vec<T, W> load_stored(const void* row, int64_t k) {
  if constexpr (form == Stored::same) {
    return load<T, W>(static_cast<const T*>(row) + k);
  } else if constexpr (form == Stored::bfloat16) {
    // The high half of a float.
    typedef uint16_t Halves __attribute__((vector_size(W * sizeof(uint16_t)), aligned(sizeof(uint16_t)), may_alias));
    const Halves halves = *reinterpret_cast<const Halves*>(static_cast<const uint16_t*>(row) + k);
    return bits_as<Vec<T, W>>(__builtin_convertvector(halves, Vec<uint32_t, W>) << 16);
  } else {
    Vec<T, W> numbers;
    for (int lane = 0; lane < W; ++lane) {
      numbers[lane] = static_cast<T>(static_cast<const torch::headeronly::Half*>(row)[k + lane]);
    }
    return numbers;
  }
}

// Address of step `step` of sequence `b`.
template <class T>
const void* stored_at(const StoredRows<T>& from, int64_t b, int64_t step) {
  const int64_t bytes = from.stored == Stored::same ? static_cast<int64_t>(sizeof(T)) : 2;
  return static_cast<const char*>(from.data) + (b * from.batch_stride + step * from.step_stride) * bytes;
}

template <class T, Stored form>
void convert_row(const void* row, int64_t dim, T* to) {
  constexpr int w = kWidth<T>;
  int64_t k = 0;
  for (; k + w <= dim; k += w) {
    store<T, w>(to + k, load_stored<T, w, form>(row, k));
  }
  for (; k < dim; ++k) {
    to[k] = load_stored<T, 1, form>(row, k)[0];
  }
}

// Step `step` of sequence `b`: where it is stored, or converted into `scratch` (dim,).
template <class T>
const T* stored_row(const StoredRows<T>& from, int64_t b, int64_t step, T* scratch) {
  const void* row = stored_at(from, b, step);
  if constexpr (std::is_same_v<T, float>) {
    if (from.stored == Stored::bfloat16) {
      convert_row<T, Stored::bfloat16>(row, from.dim, scratch);
      return scratch;
    }
    if (from.stored == Stored::half) {
      convert_row<T, Stored::half>(row, from.dim, scratch);
      return scratch;
    }
  }
  return static_cast<const T*>(row);
}

// Sequence `b` between two of its steps: where it is stored, or in `scratch` (dim,), as are `left` and `right`.
template <class T>
const T* resampled_row(const StoredRows<T>& from, int64_t b, const Interpolation& at, T* left, T* right, T* scratch) {
  if (at.left == at.right) {
    return stored_row(from, b, at.left, scratch);
  }
  const T *before = stored_row(from, b, at.left, left), *after = stored_row(from, b, at.right, right);
  const T weight = static_cast<T>(at.weight);
  for (int64_t k = 0; k < from.dim; ++k) {
    scratch[k] = before[k] + weight * (after[k] - before[k]);
  }
  return scratch;
}

}  // namespace scav::SCAV_LEVEL
