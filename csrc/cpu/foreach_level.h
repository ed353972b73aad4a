// Compiles the file named by SCAV_KERNELS once per SIMD level, each time in a namespace of its own (SCAV_LEVEL), so
// that one binary serves every CPU. That file and those that it includes end in `.inl`: they have no include guard and
// define everything inside `namespace scav::SCAV_LEVEL`. The .cpp includes ordinary headers before this one, so that no
// function shared between levels is ever compiled with a higher level's instructions.
//
// Include at global scope, then pick an entry point with SCAV_AT_LEVEL(function<template arguments>).

#include "cpu/level.h"

#define SCAV_LEVEL baseline
#define SCAV_VECTOR_BYTES 16
#include SCAV_KERNELS
#undef SCAV_LEVEL
#undef SCAV_VECTOR_BYTES

#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
#define SCAV_LEVEL avx2
#define SCAV_VECTOR_BYTES 32
#include SCAV_KERNELS
#undef SCAV_LEVEL
#undef SCAV_VECTOR_BYTES
#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,fma,prefer-vector-width=512")
#endif
#define SCAV_LEVEL avx512
#define SCAV_VECTOR_BYTES 64
#include SCAV_KERNELS
#undef SCAV_LEVEL
#undef SCAV_VECTOR_BYTES
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#define SCAV_AT_LEVEL(...)                                                         \
  (::scav::current_level() == ::scav::Level::avx512 ? &::scav::avx512::__VA_ARGS__ \
   : ::scav::current_level() == ::scav::Level::avx2 ? &::scav::avx2::__VA_ARGS__   \
                                                    : &::scav::baseline::__VA_ARGS__)
#else
#define SCAV_AT_LEVEL(...) (&::scav::baseline::__VA_ARGS__)
#endif
