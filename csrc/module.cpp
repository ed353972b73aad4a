// scav_kernels._C: build_info(). The ops register themselves with torch's dispatcher when the module is loaded.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/headeronly/version.h>

#include <string>
#include <vector>

#include "cpu/level.h"
#include "cpu/library_gemm.h"
#include "shared/signals.h"

namespace {

pybind11::dict build_info() {
  pybind11::dict info;
#if defined(__clang__)
  info["compiler"] = "clang " __clang_version__;
#else
  info["compiler"] = "gcc " __VERSION__;
#endif
  std::vector<std::string> levels;
  for (scav::Level level : scav::available_levels()) {
    levels.push_back(scav::level_name(level));
  }
  info["simd_levels"] = levels;
  info["simd_level"] = scav::level_name(scav::current_level());
  info["matmul"] = scav::has_library_gemm() ? "onednn" : "scav";
  info["bfloat16_matmul"] = scav::has_bfloat16_gemm() ? pybind11::object(pybind11::str("onednn")) : pybind11::none();
  info["torch_version"] = TORCH_VERSION;
  return info;
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  scav::poll_for_signals();
  m.doc() = "Compiled kernels of scav_kernels; see scav_kernels for the functions.";
  m.def("build_info", &build_info,
        "Compiler, SIMD levels that this CPU has and the one in use, where float32 matrix products come from, and "
        "bfloat16 ones or None, version of torch that it was built with.");
}
