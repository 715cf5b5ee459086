// What every isa_*_cpu.cpp includes before its target region: no function in here is compiled for a special target.
#pragma once
#include "backends/cpu/codebooks_cpu.h"
#include "backends/cpu/kernels_cpu.h"

#if defined(__GNUC__)
#define QLORA_INLINE inline __attribute__((always_inline))
#else
#define QLORA_INLINE inline
#endif
#if defined(__clang__)
#define QLORA_UNROLL _Pragma("clang loop unroll(full)")
#define QLORA_UNROLL_4 _Pragma("clang loop unroll_count(4)")
#elif defined(__GNUC__)
#define QLORA_UNROLL _Pragma("GCC unroll 32")
#define QLORA_UNROLL_4 _Pragma("GCC unroll 4")
#else
#define QLORA_UNROLL
#define QLORA_UNROLL_4
#endif

// Conversions by integers, private to each file so that no copy compiled under a target region escapes.
namespace qlora {
namespace cpu {
namespace {
typedef uint32_t uint;
#if defined(__GNUC__)
#define QLORA_FUNCTION __attribute__((unused)) static inline
#else
#define QLORA_FUNCTION static inline
#endif
#include "backends/numeric.inc"
#undef QLORA_FUNCTION
} // namespace
} // namespace cpu
} // namespace qlora
