// No vector instructions: what runs anywhere.
#include "backends/cpu/kernels_cpu.h"
namespace qlora { namespace cpu {
namespace { const Kernels table = {"scalar"}; }
const Kernels *scalar_kernels() { return &table; }
const Kernels *avx2_kernels() { return &table; }
const Kernels *avx512_kernels() { return nullptr; }
const Kernels *neon_kernels() { return nullptr; }
} }
