#include "shared/signals.h"

#include <pthread.h>
#include <pybind11/pybind11.h>

#include "shared/interrupt.h"

namespace scav {

namespace {

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

}  // namespace

void poll_for_signals() {
  main_thread = pybind11::module_::import("threading").attr("main_thread")().attr("ident").cast<unsigned long>();
  // A forked child has one thread, which is its main one.
  pthread_atfork(nullptr, nullptr, [] { main_thread = PyThread_get_thread_ident(); });
  set_interrupt_check(&check_signals);
}

}  // namespace scav
