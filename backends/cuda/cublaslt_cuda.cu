#include "backends/cuda/cublaslt.cuh"
namespace qlora {
namespace cuda {
Lt *open_lt(Context &) { return nullptr; }
void close_lt(Context &, Lt *) {}
} // namespace cuda
} // namespace qlora
