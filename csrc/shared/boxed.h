#pragma once
// Registers functions with torch's dispatcher: m.impl(name, SCAV_BOX(&function)).

#include <torch/csrc/stable/library.h>

#include "shared/tensor.h"

namespace scav {

// Turns the exception that is being handled into Python's exception of its name.
[[noreturn]] void rethrow_for_python();

template <auto function>
void boxed(StableIValue* stack, uint64_t inputs, uint64_t outputs) {
  try {
    torch::stable::detail::boxer<std::remove_pointer_t<decltype(function)>, function>::boxed_fn(stack, inputs, outputs);
  } catch (...) {
    rethrow_for_python();
  }
}

}  // namespace scav

#define SCAV_BOX(function) (&::scav::boxed<(function)>)
