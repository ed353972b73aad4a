#pragma once

namespace scav {

// A cosine divides by norms of at least this, as torch.nn.functional.cosine_similarity does.
inline constexpr double kSmallestNorm = 1e-8;

}  // namespace scav
