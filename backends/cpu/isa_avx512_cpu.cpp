// The kernels compiled for AVX-512 F, BW, DQ and VL by a target region: one binary holds all instruction sets.
#include "backends/cpu/simd_cpu.h"

#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
#if !defined(__clang__)
// GCC's own header leaves the unused source of masked intrinsics undefined, and then warns of it.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>

#define QLORA_ISA_NAME "avx512"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")
#endif

namespace qlora {
namespace cpu {
namespace {
#include "backends/cpu/simd_avx512.inc"
#include "backends/cpu/simd_kernels.inc"
} // namespace
} // namespace cpu
} // namespace qlora

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

namespace qlora {
namespace cpu {
const Kernels *avx512_kernels() { return &table; }
} // namespace cpu
} // namespace qlora
#else
namespace qlora {
namespace cpu {
const Kernels *avx512_kernels() { return nullptr; }
} // namespace cpu
} // namespace qlora
#endif
