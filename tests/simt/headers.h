// What takes most of the compilation of host files that include it, compiled once.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
