// The mean L1 distance of steps, and its gradient. Included once per SIMD level (foreach_level.h): no include guard.

namespace scav::SCAV_LEVEL {

// Steps that both sequences of a pair have.
template <class T>
int64_t common_steps(const Sequences<T>& x, const Sequences<T>& y, int64_t i, int64_t j) {
  return std::min(x.lengths[i], y.lengths[j]);
}

template <class T>
T mean_l1_of_pair(const Sequences<T>& x, const Sequences<T>& y, int64_t i, int64_t j) {
  const int64_t steps = common_steps(x, y, i, j);
  T sum = 0;
  for (int64_t t = 0; t < steps; ++t) {
    const T *a = x.row(i, t), *b = y.row(j, t);
    T step = 0;
    for (int64_t k = 0; k < x.dim; ++k) {
      step += std::abs(a[k] - b[k]);
    }
    sum += step;
  }
  return sum / static_cast<T>(steps);
}

// Adds `grad` times the derivative of the distance with respect to sequence `i` of `to`.
template <class T>
void add_mean_l1_gradient(const Sequences<T>& to, const Sequences<T>& from, int64_t i, int64_t j, T grad, T* gradient) {
  const int64_t steps = common_steps(to, from, i, j);
  const T share = grad / static_cast<T>(steps);
  for (int64_t t = 0; t < steps; ++t) {
    const T *a = to.row(i, t), *b = from.row(j, t);
    T* out = gradient + (i * to.steps + t) * to.dim;
    for (int64_t k = 0; k < to.dim; ++k) {
      out[k] += share * static_cast<T>((a[k] > b[k]) - (a[k] < b[k]));
    }
  }
}

// out: (B1, B2), or (B,) of pairs.
template <class T>
void mean_l1_forward(const Inputs& inputs, double weight, T* out) {
  const Sequences<T> x = inputs.sequences_x<T>(), y = inputs.sequences_y<T>();
  const int64_t parts = thread_count();
  run_parts(parts, [&](int64_t part) {
    for (int64_t i = x.batch * part / parts; i < x.batch * (part + 1) / parts; ++i) {
      poll(y.batch * y.steps * y.dim);
      if (inputs.paired) {
        out[i] = static_cast<T>(weight) * mean_l1_of_pair(x, y, i, i);
        continue;
      }
      for (int64_t j = 0; j < y.batch; ++j) {
        out[i * y.batch + j] = static_cast<T>(weight) * mean_l1_of_pair(x, y, i, j);
      }
    }
  });
}

// The gradient of one side, `to`; grad[i * stride_to + j * stride_from] is that of the pair (i, j).
template <class T>
void mean_l1_backward(const Inputs& inputs, const Sequences<T>& to, const Sequences<T>& from, double weight,
                      const T* grad, int64_t stride_to, int64_t stride_from, T* gradient) {
  const int64_t parts = thread_count();
  run_parts(parts, [&](int64_t part) {
    for (int64_t i = to.batch * part / parts; i < to.batch * (part + 1) / parts; ++i) {
      poll(from.batch * from.steps * from.dim);
      const int64_t first = inputs.paired ? i : 0, end = inputs.paired ? i + 1 : from.batch;
      for (int64_t j = first; j < end; ++j) {
        const T outer = inputs.paired ? grad[i] : grad[i * stride_to + j * stride_from];
        add_mean_l1_gradient(to, from, i, j, static_cast<T>(weight) * outer, gradient);
      }
    }
  });
}

}  // namespace scav::SCAV_LEVEL
