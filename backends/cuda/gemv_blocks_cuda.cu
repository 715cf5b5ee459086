// y = a W^T for a few rows of a and a weight of interleaved blocks or small floats: one kernel per format, kept small for the
// compiler's sake. A warp computes a column of y (a row of W) for all rows of a; its lanes share k, eight values each. The
// rows of a, rounded to the compute type, lie in shared memory: the low and the high four of every eight apart, so that
// neighbours read without conflicts.
#include "backends/cuda/product.cuh"

namespace qlora {
namespace cuda {

constexpr int threads = 256, columns = threads / 32, tile_k = 1024, tile_groups = tile_k / 8;

template <class D>
static __global__ void __launch_bounds__(threads) gemv_blocks_kernel(Operand a, WeightView w, Operand low_a, Operand low_b, int64_t low_k, int compute_type, Epilogue y) {
    __shared__ float tables[D::shared_values];
    __shared__ float4 x[2][gemv_rows][tile_groups];
    D decoder;
    decoder.prepare(w, tables);
    const int lane = threadIdx.x % 32;
    const int64_t n = int64_t(blockIdx.x) * columns + threadIdx.x / 32, k = w.cols;
    float sum[gemv_rows] = {};
    for (int64_t first = 0; first < k; first += tile_k) {
        __syncthreads();
        for (int i = threadIdx.x; i < int(y.m) * tile_groups; i += threads) {
            const int r = i / tile_groups, group = i % tile_groups;
            const int64_t place = first + group * 8;
            float values[8];
            load8(a.data, a.type, r * a.stride + place, k - place, a.vector, values);
#pragma unroll
            for (int j = 0; j < 8; j++) values[j] = round_to(compute_type, values[j]);
            x[0][r][group] = make_float4(values[0], values[1], values[2], values[3]);
            x[1][r][group] = make_float4(values[4], values[5], values[6], values[7]);
        }
        __syncthreads();
        for (int group = lane; group < tile_groups && first + group * 8 < k && n < y.n; group += 32) {
            const int64_t place = first + group * 8;
            float weights[8];
            decode8(decoder, w, n * k + place, k - place, weights);
#pragma unroll
            for (int j = 0; j < 8; j++) weights[j] = round_to(compute_type, weights[j]);
#pragma unroll
            for (int r = 0; r < gemv_rows; r++) {
                if (r >= y.m) break;
                const float4 low = x[0][r][group], high = x[1][r][group];
                sum[r] += low.x * weights[0] + low.y * weights[1] + low.z * weights[2] + low.w * weights[3];
                sum[r] += high.x * weights[4] + high.y * weights[5] + high.z * weights[6] + high.w * weights[7];
            }
        }
    }
    if (n >= y.n) return; // the whole warp
    for (int64_t i = lane; i < low_k; i += 32) {
        const float right = round_to(compute_type, load1(low_b.data, low_b.type, n * low_b.stride + i));
#pragma unroll
        for (int r = 0; r < gemv_rows; r++)
            if (r < y.m) sum[r] += round_to(compute_type, low_a.scale * load1(low_a.data, low_a.type, r * low_a.stride + i)) * right;
    }
    float mine = 0; // lane r keeps the sum of row r
#pragma unroll
    for (int r = 0; r < gemv_rows; r++) {
        float value = sum[r];
#pragma unroll
        for (int half = 16; half >= 1; half /= 2) value += __shfl_xor_sync(0xffffffffu, value, half);
        if (lane == r) mine = value;
    }
    if (lane < y.m) y.put(lane, n, mine);
}

int32_t multiply_gemv_blocks(Context &context, cudaStream_t stream, const Product &p) {
    const Grid grid = {dim3(unsigned(ceil_divide(uint64_t(p.n), columns))), threads};
    return with_format(p.weight->format, int32_t(QLORA_ERROR_FORMAT), [&](auto row) -> int32_t {
        using F = decltype(row);
        if constexpr (F::codec == Codec::BLOCK || F::codec == Codec::NARROW || F::codec == Codec::AFFINE || F::codec == Codec::BILEVEL || F::codec == Codec::ABSMAX8)
            return launch(context, stream, grid, gemv_blocks_kernel<typename DecoderOf<F>::type>, p.a, view_of(*p.weight), p.low_a, p.low_b, p.low_k, p.compute_type,
                          epilogue_of(p, nullptr));
        else return QLORA_ERROR_FORMAT;
    });
}

} // namespace cuda
} // namespace qlora
