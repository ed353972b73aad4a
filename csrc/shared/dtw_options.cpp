#include "shared/dtw_options.h"

#include <cmath>

namespace scav {

DtwOptions check_dtw_options(const char* op, std::optional<int64_t> band, double step_penalty, double diagonal_weight,
                             bool open_begin, bool open_end, const std::optional<std::string>& normalize,
                             ScalarType dtype) {
  check_band(op, band);
  SCAV_CHECK_VALUE(step_penalty >= 0 && std::isfinite(step_penalty), op,
                   ": expected step_penalty >= 0 and finite, got ", step_penalty);
  if (step_penalty > 0) {
    check_positive(op, "step_penalty", step_penalty, dtype);
  }
  const PathOptions path = check_path_options(op, diagonal_weight, normalize, dtype);
  return {band, step_penalty, diagonal_weight, {open_begin, open_end}, path.normalize};
}

PathOptions check_path_options(const char* op, double diagonal_weight, const std::optional<std::string>& normalize,
                               ScalarType dtype) {
  check_positive(op, "diagonal_weight", diagonal_weight, dtype);
  SCAV_CHECK_VALUE(!normalize.has_value() || *normalize == "path" || *normalize == "steps", op,
                   ": expected normalize 'path', 'steps' or None, got '", normalize.value_or(""), "'");
  const Normalize by = !normalize.has_value() ? Normalize::none
                       : *normalize == "path" ? Normalize::path
                                              : Normalize::steps;
  return {diagonal_weight, by};
}

SoftDtwOptions check_soft_dtw_options(const char* op, double gamma, std::optional<int64_t> band, bool open_begin,
                                      bool open_end, ScalarType dtype) {
  check_positive(op, "gamma", gamma, dtype);
  check_band(op, band);
  return {gamma, band, {open_begin, open_end}};
}

}  // namespace scav
