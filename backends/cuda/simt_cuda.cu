// Products in f32 arithmetic: the f32 compute type, and bf16 where the tensor cores have none. A block computes a
// 64 x 128 tile of y with 128 threads, 8 x 8 values each, over tiles of 16 along k.
#include "backends/cuda/product.cuh"

namespace qlora {
namespace cuda {

constexpr int tile_m = simt_m, tile_n = simt_n, tile_k = simt_k, threads = 128;
constexpr int tiles_per_sum = 16; // partial sums of 256 products keep the rounding error of long sums small

// Reads group g of a tile of SIZE x tile_k into values; place says where they go in shared[k][i].
template <int SIZE>
static __device__ __forceinline__ void fetch(const Operand &operand, int64_t first, int64_t limit, int64_t k, int64_t k_limit, int g, int compute_type, float (&values)[8]) {
    const bool turned = operand.turned;
    const int64_t outer = turned ? k + g / (SIZE / 8) : first + g / (tile_k / 8), inner = turned ? first + g % (SIZE / 8) * 8 : k + g % (tile_k / 8) * 8;
    const int64_t outer_limit = turned ? k_limit : limit, inner_limit = turned ? limit : k_limit;
    load8(operand.data, operand.type, outer * operand.stride + inner, outer < outer_limit ? inner_limit - inner : 0, operand.vector, values);
    if (operand.type == QLORA_FORMAT_F32) {
        const float scale = operand.scale;
#pragma unroll
        for (int i = 0; i < 8; i++) values[i] *= scale;
    }
    if (compute_type == QLORA_FORMAT_F32) return;
#pragma unroll
    for (int i = 0; i < 8; i++) values[i] = round_to(compute_type, values[i]);
}
template <int SIZE> static __device__ __forceinline__ void place(float (*shared)[SIZE + 4], bool turned, int g, const float (&values)[8]) {
#pragma unroll
    for (int i = 0; i < 8; i++)
        if (turned) shared[g / (SIZE / 8)][g % (SIZE / 8) * 8 + i] = values[i];
        else shared[g % (tile_k / 8) * 8 + i][g / (tile_k / 8)] = values[i];
}

static __global__ void __launch_bounds__(threads) simt_kernel(const __grid_constant__ Operands operands, int64_t k, int64_t low_k, int compute_type, Epilogue y) {
    __shared__ __align__(16) float shared_a[tile_k][tile_m + 4], shared_b[tile_k][tile_n + 4];
    const int64_t m = int64_t(blockIdx.y) * tile_m, n = int64_t(blockIdx.x) * tile_n;
    const int thread = threadIdx.x, row = thread / 16 * 4, col = thread % 16 * 4; // and row + 32, col + 64
    const int64_t base_tiles = (k + tile_k - 1) / tile_k, tiles = base_tiles + (low_k + tile_k - 1) / tile_k;
    int64_t tile, end;
    slice_of(tiles, tile, end);
    float sum[8][8] = {}, total[8][8] = {}, next_a[8], next_b[2][8];

    const auto fetch_tile = [&](int64_t t) {
        const bool low = t >= base_tiles;
        const Operand &left = operands.a[low], &right = operands.b[low];
        const int64_t place_k = (low ? t - base_tiles : t) * tile_k, limit = low ? low_k : k;
        fetch<tile_m>(left, m, y.m, place_k, limit, thread, compute_type, next_a);
        fetch<tile_n>(right, n, y.n, place_k, limit, thread, compute_type, next_b[0]);
        fetch<tile_n>(right, n, y.n, place_k, limit, thread + threads, compute_type, next_b[1]);
    };
    if (tile < end) fetch_tile(tile);
    for (int since = 0; tile < end; tile++) {
        place<tile_m>(shared_a, operands.a[0].turned, thread, next_a);
        place<tile_n>(shared_b, operands.b[0].turned, thread, next_b[0]);
        place<tile_n>(shared_b, operands.b[0].turned, thread + threads, next_b[1]);
        __syncthreads();
        if (tile + 1 < end) fetch_tile(tile + 1);
#pragma unroll
        for (int step = 0; step < tile_k; step++) {
            float left[8], right[8];
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const float4 l = *reinterpret_cast<const float4 *>(&shared_a[step][row + 32 * half]), r = *reinterpret_cast<const float4 *>(&shared_b[step][col + 64 * half]);
                left[4 * half] = l.x; left[4 * half + 1] = l.y; left[4 * half + 2] = l.z; left[4 * half + 3] = l.w;
                right[4 * half] = r.x; right[4 * half + 1] = r.y; right[4 * half + 2] = r.z; right[4 * half + 3] = r.w;
            }
#pragma unroll
            for (int i = 0; i < 8; i++)
#pragma unroll
                for (int j = 0; j < 8; j++) sum[i][j] += left[i] * right[j];
        }
        if (++since == tiles_per_sum || tile + 1 == end) {
            since = 0;
#pragma unroll
            for (int i = 0; i < 8; i++)
#pragma unroll
                for (int j = 0; j < 8; j++) { total[i][j] += sum[i][j]; sum[i][j] = 0; }
        }
        __syncthreads();
    }
    // Through shared memory to whole rows, one row of every thread at a time.
    __shared__ __align__(16) float rows[8][tile_n + 4];
#pragma unroll 1
    for (int pass = 0; pass < 8; pass++) {
        __syncthreads();
#pragma unroll
        for (int i = 0; i < 8; i++)
            if (i == pass)
#pragma unroll
                for (int j = 0; j < 8; j++) rows[thread / 16][col + j % 4 + j / 4 * 64] = total[i][j];
        __syncthreads();
        const int64_t r = m + thread / 16 * 4 + pass % 4 + pass / 4 * 32, c = n + thread % 16 * 8;
        if (r < y.m && c < y.n) y.put8(r, c, &rows[thread / 16][thread % 16 * 8]);
    }
}

int32_t multiply_simt(Context &context, cudaStream_t stream, const Product &p, int slices, float *partial) {
    const Grid grid = {dim3(unsigned(ceil_divide(uint64_t(p.n), tile_n)), unsigned(ceil_divide(uint64_t(p.m), tile_m)), unsigned(slices)), threads};
    return launch(context, stream, grid, simt_kernel, operands_of(p), p.k, p.low_k, p.compute_type, epilogue_of(p, slices > 1 ? partial : nullptr));
}

} // namespace cuda
} // namespace qlora
