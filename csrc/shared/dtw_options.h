#pragma once
// Checks of the options of DTW and soft-DTW, for distances of `dtype`.

#include <optional>
#include <string>

#include "shared/checks.h"
#include "shared/dtw.h"

namespace scav {

DtwOptions check_dtw_options(const char* op, std::optional<int64_t> band, double step_penalty, double diagonal_weight,
                             bool open_begin, bool open_end, const std::optional<std::string>& normalize,
                             ScalarType dtype);

PathOptions check_path_options(const char* op, double diagonal_weight, const std::optional<std::string>& normalize,
                               ScalarType dtype);

SoftDtwOptions check_soft_dtw_options(const char* op, double gamma, std::optional<int64_t> band, bool open_begin,
                                      bool open_end, ScalarType dtype);

}  // namespace scav
