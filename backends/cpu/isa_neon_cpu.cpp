// NEON: not written yet; ARM machines run the scalar kernels, which compilers vectorise in part.
#include "backends/cpu/kernels_cpu.h"

namespace qlora {
namespace cpu {
const Kernels *neon_kernels() { return nullptr; }
} // namespace cpu
} // namespace qlora
