#include "cpu/torch_settings.h"

#include <pybind11/pybind11.h>

#include <string>

namespace scav {

namespace {

namespace py = pybind11;

// Kept until the process ends: the interpreter may be gone before this library.
const py::object& kept(py::object object) { return *new py::object(std::move(object)); }

// What the public property reads, without the microseconds of the properties: a function of torch._C, or null where
// this torch has none of that name.
const py::object& reader(const char* name) {
  return kept(py::getattr(py::module_::import("torch._C"), name, py::none()));
}

}  // namespace

bool onednn_is_enabled() {
  const py::gil_scoped_acquire lock;
  static const py::object& read = reader("_get_mkldnn_enabled");
  static const py::object& mkldnn = kept(py::module_::import("torch.backends.mkldnn"));
  return (read.is_none() ? py::object(mkldnn.attr("enabled")) : read()).cast<bool>();
}

bool float32_may_be_bfloat16() {
  const py::gil_scoped_acquire lock;
  static const py::object& read = reader("_get_fp32_precision_getter");
  static const py::object& matmul = kept(py::module_::import("torch.backends.mkldnn").attr("matmul"));
  const py::object precision = read.is_none() ? py::object(matmul.attr("fp32_precision")) : read("mkldnn", "matmul");
  return precision.cast<std::string>() == "bf16";
}

void use_one_thread() {
  const py::gil_scoped_acquire lock;
  py::module_::import("torch").attr("set_num_threads")(1);
}

}  // namespace scav
