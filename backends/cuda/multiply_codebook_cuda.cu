// Tensor core products with codebook weights, decoded on their way to shared memory.
#include "backends/cuda/multiply_mma.cuh"

namespace qlora {
namespace cuda {

template <Codec C, Scale S> int32_t multiply_weight_mma(Context &context, cudaStream_t stream, const Product &p, int slices, float *partial) {
    return p.m <= 32 ? launch_layout<WeightB<C, S>, 32>(context, stream, p, slices, partial) : launch_layout<WeightB<C, S>, mma_m>(context, stream, p, slices, partial);
}
template int32_t multiply_weight_mma<Codec::CODEBOOK4, Scale::F32>(Context &, cudaStream_t, const Product &, int, float *);
template int32_t multiply_weight_mma<Codec::CODEBOOK4, Scale::NESTED>(Context &, cudaStream_t, const Product &, int, float *);
template int32_t multiply_weight_mma<Codec::CODEBOOK8, Scale::F32>(Context &, cudaStream_t, const Product &, int, float *);

} // namespace cuda
} // namespace qlora
