// cuBLASLt by dlopen: an accelerator when it is there, never a requirement.
#pragma once
#include "backends/cuda/cuda.cuh"

namespace qlora {
namespace cuda {

// *lt is null when the library is not on this machine, which is no error.
int32_t open_lt(Context &context, Lt **lt);
void close_lt(Context &context, Lt *lt);

// y[m][n] = a b^T + beta y with 16-bit operands and f32 sums. a[m][k], or a[k][m] when a_turned; b[n][k], or b[k][n] when b_turned;
// pointers and strides are aligned to 16 bytes. type QLORA_FORMAT_INT8: signed bytes, y is int32 whatever y_type says, nothing is turned and beta is 0.
struct LtProduct {
    int64_t m, n, k, a_stride, b_stride, y_stride;
    int32_t type, y_type, a_turned, b_turned, beta, reserved; // reserved: 0, so that all bytes of two products compare
};
// ERROR_UNSUPPORTED, without a message, when cuBLASLt knows no way; then nothing was enqueued.
int32_t multiply_lt(Context &context, cudaStream_t stream, const LtProduct &product, const void *a, const void *b, void *y, void *workspace, uint64_t workspace_bytes);

} // namespace cuda
} // namespace qlora
