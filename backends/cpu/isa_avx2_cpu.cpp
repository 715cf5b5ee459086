// The kernels compiled for AVX2, FMA and F16C by a target region: one binary holds all instruction sets.
#include "backends/cpu/simd_cpu.h"

#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
#include <immintrin.h>

#define QLORA_ISA_NAME "avx2"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif

namespace qlora {
namespace cpu {
namespace {
#include "backends/cpu/simd_avx2.inc"
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
const Kernels *avx2_kernels() { return &table; }
} // namespace cpu
} // namespace qlora
#else
namespace qlora {
namespace cpu {
const Kernels *avx2_kernels() { return nullptr; }
} // namespace cpu
} // namespace qlora
#endif
