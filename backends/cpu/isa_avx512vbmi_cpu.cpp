// Optimizers compiled for AVX-512 VBMI by a target region: part of the AVX-512 kernels where the processor has it.
#include "backends/cpu/simd_cpu.h"
#include "backends/cpu/state_words_cpu.h"
#include "backends/cpu/target_region_cpu.h"

#if QLORA_X86_TARGETS

QLORA_TARGET_BEGIN("avx512vbmi,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")

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

QLORA_TARGET_END

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
