// The thin products of LoRA, one side of which is a rank of at most 32, on the tensor cores; larger ranks fill the tiles of mma_kernel. They move much and multiply
// little: fragments are loaded from memory as they are, without shared memory, many loads at a time, and warps split the
// long sum of a tile and add up their parts in a fixed order. A sum may take its terms in any order as long as both operands
// take the same one, so a lane's place in a fragment is given to the neighbours that it can load as one word.
//   narrow   y[m][r] = a[m][k] b[r][k]          x A^T and dy B
//   columns  y[r][c] or y[c][r] = a[t][r] b[t][c]   dA and dB
//   wide     y[m][n] += a[m][r] b[n][r]         what the adapter adds to y and dx
#include "backends/cuda/cluster.cuh"
#include "backends/cuda/mma.cuh"
#include "backends/cuda/product.cuh"

#include <algorithm>

namespace qlora {
namespace cuda {
namespace {

// Elements as memory has them: 16-bit ones of TYPE, or f32 to be rounded. They are loaded first, all of a step, and rounded
// when they are used, so that loads do not wait for one another.
template <int TYPE, bool HALF> struct Raw {
    float value;
    __device__ __forceinline__ void load(const Operand &operand, int64_t index, bool there) {
        value = there ? static_cast<const float *>(operand.data)[index] : 0.0f;
    }
    static __device__ __forceinline__ uint32_t pack(Raw low, Raw high, float scale) { return pack2<TYPE>(low.value * scale, high.value * scale); }
};
template <int TYPE> struct Raw<TYPE, true> {
    uint32_t value;
    __device__ __forceinline__ void load(const Operand &operand, int64_t index, bool there) {
        value = there ? static_cast<const uint16_t *>(operand.data)[index] : 0;
    }
    static __device__ __forceinline__ uint32_t pack(Raw low, Raw high, float) { return low.value | high.value << 16; }
};

// Eight of them along k from `place` of row `row` of an operand; a multiple of eight, and so is k.
template <int TYPE, bool HALF, bool TURNED> struct Eight {
    Raw<TYPE, HALF> raw[8];
    __device__ __forceinline__ void load(const Operand &b, int64_t row, int64_t place, bool there) {
#pragma unroll
        for (int i = 0; i < 8; i++) raw[i].load(b, (place + i) * b.stride + row, there);
    }
    __device__ __forceinline__ uint4 pack() const {
        return make_uint4(Raw<TYPE, HALF>::pack(raw[0], raw[1], 1), Raw<TYPE, HALF>::pack(raw[2], raw[3], 1), Raw<TYPE, HALF>::pack(raw[4], raw[5], 1),
                          Raw<TYPE, HALF>::pack(raw[6], raw[7], 1));
    }
};
template <int TYPE> struct Eight<TYPE, false, false> {
    float4 low, high;
    __device__ __forceinline__ void load(const Operand &b, int64_t row, int64_t place, bool there) {
        const float4 *const from = reinterpret_cast<const float4 *>(static_cast<const float *>(b.data) + row * b.stride + place);
        low = there ? from[0] : make_float4(0, 0, 0, 0);
        high = there ? from[1] : make_float4(0, 0, 0, 0);
    }
    __device__ __forceinline__ uint4 pack() const {
        return make_uint4(pack2<TYPE>(low.x, low.y), pack2<TYPE>(low.z, low.w), pack2<TYPE>(high.x, high.y), pack2<TYPE>(high.z, high.w));
    }
};
template <int TYPE> struct Eight<TYPE, true, false> {
    uint4 words;
    __device__ __forceinline__ void load(const Operand &b, int64_t row, int64_t place, bool there) {
        words = there ? *reinterpret_cast<const uint4 *>(static_cast<const uint16_t *>(b.data) + row * b.stride + place) : make_uint4(0, 0, 0, 0);
    }
    __device__ __forceinline__ uint4 pack() const { return words; }
};

// Sums of the warps of a block, by halves, to warp 0. shared holds WARPS / 2 of them.
template <int WARPS, int COUNT> __device__ __forceinline__ void add_warps(float (&sum)[COUNT][4], float4 *shared) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
    for (int half = WARPS / 2; half >= 1; half /= 2) {
        if (warp >= half && warp < 2 * half)
#pragma unroll
            for (int i = 0; i < COUNT; i++) shared[((warp - half) * COUNT + i) * 32 + lane] = make_float4(sum[i][0], sum[i][1], sum[i][2], sum[i][3]);
        __syncthreads();
        if (warp < half)
#pragma unroll
            for (int i = 0; i < COUNT; i++) add4(sum[i], shared[(warp * COUNT + i) * 32 + lane]);
        __syncthreads();
    }
}

// ---- narrow: a cluster has 16 ROWS rows of y; the warps of its blocks take pieces of 32 along k in turn ------------

constexpr int narrow_warps = 16;

// The part of an Augmented that needs no sum: eight elements of B to a thread.
template <int TYPE> __device__ __forceinline__ void place_b(const Augmented &to, int64_t ranks) {
    const int64_t across = (to.low_b.turned ? to.n : to.ranks) / 8, down = to.low_b.turned ? to.ranks : to.n;
    for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < across * down; i += int64_t(gridDim.x) * blockDim.x) {
        const int64_t row = i / across, col = i % across * 8, there = !to.low_b.turned ? ranks - col : row < ranks ? 8 : 0;
        float values[8];
        load8(to.low_b.data, to.low_b.type, row * to.low_b.stride + col, there, to.low_b.vector, values);
        const int64_t place = to.low_b.turned ? (to.k + row) * to.b_stride + col : row * to.b_stride + to.k + col;
        *reinterpret_cast<uint4 *>(to.b + place) = pack8<TYPE>(values);
    }
}

template <int TYPE, bool HALF, bool TURNED, int EIGHTS, int ROWS>
__global__ void __launch_bounds__(narrow_warps * 32) narrow_kernel(const __grid_constant__ Operand a, const __grid_constant__ Operand b, int64_t m, int64_t n, int64_t k,
                                                                   float *y, int64_t stride, float alpha, bool accumulate, unsigned blocks,
                                                                   const __grid_constant__ Augmented to) {
    wait_for_previous();
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, group = lane / 4, quad = lane % 4;
    const unsigned rank = blockIdx.x % blocks;
    const int64_t first = int64_t(blockIdx.x / blocks) * 16 * ROWS + group;
    const uint16_t *const data = static_cast<const uint16_t *>(a.data);
    float sum[ROWS * EIGHTS][4] = {};
    constexpr int at_once = EIGHTS <= 2 ? 4 / ROWS : HALF && !TURNED ? 2 : 1; // pieces on their way
    const int64_t step = int64_t(blocks) * narrow_warps * 32;
    __shared__ float4 shared[narrow_warps / 2 * ROWS * EIGHTS * 32];
    __shared__ typename ClusterSum<ROWS * EIGHTS>::Shared others;
    ClusterSum<ROWS * EIGHTS> cluster(others, rank, blocks);
    for (int64_t piece = (rank * narrow_warps + warp) * 32; piece < k; piece += step * at_once) {
        uint4 left[at_once][ROWS][2];
        Eight<TYPE, HALF, TURNED> right[at_once][EIGHTS];
#pragma unroll
        for (int u = 0; u < at_once; u++) {
            const int64_t place = piece + u * step + quad * 8;
#pragma unroll
            for (int i = 0; i < ROWS; i++)
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    const int64_t row = first + 16 * i + 8 * h;
                    left[u][i][h] = row < m && place < k ? *reinterpret_cast<const uint4 *>(data + row * a.stride + place) : make_uint4(0, 0, 0, 0);
                }
#pragma unroll
            for (int j = 0; j < EIGHTS; j++) right[u][j].load(b, 8 * j + group, place, 8 * j + group < n && place < k);
        }
        if (to.a)
#pragma unroll
            for (int u = 0; u < at_once; u++)
#pragma unroll
                for (int i = 0; i < ROWS; i++)
#pragma unroll
                    for (int h = 0; h < 2; h++) {
                        const int64_t row = first + 16 * i + 8 * h, place = piece + u * step + quad * 8;
                        if (row < m && place < k) *reinterpret_cast<uint4 *>(to.a + row * to.a_stride + place) = left[u][i][h];
                    }
#pragma unroll
        for (int u = 0; u < at_once; u++) {
            uint4 packed[EIGHTS];
#pragma unroll
            for (int j = 0; j < EIGHTS; j++) packed[j] = right[u][j].pack();
#pragma unroll
            for (int i = 0; i < ROWS; i++) {
                const uint4 up = left[u][i][0], down = left[u][i][1];
                const uint32_t front[4] = {up.x, down.x, up.y, down.y}, back[4] = {up.z, down.z, up.w, down.w};
#pragma unroll
                for (int j = 0; j < EIGHTS; j++) {
                    multiply_add<TYPE>(sum[i * EIGHTS + j], front, packed[j].x, packed[j].y);
                    multiply_add<TYPE>(sum[i * EIGHTS + j], back, packed[j].z, packed[j].w);
                }
            }
        }
    }
    if (to.a) place_b<TYPE>(to, n);
    add_warps<narrow_warps>(sum, shared);
    cluster.add(sum);
    if (warp != 0 || rank != 0) return;
#pragma unroll
    for (int i = 0; i < ROWS; i++)
#pragma unroll
        for (int j = 0; j < EIGHTS; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const int64_t row = first + 16 * i + e / 2 * 8, col = 8 * j + 2 * quad + e % 2;
                if (row >= m) continue;
                float *const place = y + row * stride + col;
                const float value = col < n ? alpha * sum[i * EIGHTS + j][e] + (accumulate ? *place : 0.0f) : 0.0f;
                if (col < n) *place = value;
                if (to.a && col < to.ranks) to.a[row * to.a_stride + k + col] = uint16_t(TYPE == QLORA_FORMAT_F16 ? f16_from_f32(value * to.scale) : bf16_from_f32(value * to.scale));
            }
}

template <int TYPE, bool HALF, bool TURNED> int32_t run_narrow(Context &context, cudaStream_t stream, const Product &p, const Augmented &to) {
    const auto run = [&](auto kernel, int64_t rows) {
        const uint64_t count = ceil_divide(uint64_t(p.m), uint64_t(rows));
        unsigned cluster = 1; // as many blocks as leave one to a multiprocessor, and a piece to every warp
        while (sums_of_clusters && clustered(context) && cluster < most_cluster && count * cluster * 2 <= uint64_t(state_of(context).multiprocessors) &&
               int64_t(cluster) * narrow_warps * 32 < p.k)
            cluster *= 2;
        const Grid grid = {dim3(unsigned(count * cluster)), narrow_warps * 32, 0, cluster};
        return launch_early(context, stream, grid, kernel, p.a, p.b, p.m, p.n, p.k, static_cast<float *>(p.y), p.y_stride, p.alpha, p.accumulate, cluster, to);
    };
    // Two groups of rows share what they read of b, where that leaves enough blocks.
    const bool many = p.m > 16 && (clustered(context) || p.m > 32 * state_of(context).multiprocessors);
    if (p.n <= 16) return many ? run(narrow_kernel<TYPE, HALF, TURNED, 2, 2>, 32) : run(narrow_kernel<TYPE, HALF, TURNED, 2, 1>, 16);
    return run(narrow_kernel<TYPE, HALF, TURNED, 4, 1>, 16);
}

// ---- columns: a block has 32 columns of b and every rank; its warps take 16 tokens in turn -----------------------

constexpr int columns_warps = 8;

// side: the operand with ranks, [tokens][ranks]; body: the one with columns, [tokens][columns], of TYPE.
template <int TYPE, bool HALF, int SIXTEENTHS>
__global__ void __launch_bounds__(columns_warps * 32) columns_kernel(const __grid_constant__ Operand side, const __grid_constant__ Operand body, int64_t ranks, int64_t columns,
                                                                     int64_t tokens, float *y, int64_t stride, bool rank_rows, float alpha, bool accumulate) {
    wait_for_previous();
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, group = lane / 4, quad = lane % 4;
    const int64_t first = int64_t(blockIdx.x) * 32, mine = first + 4 * group;
    const uint16_t *const data = static_cast<const uint16_t *>(body.data);
    float sum[SIXTEENTHS * 4][4] = {};
    constexpr int at_once = 4 / SIXTEENTHS;
    for (int64_t piece = warp * 16; piece < tokens; piece += columns_warps * 16 * at_once) {
        uint2 right[at_once][4];
        Raw<TYPE, HALF> left[at_once][SIXTEENTHS][8];
#pragma unroll
        for (int u = 0; u < at_once; u++) {
            const int64_t token = piece + u * columns_warps * 16 + quad * 4;
#pragma unroll
            for (int i = 0; i < 4; i++)
                right[u][i] = token + i < tokens && mine < columns ? *reinterpret_cast<const uint2 *>(data + (token + i) * body.stride + mine) : make_uint2(0, 0);
#pragma unroll
            for (int r = 0; r < SIXTEENTHS; r++)
#pragma unroll
                for (int e = 0; e < 8; e++) { // rank `group` and 8 below, of four tokens
                    const int64_t rank = 16 * r + group + e / 4 * 8, from = token + e % 4;
                    left[u][r][e].load(side, from * side.stride + rank, rank < ranks && from < tokens);
                }
        }
#pragma unroll
        for (int u = 0; u < at_once; u++) {
            uint32_t packed[SIXTEENTHS][4];
#pragma unroll
            for (int r = 0; r < SIXTEENTHS; r++)
#pragma unroll
                for (int e = 0; e < 4; e++) packed[r][e] = Raw<TYPE, HALF>::pack(left[u][r][e % 2 * 4 + e / 2 * 2], left[u][r][e % 2 * 4 + e / 2 * 2 + 1], 1);
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const uint32_t pick = j % 2 ? 0x7632 : 0x5410;
                uint32_t words[4];
#pragma unroll
                for (int i = 0; i < 4; i++) words[i] = j / 2 ? right[u][i].y : right[u][i].x;
                const uint32_t front = __byte_perm(words[0], words[1], pick), back = __byte_perm(words[2], words[3], pick);
#pragma unroll
                for (int r = 0; r < SIXTEENTHS; r++) multiply_add<TYPE>(sum[r * 4 + j], packed[r], front, back);
            }
        }
    }
    __shared__ float4 shared[columns_warps / 2 * SIXTEENTHS * 4 * 32];
    add_warps<columns_warps>(sum, shared);
    if (warp != 0) return;
#pragma unroll
    for (int r = 0; r < SIXTEENTHS; r++)
#pragma unroll
        for (int j = 0; j < 4; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const int64_t rank = 16 * r + group + e / 2 * 8, col = first + 4 * (2 * quad + e % 2) + j;
                if (rank >= ranks || col >= columns) continue;
                float *const place = y + (rank_rows ? rank * stride + col : col * stride + rank);
                *place = alpha * sum[r * 4 + j][e] + (accumulate ? *place : 0.0f);
            }
}

template <int TYPE, bool HALF> int32_t run_columns(Context &context, cudaStream_t stream, const Product &p) {
    const bool rank_rows = p.m <= most_rank; // dA: ranks are rows of y
    const Operand &side = rank_rows ? p.a : p.b, &body = rank_rows ? p.b : p.a;
    const int64_t ranks = rank_rows ? p.m : p.n, columns = rank_rows ? p.n : p.m;
    const auto run = [&](auto kernel) {
        const Grid grid = {dim3(unsigned(ceil_divide(uint64_t(columns), 32))), columns_warps * 32};
        return launch_early(context, stream, grid, kernel, side, body, ranks, columns, p.k, static_cast<float *>(p.y), p.y_stride, rank_rows, p.alpha, p.accumulate);
    };
    return ranks <= 16 ? run(columns_kernel<TYPE, HALF, 1>) : run(columns_kernel<TYPE, HALF, 2>);
}

// ---- wide: a warp has 64 columns of y, whose part of b it keeps, and walks down groups of 16 rows -----------------

constexpr int wide_warps = 4;

// Where column `index` of product `part` lies among the 64: four neighbouring lanes store 64 neighbouring bytes.
__device__ __forceinline__ int wide_column(int index, int part) { return 32 * (index % 2) + 8 * (index / 2) + part; }

// COUNT neighbours from `index`, `there` of which exist, as pairs of TYPE; in whole words where the address is aligned to them.
template <int TYPE, bool HALF, int COUNT> __device__ __forceinline__ void load_pairs(const Operand &operand, int64_t index, int64_t there, bool whole, float scale, uint32_t (&pairs)[COUNT / 2]) {
    if (whole) {
        if constexpr (HALF) {
            const uint2 *const from = reinterpret_cast<const uint2 *>(static_cast<const uint16_t *>(operand.data) + index);
#pragma unroll
            for (int i = 0; i < COUNT / 4; i++) {
                const uint2 words = there > 0 ? from[i] : make_uint2(0, 0);
                pairs[2 * i] = words.x;
                pairs[2 * i + 1] = words.y;
            }
        } else {
            const float4 *const from = reinterpret_cast<const float4 *>(static_cast<const float *>(operand.data) + index);
#pragma unroll
            for (int i = 0; i < COUNT / 4; i++) {
                const float4 values = there > 0 ? from[i] : make_float4(0, 0, 0, 0);
                pairs[2 * i] = pack2<TYPE>(values.x * scale, values.y * scale);
                pairs[2 * i + 1] = pack2<TYPE>(values.z * scale, values.w * scale);
            }
        }
        return;
    }
#pragma unroll
    for (int i = 0; i < COUNT / 2; i++) {
        Raw<TYPE, HALF> low, high;
        low.load(operand, index + 2 * i, 2 * i < there);
        high.load(operand, index + 2 * i + 1, 2 * i + 1 < there);
        pairs[i] = Raw<TYPE, HALF>::pack(low, high, scale);
    }
}

// In a lane's place in the fragments are four neighbouring ranks. whole: ranks and columns come in whole words everywhere.
template <int TYPE, bool HALF, bool TURNED, int SIXTEENTHS>
__global__ void __launch_bounds__(wide_warps * 32) wide_kernel(const __grid_constant__ Operand a, const __grid_constant__ Operand b, int64_t ranks, int groups, bool whole,
                                                               const __grid_constant__ Epilogue y) {
    wait_for_previous();
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, group = lane / 4, quad = lane % 4;
    const int64_t first = int64_t(blockIdx.x) * 64, top = int64_t(blockIdx.y) * wide_warps * groups * 16;
    uint32_t right[SIXTEENTHS][8][2];
#pragma unroll
    for (int r = 0; r < SIXTEENTHS; r++) {
        const int64_t rank = 16 * r + 4 * quad, col = first + wide_column(group, 0);
        if constexpr (TURNED) {
            uint32_t rows[4][4];
#pragma unroll
            for (int t = 0; t < 4; t++) load_pairs<TYPE, HALF, 8>(b, (rank + t) * b.stride + col, rank + t < ranks ? y.n - col : 0, whole, 1, rows[t]);
#pragma unroll
            for (int j = 0; j < 8; j++)
#pragma unroll
                for (int h = 0; h < 2; h++) right[r][j][h] = __byte_perm(rows[2 * h][j / 2], rows[2 * h + 1][j / 2], j % 2 ? 0x7632 : 0x5410);
        } else {
#pragma unroll
            for (int j = 0; j < 8; j++) load_pairs<TYPE, HALF, 4>(b, (col + j) * b.stride + rank, col + j < y.n ? ranks - rank : 0, whole, 1, right[r][j]);
        }
    }
    const bool plain = whole && y.type == TYPE && y.vector && y.n % 8 == 0 && !y.bias && !y.partial;
#pragma unroll 1
    for (int step = 0; step < groups && top + int64_t(step) * 16 * wide_warps < y.m; step++) {
        const int64_t row = top + (int64_t(step) * wide_warps + warp) * 16 + group;
        uint4 old[2][2] = {};
        if (plain && y.accumulate)
#pragma unroll
            for (int h = 0; h < 2; h++)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    const int64_t col = first + wide_column(2 * quad + i, 0);
                    if (row + 8 * h < y.m && col < y.n) old[h][i] = *reinterpret_cast<const uint4 *>(static_cast<const uint16_t *>(y.y) + (row + 8 * h) * y.stride + col);
                }
        float sum[8][4] = {};
#pragma unroll
        for (int r = 0; r < SIXTEENTHS; r++) {
            const int64_t rank = 16 * r + 4 * quad;
            uint32_t up[2], down[2];
            load_pairs<TYPE, false, 4>(a, row * a.stride + rank, row < y.m ? ranks - rank : 0, whole, a.scale, up);
            load_pairs<TYPE, false, 4>(a, (row + 8) * a.stride + rank, row + 8 < y.m ? ranks - rank : 0, whole, a.scale, down);
            const uint32_t left[4] = {up[0], down[0], up[1], down[1]};
#pragma unroll
            for (int j = 0; j < 8; j++) multiply_add<TYPE>(sum[j], left, right[r][j][0], right[r][j][1]);
        }
#pragma unroll
        for (int h = 0; h < 2; h++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const int64_t col = first + wide_column(2 * quad + i, 0);
                if (row + 8 * h >= y.m || col >= y.n) continue;
                float values[8];
#pragma unroll
                for (int j = 0; j < 8; j++) values[j] = sum[j][2 * h + i];
                if (!plain) {
                    y.put8(row + 8 * h, col, values);
                    continue;
                }
                float before[8];
                unpack8(old[h][i], TYPE, before);
#pragma unroll
                for (int j = 0; j < 8; j++) values[j] = y.alpha * values[j] + before[j];
                *reinterpret_cast<uint4 *>(static_cast<uint16_t *>(y.y) + (row + 8 * h) * y.stride + col) = pack8<TYPE>(values);
            }
    }
}

template <int TYPE, bool HALF, bool TURNED> int32_t run_wide(Context &context, cudaStream_t stream, const Product &p) {
    // As many groups to a warp as leave eight blocks to a multiprocessor.
    const uint64_t across = ceil_divide(uint64_t(p.n), 64), down = ceil_divide(uint64_t(p.m), 16 * wide_warps);
    const int groups = int(std::min<uint64_t>(8, std::max<uint64_t>(1, across * down / (8 * uint64_t(state_of(context).multiprocessors)))));
    const bool whole = p.a.vector && p.b.vector && p.k % 4 == 0 && (!TURNED || p.n % 8 == 0);
    const auto run = [&](auto kernel) {
        const Grid grid = {dim3(unsigned(across), unsigned(ceil_divide(down, uint64_t(groups)))), wide_warps * 32};
        return launch_early(context, stream, grid, kernel, p.a, p.b, p.k, groups, whole, epilogue_of(p, nullptr));
    };
    return p.k <= 16 ? run(wide_kernel<TYPE, HALF, TURNED, 1>) : run(wide_kernel<TYPE, HALF, TURNED, 2>);
}

// Whether an operand is f32 or of the compute type; the kernels take no third.
bool known(const Operand &operand, int32_t type) { return operand.type == QLORA_FORMAT_F32 || operand.type == type; }
bool words(const Operand &operand, int32_t type) { return operand.type == type && operand.vector; }

template <int TYPE> int32_t run_narrow(Context &context, cudaStream_t stream, const Product &p, const Augmented &to) {
    const bool half_b = p.b.type == TYPE;
    if (p.b.turned) return half_b ? run_narrow<TYPE, true, true>(context, stream, p, to) : run_narrow<TYPE, false, true>(context, stream, p, to);
    return half_b ? run_narrow<TYPE, true, false>(context, stream, p, to) : run_narrow<TYPE, false, false>(context, stream, p, to);
}

template <int TYPE> int32_t run(Context &context, cudaStream_t stream, const Product &p, LowRank kind) {
    const bool half_b = p.b.type == TYPE;
    if (kind == LowRank::NARROW) return run_narrow<TYPE>(context, stream, p, Augmented{});
    if (kind == LowRank::COLUMNS) return (p.m <= most_rank ? p.a : p.b).type == TYPE ? run_columns<TYPE, true>(context, stream, p) : run_columns<TYPE, false>(context, stream, p);
    if (p.b.turned) return half_b ? run_wide<TYPE, true, true>(context, stream, p) : run_wide<TYPE, false, true>(context, stream, p);
    return half_b ? run_wide<TYPE, true, false>(context, stream, p) : run_wide<TYPE, false, false>(context, stream, p);
}

} // namespace

LowRank low_rank_kind(const Product &p) {
    if (p.weight || p.low_k || !known(p.a, p.compute_type) || !known(p.b, p.compute_type)) return LowRank::NONE;
    if (!p.a.turned && p.a.type == QLORA_FORMAT_F32 && p.k <= most_rank && p.n > most_rank) return LowRank::WIDE;
    if (p.y_type != QLORA_FORMAT_F32 || p.bias) return LowRank::NONE;
    if (!p.a.turned) return p.n <= most_rank && p.k % 8 == 0 && words(p.a, p.compute_type) && (p.b.turned || p.b.vector) ? LowRank::NARROW : LowRank::NONE;
    if (!p.b.turned) return LowRank::NONE;
    const Operand &body = p.m <= most_rank ? p.b : p.a;
    const int64_t ranks = p.m <= most_rank ? p.m : p.n, columns = p.m <= most_rank ? p.n : p.m;
    return ranks <= most_rank && columns % 4 == 0 && words(body, p.compute_type) ? LowRank::COLUMNS : LowRank::NONE;
}

int32_t multiply_low_rank(Context &context, cudaStream_t stream, const Product &p) {
    const LowRank kind = low_rank_kind(p);
    return p.compute_type == QLORA_FORMAT_F16 ? run<QLORA_FORMAT_F16>(context, stream, p, kind) : run<QLORA_FORMAT_BF16>(context, stream, p, kind);
}

int32_t multiply_augmenting(Context &context, cudaStream_t stream, const Product &p, const Augmented &to) {
    return p.compute_type == QLORA_FORMAT_F16 ? run_narrow<QLORA_FORMAT_F16>(context, stream, p, to) : run_narrow<QLORA_FORMAT_BF16>(context, stream, p, to);
}

} // namespace cuda
} // namespace qlora
