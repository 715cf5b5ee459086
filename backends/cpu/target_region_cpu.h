// One binary holds all instruction sets: functions between QLORA_TARGET_BEGIN("avx2,fma,...") and QLORA_TARGET_END are
// compiled for the named features of x86, and intrinsics are there for them. QLORA_X86_TARGETS is 0 where that is not to be had.
#pragma once

#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
#define QLORA_X86_TARGETS 1
#if !defined(__clang__)
// GCC's own header leaves the unused source of masked intrinsics undefined, and then warns of it.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>

#define QLORA_PRAGMA(...) _Pragma(#__VA_ARGS__)
#if defined(__clang__)
#define QLORA_TARGET_BEGIN(features) QLORA_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define QLORA_TARGET_END QLORA_PRAGMA(clang attribute pop)
#else
#define QLORA_TARGET_BEGIN(features) QLORA_PRAGMA(GCC push_options) QLORA_PRAGMA(GCC target(features))
#define QLORA_TARGET_END QLORA_PRAGMA(GCC pop_options)
#endif
#else
#define QLORA_X86_TARGETS 0
#endif
