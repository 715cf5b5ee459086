// Optimizer passes over tensors with f32 state.
#include "backends/cuda/optimizer_kernels.cuh"

namespace qlora {
namespace cuda {

template int32_t launch_step<false, 1>(Context &, cudaStream_t, const TensorList<1> &, const Rule &);
template int32_t launch_step<false, 2>(Context &, cudaStream_t, const TensorList<2> &, const Rule &);
template int32_t launch_step<false, 3>(Context &, cudaStream_t, const TensorList<3> &, const Rule &);
template int32_t launch_sums<false, 1>(Context &, cudaStream_t, const TensorList<1> &, const Rule &, uint64_t);
template int32_t launch_sums<false, 2>(Context &, cudaStream_t, const TensorList<2> &, const Rule &, uint64_t);

} // namespace cuda
} // namespace qlora
