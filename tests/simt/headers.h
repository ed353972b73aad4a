// What takes most of the compilation of host files that include it, compiled once.

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <torch/library.h>
