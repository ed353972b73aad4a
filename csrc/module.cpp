// scav_kernels._C: build_info(), and how Python's signals end an op. The ops register themselves with torch's
// dispatcher when the module is loaded.

#include <pthread.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/headeronly/version.h>

#include <string>
#include <vector>

#include "shared/interrupt.h"
#include "cpu/level.h"
#include "cpu/library_gemm.h"

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

// The only thread on which Python runs signal handlers.
unsigned long main_thread = 0;

// Runs the handlers of signals that have come; what one raises, as Ctrl-C does, ends the op. The op was called without
// the interpreter's lock.
void check_signals() {
  if (PyThread_get_thread_ident() != main_thread) {
    return;
  }
  const pybind11::gil_scoped_acquire lock;
  if (PyErr_CheckSignals() != 0) {
    throw pybind11::error_already_set();
  }
}

void poll_for_signals() {
  main_thread = pybind11::module_::import("threading").attr("main_thread")().attr("ident").cast<unsigned long>();
  // A forked child has one thread, which is its main one.
  pthread_atfork(nullptr, nullptr, [] { main_thread = PyThread_get_thread_ident(); });
  scav::set_interrupt_check(&check_signals);
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  poll_for_signals();
  m.doc() = "Compiled kernels of scav_kernels; see scav_kernels for the functions.";
  m.def("build_info", &build_info,
        "Compiler, SIMD levels that this CPU has and the one in use, where float32 matrix products come from, and "
        "bfloat16 ones or None, version of torch that it was built with.");
}
