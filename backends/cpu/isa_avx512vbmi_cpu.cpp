// Optimizers compiled for AVX-512 VBMI by a target region: part of the AVX-512 kernels where the processor has it.
#include "backends/cpu/simd_cpu.h"
#include "backends/cpu/state_words_cpu.h"

#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
#if !defined(__clang__)
// GCC's own header leaves the unused source of masked intrinsics undefined, and then warns of it.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512vbmi,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512vbmi,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")
#endif

#define QLORA_STATE_KERNELS {decode_bytes<false>, decode_bytes<true>}, {encode_bytes<false>, encode_bytes<true>}

namespace qlora {
namespace cpu {
namespace {
#include "backends/cpu/simd_avx512.inc"
#include "backends/cpu/simd_types.inc"
#include "backends/cpu/simd_state.inc"
#include "backends/cpu/simd_state_vbmi.inc"
#include "backends/cpu/simd_optim.inc"
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
const OptimizerKernels *vbmi_kernels() { return &optimizer_table; }
} // namespace cpu
} // namespace qlora
#else
namespace qlora {
namespace cpu {
const OptimizerKernels *vbmi_kernels() { return nullptr; }
} // namespace cpu
} // namespace qlora
#endif
