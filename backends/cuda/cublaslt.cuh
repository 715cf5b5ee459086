// cuBLASLt by dlopen: an accelerator when it is there, never a requirement.
#pragma once
#include "backends/cuda/cuda.cuh"

namespace qlora {
namespace cuda {

Lt *open_lt(Context &context);
void close_lt(Context &context, Lt *lt);

} // namespace cuda
} // namespace qlora
