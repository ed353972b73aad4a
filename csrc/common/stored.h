// Rows of sequences that are stored in the caller's dtype, as the kernel's numbers.
// Included once per SIMD level (foreach_level.h): no include guard.

namespace scav::SCAV_LEVEL {

// A bfloat16 number is the high half of a float.
template <int W>
SCAV_INLINE void widen_bfloat16(const uint16_t* from, float* to) {
  typedef uint16_t Halves __attribute__((vector_size(W * sizeof(uint16_t)), aligned(sizeof(uint16_t)), may_alias));
  const Vec<uint32_t, W> bits = __builtin_convertvector(*reinterpret_cast<const Halves*>(from), Vec<uint32_t, W>) << 16;
  store<float, W>(to, bits_as<Vec<float, W>>(bits));
}

// Step `step` of sequence `b`: where it is stored, or converted into `room` (dim,).
template <class T>
const T* stored_row(const StoredRows<T>& from, int64_t b, int64_t step, T* room) {
  const int64_t offset = b * from.batch_stride + step * from.step_stride;
  if constexpr (std::is_same_v<T, float>) {
    if (from.stored == Stored::bfloat16) {
      constexpr int w = kWidth<float>;
      const uint16_t* row = static_cast<const uint16_t*>(from.data) + offset;
      int64_t k = 0;
      for (; k + w <= from.dim; k += w) {
        widen_bfloat16<w>(row + k, room + k);
      }
      for (; k < from.dim; ++k) {
        widen_bfloat16<1>(row + k, room + k);
      }
      return room;
    }
    if (from.stored == Stored::half) {
      const at::Half* row = static_cast<const at::Half*>(from.data) + offset;
      for (int64_t k = 0; k < from.dim; ++k) {
        room[k] = static_cast<float>(row[k]);
      }
      return room;
    }
  }
  return static_cast<const T*>(from.data) + offset;
}

}  // namespace scav::SCAV_LEVEL
