// y's packed for the products, and the gradients that the products compute.
// Included once per SIMD level (foreach_level.h): no include guard.

namespace scav::SCAV_LEVEL {

// Rows that are multiplied as bfloat16 numbers become rows of words: features 2 k and 2 k + 1, zero past the last.
inline int64_t words_of(int64_t dim) { return (dim + 1) / 2; }

// `row` holds bfloat16 numbers: the low halves of its bits are zero.
template <class T>
void to_words(const T* row, int64_t dim, uint32_t* words) {
  if constexpr (std::is_same_v<T, float>) {
    for (int64_t k = 0; k < dim / 2; ++k) {
      uint32_t bits[2];
      std::memcpy(bits, row + 2 * k, sizeof bits);
      words[k] = bits[0] >> 16 | bits[1];
    }
    if (dim % 2 != 0) {
      uint32_t bits;
      std::memcpy(&bits, row + dim - 1, sizeof bits);
      words[dim / 2] = bits >> 16;
    }
  }
}

// (batch, steps, words_of(D)) of the valid steps.
template <class T>
Buffer<uint32_t> to_words(const Sequences<T>& x) {
  const int64_t word_count = words_of(x.dim), parts = thread_count();
  Buffer<uint32_t> words(x.batch * x.steps * word_count);
  run_parts(parts, [&](int64_t part) {
    for (int64_t b = x.batch * part / parts; b < x.batch * (part + 1) / parts; ++b) {
      for (int64_t s = 0; s < x.lengths[b]; ++s) {
        to_words<T>(x.row(b, s), x.dim, words.data() + (b * x.steps + s) * word_count);
      }
    }
  });
  return words;
}

// The y's in the order of a Layout: `panels` are the right operand of the cost's product, `rows` of its adjoint's.
// Columns without a step, and sequences with inf or NaN, are zero.
template <class T>
struct Packed {
  const Sequences<T>* y;
  Layout layout;
  Buffer<T> panels;        // (D, panel) for each panel, or
  Buffer<uint32_t> words;  // (words_of(D), panel) for each panel where they are multiplied as bfloat16
  Buffer<T> norms;         // (columns,), where the y's have norms
  Buffer<T> rows;          // (columns, D), where asked for

  int64_t index(const Group& group, int64_t lane) const {
    return layout.order[static_cast<size_t>(group.first + lane)];
  }
  int64_t length(const Group& group, int64_t lane) const {
    return lane < group.count ? y->lengths[index(group, lane)] : 0;
  }
  // Row of y in column `column` of the group, or null where there is none.
  const T* source(const Group& group, int64_t column) const {
    const int64_t step = column / group.lanes, lane = column % group.lanes;
    if (step >= length(group, lane) || y->nonfinite[index(group, lane)] != 0) {
      return nullptr;
    }
    return y->row(index(group, lane), step);
  }
};

// (group, first panel) of every panel, in column order.
inline std::vector<std::pair<const Group*, int64_t>> all_panels(const Layout& layout) {
  std::vector<std::pair<const Group*, int64_t>> panels;
  for (const Group& group : layout.groups) {
    for (int64_t panel = 0; panel < group.panels(); ++panel) {
      panels.emplace_back(&group, panel);
    }
  }
  return panels;
}

// Scratch of a thread that packs panels.
template <class T>
struct PackScratch {
  std::vector<T> nothing;   // a row of zeros
  Buffer<uint32_t> by_row;  // (kPanel, words_of(D)), where rows become words

  PackScratch(int64_t dim, bool in_bfloat16)
      : nothing(static_cast<size_t>(dim), T(0)), by_row(in_bfloat16 ? kPanel * words_of(dim) : 0) {}
};

// Writes one panel of a group to the buffers that `packed` has.
template <class T>
void pack_panel(const Packed<T>& packed, const Group& group, int64_t panel, const PackScratch<T>& scratch) {
  const Sequences<T>& y = *packed.y;
  const int64_t dim = y.dim, word_count = words_of(dim), width = group.panel, first = group.column + panel * width;
  poll(width * dim);
  const T* sources[kPanel];
  for (int64_t j = 0; j < width; ++j) {
    const T* row = packed.source(group, panel * width + j);
    if (y.norms != nullptr) {
      packed.norms[first + j] = row ? y.norms[(row - y.data) / dim] : T(0);
    }
    sources[j] = row ? row : scratch.nothing.data();
    if (packed.rows.data() != nullptr) {
      std::copy_n(sources[j], dim, packed.rows.data() + (first + j) * dim);
    }
  }
  if (packed.words.data() != nullptr) {
    for (int64_t j = 0; j < width; ++j) {
      to_words<T>(sources[j], dim, scratch.by_row.data() + j * word_count);
    }
    uint32_t* to = packed.words.data() + first * word_count;
    transpose<uint32_t>(
        width, word_count, [&](int64_t j) { return scratch.by_row.data() + j * word_count; },
        [&](int64_t k) { return to + k * width; });
  } else {
    T* to = packed.panels.data() + first * dim;
    transpose<T>(width, dim, [&](int64_t j) { return sources[j]; }, [&](int64_t k) { return to + k * width; });
  }
}

// Room for `columns` of the y's, of which nothing is packed yet.
template <class T>
Packed<T> packed_room(const Sequences<T>& y, Layout layout, int64_t columns, bool with_rows, bool in_bfloat16) {
  Packed<T> packed{&y, std::move(layout), {}, {}, {}, {}};
  if (in_bfloat16) {
    packed.words = Buffer<uint32_t>(columns * words_of(y.dim));
  } else {
    packed.panels = Buffer<T>(columns * y.dim);
  }
  if (y.norms != nullptr) {
    packed.norms = Buffer<T>(columns);
  }
  if (with_rows) {
    packed.rows = Buffer<T>(columns * y.dim);
  }
  return packed;
}

template <class T>
Packed<T> pack(const Sequences<T>& y, Layout layout, bool with_rows, bool in_bfloat16) {
  const int64_t columns = layout.columns;
  Packed<T> packed = packed_room(y, std::move(layout), columns, with_rows, in_bfloat16);
  const auto panels = all_panels(packed.layout);
  const auto count = static_cast<int64_t>(panels.size());
  const int64_t parts = std::min<int64_t>(thread_count(), count);
  run_parts(parts, [&](int64_t part) {
    const PackScratch<T> scratch(y.dim, in_bfloat16);
    for (int64_t index = count * part / parts; index < count * (part + 1) / parts; ++index) {
      pack_panel(packed, *panels[static_cast<size_t>(index)].first, panels[static_cast<size_t>(index)].second, scratch);
    }
  });
  return packed;
}

// Sums of the gradient of one x against one group; null for a side that needs no gradient.
template <class T>
struct Adjoint {
  T* dx;          // (n, D)
  T* dy;          // (columns, D), without the part along y
  T* dy_weights;  // (columns,): the factor of y in that part
};

// Gradients of the packed y's: sums over their columns, and the factor of y itself.
template <class T>
struct PackedGradient {
  Buffer<T> rows, weights;

  PackedGradient(const Packed<T>& packed, bool needed) {
    if (!needed) {
      return;
    }
    rows = Buffer<T>(packed.layout.columns * packed.y->dim);
    weights = Buffer<T>(packed.layout.columns);
    std::fill_n(weights.data(), packed.layout.columns, T(0));
    const int64_t size = packed.layout.columns * packed.y->dim, parts = thread_count();
    run_parts(parts, [&](int64_t part) {
      std::fill(rows.data() + size * part / parts, rows.data() + size * (part + 1) / parts, T(0));
    });
  }

  // Writes the valid steps of dy (B2, M, D).
  void unpack(const Packed<T>& packed, T* dy) const {
    if (dy == nullptr) {
      return;
    }
    const int64_t dim = packed.y->dim;
    const auto all = all_panels(packed.layout);
    const auto count = static_cast<int64_t>(all.size());
    const int64_t parts = thread_count();
    run_parts(parts, [&](int64_t part) {
      for (int64_t index = count * part / parts; index < count * (part + 1) / parts; ++index) {
        const auto [group, panel] = all[static_cast<size_t>(index)];
        const int64_t first = group->column + panel * group->panel;
        poll(group->panel * dim);
        for (int64_t j = 0; j < group->panel; ++j) {
          const T* row = packed.source(*group, panel * group->panel + j);
          if (row == nullptr) {
            continue;
          }
          T* to = dy + (row - packed.y->data);
          const T* gathered = rows.data() + (first + j) * dim;
          const T along = weights[first + j];
          for (int64_t k = 0; k < dim; ++k) {
            to[k] = gathered[k] + along * row[k];
          }
        }
      }
    });
  }

  Adjoint<T> adjoint(T* dx) const { return {dx, rows.data(), weights.data()}; }
};

}  // namespace scav::SCAV_LEVEL
