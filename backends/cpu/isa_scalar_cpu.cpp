// No vector instructions: what runs anywhere.
#include "backends/cpu/simd_cpu.h"

#define QLORA_ISA_NAME "scalar"

namespace qlora {
namespace cpu {
namespace {
#include "backends/cpu/simd_scalar.inc"
#include "backends/cpu/simd_kernels.inc"
} // namespace

const Kernels *scalar_kernels() { return &table; }

} // namespace cpu
} // namespace qlora
