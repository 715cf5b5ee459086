// Tensor core products of plain operands, in the three layouts that training needs.
#include "backends/cuda/multiply_mma.cuh"

namespace qlora {
namespace cuda {

int32_t multiply_plain_mma(Context &context, cudaStream_t stream, const Product &p, int slices, float *partial) {
    if (!p.a.turned) return launch_layout<PlainB, mma_m>(context, stream, p, slices, partial);
    return p.compute_type == QLORA_FORMAT_F16 ? launch_mma<QLORA_FORMAT_F16, true, true, PlainB, mma_m>(context, stream, p, slices, partial)
                                              : launch_mma<QLORA_FORMAT_BF16, true, true, PlainB, mma_m>(context, stream, p, slices, partial);
}

} // namespace cuda
} // namespace qlora
