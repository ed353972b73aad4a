// scav_kernels._cuda: the CUDA kernels, which register themselves with torch's dispatcher when the module is loaded.

#include <pybind11/pybind11.h>

#include "shared/signals.h"

#define SCAV_TEXT_OF(...) #__VA_ARGS__
#define SCAV_TEXT(...) SCAV_TEXT_OF(__VA_ARGS__)

namespace {

pybind11::dict build_info() {
  pybind11::dict info;
  info["cuda_version"] = SCAV_TEXT(SCAV_CUDA_VERSION);
  info["cuda_architectures"] = SCAV_TEXT(SCAV_CUDA_ARCHITECTURES);
  return info;
}

}  // namespace

PYBIND11_MODULE(_cuda, m) {
  scav::poll_for_signals();
  m.doc() = "CUDA kernels of scav_kernels; see scav_kernels for the functions.";
  m.def("build_info", &build_info, "Version of CUDA, and architectures, that the kernels were built for.");
}
