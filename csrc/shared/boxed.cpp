#include "shared/boxed.h"

#include <pybind11/pybind11.h>

namespace scav {

namespace {

[[noreturn]] void throw_python_error(PyObject* type, const char* message) {
  // torch calls ops without the interpreter's lock.
  const pybind11::gil_scoped_acquire lock;
  PyErr_SetString(type, message);
  throw pybind11::error_already_set();
}

}  // namespace

void rethrow_for_python() {
  try {
    throw;
  } catch (const ValueError& error) {
    throw_python_error(PyExc_ValueError, error.what());
  } catch (const TypeError& error) {
    throw_python_error(PyExc_TypeError, error.what());
  }
}

}  // namespace scav
