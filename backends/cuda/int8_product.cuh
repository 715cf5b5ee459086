// Products of signed bytes with exact sums, the engine under int8_matmul and its gradient.
#pragma once
#include "backends/cuda/product.cuh"

namespace qlora {
namespace cuda {

// Columns that are multiplied in the type of the activations instead (LLM.int8()'s outliers). x[m][columns[j]] w[n][columns[j]]; the
// first `compact` of them lie side by side as well, in that type.
struct Int8Outliers {
    const int32_t *count, *columns; // device memory; null: there are none
    const void *x_compact, *w_compact; // [m][compact], [n][compact]
    View x;
    WeightView w;
    int64_t w_first; // row of w that is n = 0
};
constexpr int64_t compact_outliers = 128;

// y[m][n] = (old y) + bias[n] + f32(sum over k of a[m][k] b[n][k]) * scale + outliers, with scale = (a_scale[m] * b_scale[n]) * factor, or
// a_scale[m] * factor without b_scale. Bytes of a and b from k on up to their strides, multiples of 16, are zero in one of them.
struct Int8Product {
    int64_t m, n, k, a_stride, b_stride;
    const int8_t *a, *b;
    bool b_words; // rows of b are aligned to 16 bytes
    const float *a_scale, *b_scale;
    bool one_b_scale;
    float factor;
    Int8Outliers outliers;
    Epilogue y;
    const int32_t *sums; // the sums themselves, [m][sums_stride], when another library has them
    int64_t sums_stride;
};
// scratch: what multiply_int8_scratch says, which is for cuBLASLt; fewer rows m and columns n never need more.
uint64_t multiply_int8_scratch(Context &context, int64_t m, int64_t n, int64_t k);
int32_t multiply_int8(Context &context, cudaStream_t stream, const Int8Product &product, Carver scratch);

// dst[cols][stride] = src[rows][cols]^T of bytes, zero from rows on up to stride, a multiple of 16. src_stride: of whole matrix.
int32_t turn_bytes(Context &context, cudaStream_t stream, const int8_t *src, int64_t src_stride, int64_t rows, int64_t cols, int8_t *dst, int64_t stride);

} // namespace cuda
} // namespace qlora
