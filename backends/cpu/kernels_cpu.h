// The table of inner loops that each instruction set fills once (isa_*_cpu.cpp).
#pragma once
#include <cstdint>

namespace qlora {
namespace cpu {

struct Kernels {
    const char *name;
};

// Null where the compiler's target has no such instruction set.
const Kernels *scalar_kernels();
const Kernels *avx2_kernels();
const Kernels *avx512_kernels();
const Kernels *neon_kernels();

} // namespace cpu
} // namespace qlora
