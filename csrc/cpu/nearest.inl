// The k smallest of many bounds or distances.
// Included once per SIMD level (foreach_level.h): no include guard.

namespace scav::SCAV_LEVEL {

// An item, and a bound of its distance.
template <class T>
struct BoundOf {
  T bound;
  int64_t item;

  friend bool operator<(const BoundOf& a, const BoundOf& b) {
    return a.bound < b.bound || (a.bound == b.bound && a.item < b.item);
  }
};

// Keeps the k smallest of the bounds offered, and at most 2 k at any time.
template <class T>
class TopK {
 public:
  TopK(int64_t k, T limit) : k_(static_cast<size_t>(k)), limit_(limit) {}

  // Larger bounds are of no interest.
  T limit() const { return limit_; }

  void offer(BoundOf<T> one) {
    if (one.bound <= limit_) {
      kept_.push_back(one);
      if (kept_.size() == 2 * k_) {
        cut();
      }
    }
  }

  const std::vector<BoundOf<T>>& sorted() {
    cut();
    std::sort(kept_.begin(), kept_.end());
    return kept_;
  }

  // Lowers the limit where enough were offered to be worth the time.
  void tighten() {
    if (kept_.size() > k_ + k_ / 8) {
      cut();
    }
  }

 private:
  void cut() {
    if (kept_.size() >= k_) {
      const auto last = kept_.begin() + static_cast<std::ptrdiff_t>(k_ - 1);
      std::nth_element(kept_.begin(), last, kept_.end());
      limit_ = last->bound;
      kept_.resize(k_);
    }
  }

  size_t k_;
  T limit_;
  std::vector<BoundOf<T>> kept_;
};

}  // namespace scav::SCAV_LEVEL
