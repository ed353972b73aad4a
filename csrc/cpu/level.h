#pragma once
// SIMD level of the CPU kernels. Every level is compiled into the one binary (foreach_level.h); the best one
// that this CPU has is used unless the environment variable SCAV_SIMD names a lower one.

#include <string>
#include <vector>

namespace scav {

enum class Level { baseline, avx2, avx512 };

std::string level_name(Level level);
// Levels this CPU can run, lowest first.
const std::vector<Level>& available_levels();
// Level in use, chosen on the first call; throws if SCAV_SIMD names a level that this CPU lacks.
Level current_level();

}  // namespace scav
