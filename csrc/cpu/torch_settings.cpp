#include "cpu/torch_settings.h"

#include <pybind11/pybind11.h>

#include <string>

namespace scav {

namespace {

// Looked up once, and kept until the process ends: the interpreter may be gone before this library.
const pybind11::object& mkldnn() {
  static const auto* const module = new pybind11::object(pybind11::module_::import("torch.backends.mkldnn"));
  return *module;
}

const pybind11::object& mkldnn_matmul() {
  static const auto* const settings = new pybind11::object(mkldnn().attr("matmul"));
  return *settings;
}

}  // namespace

bool onednn_is_enabled() {
  const pybind11::gil_scoped_acquire lock;
  return mkldnn().attr("enabled").cast<bool>();
}

bool float32_may_be_bfloat16() {
  const pybind11::gil_scoped_acquire lock;
  return mkldnn_matmul().attr("fp32_precision").cast<std::string>() == "bf16";
}

void use_one_thread() {
  const pybind11::gil_scoped_acquire lock;
  pybind11::module_::import("torch").attr("set_num_threads")(1);
}

}  // namespace scav
