// Dequantizing a rectangle of a weight, for the operation itself and for matrix products that want plain operands.
#pragma once
#include "backends/cuda/decode.cuh"

namespace qlora {
namespace cuda {

// dst[rows][cols] = W[row .. row + rows][col .. col + cols], where rows and cols are dst's.
int32_t dequantize_panel(Context &context, cudaStream_t stream, const qlora_weight &weight, int64_t row, int64_t col, const View &dst);

} // namespace cuda
} // namespace qlora
