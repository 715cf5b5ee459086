// y = a W^T for a few rows of a: bound by reading the codes, once. A block of 256 threads computes four columns of y
// (rows of W) for ROWS rows of a; its threads share k, eight values each.
#include "backends/cuda/product.cuh"

namespace qlora {
namespace cuda {

constexpr int threads = 256, columns = 4;

template <class D, int ROWS>
static __global__ void __launch_bounds__(threads) gemv_kernel(Operand a, WeightView w, Operand low_a, Operand low_b, int64_t low_k, int compute_type, Epilogue y) {
    __shared__ float tables[D::shared_values], sums[threads / 32][columns * ROWS];
    D decoder;
    decoder.prepare(w, tables);
    __syncthreads();
    const int64_t n = int64_t(blockIdx.x) * columns, k = w.cols;
    float sum[columns][ROWS] = {};
    for (int64_t i = threadIdx.x * 8; i < k; i += threads * 8) {
        float weights[columns][8];
#pragma unroll
        for (int c = 0; c < columns; c++) {
            if (n + c < w.rows) decode8(decoder, w, (n + c) * k + i, k - i, weights[c]);
            else
                for (int j = 0; j < 8; j++) weights[c][j] = 0;
            if (compute_type != QLORA_FORMAT_F32)
                for (int j = 0; j < 8; j++) weights[c][j] = round_to(compute_type, weights[c][j]);
        }
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            float values[8];
            load8(a.data, a.type, r * a.stride + i, r < y.m ? k - i : 0, a.vector, values);
            if (a.type != compute_type && compute_type != QLORA_FORMAT_F32)
                for (int j = 0; j < 8; j++) values[j] = round_to(compute_type, values[j]);
#pragma unroll
            for (int c = 0; c < columns; c++)
#pragma unroll
                for (int j = 0; j < 8; j++) sum[c][r] += values[j] * weights[c][j];
        }
    }
    for (int64_t i = threadIdx.x; i < low_k; i += threads)
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            const float left = r < y.m ? round_to(compute_type, low_a.scale * load1(low_a.data, low_a.type, r * low_a.stride + i)) : 0.0f;
#pragma unroll
            for (int c = 0; c < columns; c++)
                if (n + c < y.n) sum[c][r] += left * round_to(compute_type, load1(low_b.data, low_b.type, (n + c) * low_b.stride + i));
        }
#pragma unroll
    for (int c = 0; c < columns; c++)
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            float value = sum[c][r];
            for (int half = 16; half >= 1; half /= 2) value += __shfl_xor_sync(0xffffffffu, value, half);
            if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32][c * ROWS + r] = value;
        }
    __syncthreads();
    const int c = threadIdx.x / ROWS, r = threadIdx.x % ROWS;
    if (c >= columns || n + c >= y.n || r >= y.m) return;
    float total = 0;
    for (int warp = 0; warp < threads / 32; warp++) total += sums[warp][threadIdx.x];
    y.put(r, n + c, total);
}

int32_t multiply_gemv(Context &context, cudaStream_t stream, const Product &p) {
    const Grid grid = {dim3(unsigned(ceil_divide(uint64_t(p.n), columns))), threads};
    return with_format(p.weight->format, int32_t(QLORA_ERROR_FORMAT), [&](auto row) -> int32_t {
        using F = decltype(row);
        if constexpr (F::codec == Codec::BLOCK || F::codec == Codec::NARROW || F::codec == Codec::AFFINE || F::codec == Codec::BILEVEL || F::codec == Codec::ABSMAX8) {
            return multiply_gemv_blocks(context, stream, p);
        } else {
            using D = Decoder<F::codec, F::scale>;
            const auto kernel = p.m == 1 ? gemv_kernel<D, 1> : p.m <= 4 ? gemv_kernel<D, 4> : gemv_kernel<D, gemv_rows>;
            return launch(context, stream, grid, kernel, p.a, view_of(*p.weight), p.low_a, p.low_b, p.low_k, p.compute_type, epilogue_of(p, nullptr));
        }
    });
}

} // namespace cuda
} // namespace qlora
