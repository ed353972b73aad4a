#pragma once
// Which SIMD level the CPU kernels run at. Every level is compiled into the one binary (foreach_level.h); the best one
// that this CPU has is used unless the environment variable SCAV_SIMD names a lower one.

#include <string>
#include <vector>

namespace scav {

enum class Level { baseline, avx2, avx512 };

std::string level_name(Level level);
// Levels this CPU can run, lowest first.
const std::vector<Level>& available_levels();
// The level in use, settled on the first call; throws where SCAV_SIMD names one that this CPU lacks.
Level current_level();

}  // namespace scav
