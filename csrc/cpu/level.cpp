#include "cpu/level.h"

#include <algorithm>
#include <cstdlib>

#include "shared/errors.h"

namespace scav {

std::string level_name(Level level) {
  switch (level) {
    case Level::avx512:
      return "avx512";
    case Level::avx2:
      return "avx2";
    default:
      return "baseline";
  }
}

const std::vector<Level>& available_levels() {
  static const std::vector<Level> levels = [] {
    std::vector<Level> found{Level::baseline};
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
      found.push_back(Level::avx2);
      if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
          __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
        found.push_back(Level::avx512);
      }
    }
#endif
    return found;
  }();
  return levels;
}

Level current_level() {
  static const Level level = [] {
    const char* wanted = std::getenv("SCAV_SIMD");
    const auto& levels = available_levels();
    if (wanted == nullptr || *wanted == '\0') {
      return levels.back();
    }
    std::string names;
    for (Level candidate : levels) {
      if (level_name(candidate) == wanted) {
        return candidate;
      }
      names += (names.empty() ? "" : ", ") + level_name(candidate);
    }
    SCAV_CHECK(false, "SCAV_SIMD=", wanted, " is not a SIMD level of this CPU; unset it or use one of: ", names);
  }();
  return level;
}

}  // namespace scav
