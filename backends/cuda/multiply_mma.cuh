// Products on the tensor cores. A block of eight warps computes TILE_M x 128 of y over tiles of 32 along k, double
// buffered in shared memory; the next tile waits in registers while this one is multiplied, and a quantized weight is
// decoded between the two. Included by one file per kind of b, which keeps compilation parallel.
#pragma once
#include "backends/cuda/mma.cuh"
#include "backends/cuda/product.cuh"

namespace qlora {
namespace cuda {

constexpr int mma_threads = 256;

// Eight neighbours of a plain operand, rounded to TYPE.
template <int TYPE>
__device__ __forceinline__ uint4 fetch_operand(const Operand &operand, int64_t outer, int64_t inner, int64_t outer_count, int64_t inner_count) {
    if (operand.type == TYPE && operand.vector && outer < outer_count && inner + 8 <= inner_count)
        return *reinterpret_cast<const uint4 *>(static_cast<const uint16_t *>(operand.data) + outer * operand.stride + inner);
    float values[8];
    load8(operand.data, operand.type, outer * operand.stride + inner, outer < outer_count ? inner_count - inner : 0, operand.vector, values);
    if (operand.type == QLORA_FORMAT_F32) {
        const float scale = operand.scale;
#pragma unroll
        for (int i = 0; i < 8; i++) values[i] *= scale;
    }
    return pack8<TYPE>(values);
}

// b as a plain operand.
struct PlainB {
    static constexpr int shared_values = 1;
    static constexpr bool plain = true;
};
// b as a quantized weight whose groups of eight can be read as words, or else element by element.
template <Codec C, Scale S> struct WeightB : Decoder<C, S> {
    static constexpr bool plain = false;
};

template <int TYPE, bool A_TURNED, bool B_TURNED, class B, int TILE_M>
static __global__ void __launch_bounds__(mma_threads, 2)
    mma_kernel(const __grid_constant__ Operands operands, const __grid_constant__ WeightView w, int64_t k, int64_t low_k, Epilogue y) {
    using TileA = Tile<A_TURNED, TILE_M, mma_k>;
    using TileB = Tile<B_TURNED, mma_n, mma_k>;
    constexpr int warps_m = TILE_M >= 128 ? 2 : 1, warp_m = TILE_M / warps_m, warp_n = mma_n / (8 / warps_m);
    constexpr int blocks_m = warp_m / 16, blocks_n = warp_n / 8;
    constexpr int groups_a = (TileA::groups + mma_threads - 1) / mma_threads, groups_b = TileB::groups / mma_threads;
    __shared__ __align__(16) uint16_t shared[2 * (TileA::halves + TileB::halves)];
    uint16_t *const shared_a = shared, *const shared_b = shared + 2 * TileA::halves;
    __shared__ float tables[B::shared_values];
    B decoder;
    if constexpr (!B::plain) {
        decoder.prepare(w, tables);
        __syncthreads();
    }
    const int64_t m = int64_t(blockIdx.y) * TILE_M, n = int64_t(blockIdx.x) * mma_n;
    const int thread = threadIdx.x, warp = thread / 32, lane = thread % 32;
    const int first_m = warp % warps_m * warp_m, first_n = warp / warps_m * warp_n;
    const int64_t base_tiles = (k + mma_k - 1) / mma_k, tiles = base_tiles + (low_k + mma_k - 1) / mma_k;
    int64_t tile, end;
    slice_of(tiles, tile, end);
    const bool words = w.grouped && (B_TURNED ? w.cols % 8 == 0 : k % 8 == 0); // a group of eight lies in one row

    float sum[blocks_m][blocks_n][4] = {};
    uint4 next_a[groups_a], next_b[groups_b];
    float scales[groups_b];
    uint32_t decoded = 0; // bit j: next_b[j] holds values, not codes

    const auto fetch = [&](int64_t t) {
        const bool low = t >= base_tiles;
        const int64_t place_k = (low ? t - base_tiles : t) * mma_k, limit = low ? low_k : k;
        const Operand &left = operands.a[low], &right = operands.b[low];
#pragma unroll
        for (int j = 0; j < groups_a; j++) {
            const int group = thread + j * mma_threads;
            if (TileA::groups % mma_threads != 0 && group >= TileA::groups) continue;
            const int64_t outer = (A_TURNED ? place_k : m) + TileA::outer(group), inner = (A_TURNED ? m : place_k) + TileA::inner(group);
            next_a[j] = fetch_operand<TYPE>(left, outer, inner, A_TURNED ? limit : y.m, A_TURNED ? y.m : limit);
        }
#pragma unroll
        for (int j = 0; j < groups_b; j++) {
            const int group = thread + j * mma_threads;
            const int64_t outer = (B_TURNED ? place_k : n) + TileB::outer(group), inner = (B_TURNED ? n : place_k) + TileB::inner(group);
            const int64_t outers = B_TURNED ? limit : y.n, inners = B_TURNED ? y.n : limit;
            if constexpr (B::plain) next_b[j] = fetch_operand<TYPE>(right, outer, inner, outers, inners);
            else if (low) next_b[j] = fetch_operand<TYPE>(right, outer, inner, outers, inners);
            else if (words && outer < outers && inner + 8 <= inners) {
                const Raw raw = decoder.fetch(w, outer * w.cols + inner);
                next_b[j] = raw.codes;
                scales[j] = raw.scale;
                decoded &= ~(1u << j);
            } else {
                float values[8] = {};
                if (outer < outers && inner < inners) decode8(decoder, w, outer * w.cols + inner, inners - inner, values);
                next_b[j] = pack8<TYPE>(values);
                decoded |= 1u << j;
            }
        }
    };
    const auto put = [&](int64_t t, int buffer) {
#pragma unroll
        for (int j = 0; j < groups_a; j++) {
            const int group = thread + j * mma_threads;
            if (TileA::groups % mma_threads != 0 && group >= TileA::groups) continue;
            *reinterpret_cast<uint4 *>(TileA::at(shared_a + buffer * TileA::halves, group)) = next_a[j];
        }
#pragma unroll
        for (int j = 0; j < groups_b; j++) {
            if constexpr (!B::plain)
                if (t < base_tiles && !(decoded >> j & 1)) {
                    float values[8];
                    decoder.decode(Raw{next_b[j], scales[j]}, values);
                    next_b[j] = pack8<TYPE>(values);
                }
            *reinterpret_cast<uint4 *>(TileB::at(shared_b + buffer * TileB::halves, thread + j * mma_threads)) = next_b[j];
        }
    };

    int buffer = 0;
    if (tile < end) {
        fetch(tile);
        put(tile, 0);
    }
    __syncthreads();
    for (; tile < end; tile++, buffer ^= 1) {
        if (tile + 1 < end) fetch(tile + 1);
#pragma unroll
        for (int step = 0; step < mma_k; step += 16) {
            uint32_t left[blocks_m][4], right[blocks_n / 2][4];
#pragma unroll
            for (int i = 0; i < blocks_m; i++) TileA::load_a(left[i], shared_a + buffer * TileA::halves, first_m + 16 * i, step);
#pragma unroll
            for (int i = 0; i < blocks_n / 2; i++) TileB::load_b(right[i], shared_b + buffer * TileB::halves, first_n + 16 * i, step);
#pragma unroll
            for (int i = 0; i < blocks_m; i++)
#pragma unroll
                for (int j = 0; j < blocks_n; j++) multiply_add<TYPE>(sum[i][j], left[i], right[j / 2][j % 2 * 2], right[j / 2][j % 2 * 2 + 1]);
        }
        if (tile + 1 < end) put(tile + 1, buffer ^ 1);
        __syncthreads();
    }
    // Through shared memory to whole rows, 16 rows of every warp at a time. Rolled: the code of put8 exists once.
    constexpr int row_stride = mma_n + 4;
    static_assert(sizeof(shared) >= warps_m * 16 * row_stride * sizeof(float), "rows fit in the tiles' memory");
    float *rows = reinterpret_cast<float *>(shared);
#pragma unroll 1
    for (int pass = 0; pass < blocks_m; pass++) {
#pragma unroll
        for (int i = 0; i < blocks_m; i++)
            if (i == pass)
#pragma unroll
                for (int j = 0; j < blocks_n; j++) {
                    float *place = rows + (warp % warps_m * 16 + lane / 4) * row_stride + first_n + 8 * j + lane % 4 * 2;
                    *reinterpret_cast<float2 *>(place) = make_float2(sum[i][j][0], sum[i][j][1]);
                    *reinterpret_cast<float2 *>(place + 8 * row_stride) = make_float2(sum[i][j][2], sum[i][j][3]);
                }
        __syncthreads();
#pragma unroll 1
        for (int group = thread; group < warps_m * 16 * (mma_n / 8); group += mma_threads) {
            const int row = group / (mma_n / 8), col = group % (mma_n / 8) * 8;
            const int64_t r = m + row / 16 * warp_m + pass * 16 + row % 16;
            if (r < y.m && n + col < y.n) y.put8(r, n + col, rows + row * row_stride + col);
        }
        __syncthreads();
    }
}

template <int TYPE, bool A_TURNED, bool B_TURNED, class B, int TILE_M>
int32_t launch_mma(Context &context, cudaStream_t stream, const Product &p, int slices, float *partial) {
    const Grid grid = {dim3(unsigned(ceil_divide(uint64_t(p.n), mma_n)), unsigned(ceil_divide(uint64_t(p.m), TILE_M)), unsigned(slices)), mma_threads};
    const WeightView w = p.weight ? view_of(*p.weight) : WeightView{};
    return launch(context, stream, grid, mma_kernel<TYPE, A_TURNED, B_TURNED, B, TILE_M>, operands_of(p), w, p.k, p.low_k,
                  epilogue_of(p, slices > 1 ? partial : nullptr));
}

// Layouts and types of a kernel with a in its natural order and b of kind B.
template <class B, int TILE_M> int32_t launch_layout(Context &context, cudaStream_t stream, const Product &p, int slices, float *partial) {
    const bool f16 = p.compute_type == QLORA_FORMAT_F16;
    if (p.b.turned)
        return f16 ? launch_mma<QLORA_FORMAT_F16, false, true, B, TILE_M>(context, stream, p, slices, partial)
                   : launch_mma<QLORA_FORMAT_BF16, false, true, B, TILE_M>(context, stream, p, slices, partial);
    return f16 ? launch_mma<QLORA_FORMAT_F16, false, false, B, TILE_M>(context, stream, p, slices, partial)
               : launch_mma<QLORA_FORMAT_BF16, false, false, B, TILE_M>(context, stream, p, slices, partial);
}

} // namespace cuda
} // namespace qlora
