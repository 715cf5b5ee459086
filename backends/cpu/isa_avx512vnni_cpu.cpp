// Products of bytes compiled for AVX-512 VNNI by a target region: part of the AVX-512 kernels where the processor has it.
#include "backends/cpu/simd_cpu.h"
#include "backends/cpu/target_region_cpu.h"

#if QLORA_X86_TARGETS

QLORA_TARGET_BEGIN("avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")

// The instruction multiplies unsigned bytes by signed ones: codes of w have 128 added.
#define QLORA_INT8_GROUP 4
#define QLORA_INT8_OFFSET 128
#define QLORA_INT8_ROWS 14
#define QLORA_INT8_WORDS(p) _mm512_xor_si512(iload(p), ibroadcast(int32_t(0x80808080u)))
#define QLORA_INT8_DOT(sum, x, w) _mm512_dpbusd_epi32(sum, w, x)

namespace qlora {
namespace cpu {
namespace {
#include "backends/cpu/simd_avx512.inc"
#include "backends/cpu/simd_int8.inc"
const Int8Kernels vnni_table = QLORA_INT8_KERNELS;
} // namespace
} // namespace cpu
} // namespace qlora

QLORA_TARGET_END

namespace qlora {
namespace cpu {
const Int8Kernels *vnni_kernels() { return &vnni_table; }
} // namespace cpu
} // namespace qlora
#else
namespace qlora {
namespace cpu {
const Int8Kernels *vnni_kernels() { return nullptr; }
} // namespace cpu
} // namespace qlora
#endif
