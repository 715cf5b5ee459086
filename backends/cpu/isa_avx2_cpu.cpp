// The kernels compiled for AVX2, FMA and F16C by a target region: one binary holds all instruction sets.
#include "backends/cpu/simd_cpu.h"
#include "backends/cpu/target_region_cpu.h"

#if QLORA_X86_TARGETS

#define QLORA_ISA_NAME "avx2"

QLORA_TARGET_BEGIN("avx2,fma,f16c")

namespace qlora {
namespace cpu {
namespace {
#include "backends/cpu/simd_avx2.inc"
#include "backends/cpu/simd_kernels.inc"
} // namespace
} // namespace cpu
} // namespace qlora

QLORA_TARGET_END

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
