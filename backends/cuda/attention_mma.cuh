// Attention on the tensor cores, for 16-bit activations and heads of at most 128. A block of four warps owns OWN = 64
// rows of one head, 16 per warp, and streams tiles of the other side; scores, softmax and sums are f32, and weights
// (p, ds) are rounded to the activations' type where they become operands, as FlashAttention does.
#pragma once
#include "backends/cuda/attention.cuh"
#include "backends/cuda/mma.cuh"

namespace qlora {
namespace cuda {

constexpr int attention_own = 64;

// shared rows are those of Tile<false, ROWS, DIM>: [row][d] with zeros past limit and past head_dim.
template <int DIM, int ROWS>
__device__ __forceinline__ void load_tile(uint16_t *shared, const View &view, int64_t base, int first, int limit, int head, const AttentionView &a) {
    using T = Tile<false, ROWS, DIM>;
#pragma unroll 4
    for (int group = threadIdx.x; group < T::groups; group += attention_threads) {
        const int row = T::outer(group), d = T::inner(group);
        const int64_t place = (base + first + row) * view.stride + int64_t(head) * a.head_dim + d;
        const uint16_t *data = static_cast<const uint16_t *>(view.data) + place;
        uint4 words = make_uint4(0, 0, 0, 0);
        if (first + row < limit && d < a.head_dim) {
            if (a.vector) words = *reinterpret_cast<const uint4 *>(data);
            else {
                uint32_t halves[8];
#pragma unroll
                for (int i = 0; i < 8; i++) halves[i] = d + i < a.head_dim ? data[i] : 0;
                words = make_uint4(halves[0] | halves[1] << 16, halves[2] | halves[3] << 16, halves[4] | halves[5] << 16, halves[6] | halves[7] << 16);
            }
        }
        *reinterpret_cast<uint4 *>(T::at(shared, group)) = words;
    }
}

// dots[16 own rows of the warp][STREAM] = own stream^T over DIM.
template <int TYPE, int DIM, int STREAM>
__device__ __forceinline__ void dot_tiles(const uint16_t *own, const uint16_t *stream, float (&dots)[STREAM / 8][4]) {
    using Own = Tile<false, attention_own, DIM>;
    using Stream = Tile<false, STREAM, DIM>;
    const int warp = threadIdx.x / 32;
#pragma unroll
    for (int j = 0; j < STREAM / 8; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) dots[j][i] = 0;
#pragma unroll
    for (int d = 0; d < DIM; d += 16) {
        uint32_t left[4];
        Own::load_a(left, own, warp * 16, d);
#pragma unroll
        for (int j = 0; j < STREAM / 16; j++) {
            uint32_t right[4];
            Stream::load_b(right, stream, 16 * j, d);
            multiply_add<TYPE>(dots[2 * j], left, right[0], right[1]);
            multiply_add<TYPE>(dots[2 * j + 1], left, right[2], right[3]);
        }
    }
}

// sums[16 own rows][DIM] += weights stream: the sums of one product are, pairwise rounded, the left operand of the next.
template <int TYPE, int DIM, int STREAM>
__device__ __forceinline__ void add_tiles(const float (&weights)[STREAM / 8][4], const uint16_t *stream, float (&sums)[DIM / 8][4]) {
    // stream lies as [row][d], which is [k][n] here: a turned tile of STREAM along k.
    using Turned = Tile<true, DIM, STREAM>;
#pragma unroll
    for (int j = 0; j < STREAM / 16; j++) {
        const uint32_t left[4] = {pack2<TYPE>(weights[2 * j][0], weights[2 * j][1]), pack2<TYPE>(weights[2 * j][2], weights[2 * j][3]),
                                  pack2<TYPE>(weights[2 * j + 1][0], weights[2 * j + 1][1]), pack2<TYPE>(weights[2 * j + 1][2], weights[2 * j + 1][3])};
#pragma unroll
        for (int n = 0; n < DIM / 16; n++) {
            uint32_t right[4];
            Turned::load_b(right, stream, 16 * n, 16 * j);
            multiply_add<TYPE>(sums[2 * n], left, right[0], right[1]);
            multiply_add<TYPE>(sums[2 * n + 1], left, right[2], right[3]);
        }
    }
}

// Writes the warp's 16 rows; half 0 are rows lane / 4, half 1 the rows 8 below.
template <int TYPE, int DIM>
__device__ __forceinline__ void store_tile(const View &view, int64_t base, int first, int limit, int head, const AttentionView &a, const float (&sums)[DIM / 8][4], float factor0,
                                           float factor1) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int row = first + threadIdx.x / 32 * 16 + lane / 4 + 8 * half;
        if (row >= limit) continue;
        const float factor = half ? factor1 : factor0;
        uint16_t *data = static_cast<uint16_t *>(view.data) + (base + row) * view.stride + int64_t(head) * a.head_dim;
#pragma unroll
        for (int j = 0; j < DIM / 8; j++) {
            const int d = 8 * j + lane % 4 * 2;
            const uint32_t pair = pack2<TYPE>(sums[j][2 * half] * factor, sums[j][2 * half + 1] * factor);
            if (a.vector) {
                if (d < a.head_dim) *reinterpret_cast<uint32_t *>(data + d) = pair;
            } else {
                if (d < a.head_dim) data[d] = uint16_t(pair);
                if (d + 1 < a.head_dim) data[d + 1] = uint16_t(pair >> 16);
            }
        }
    }
}

template <int DIM, int ROWS> constexpr size_t tile_bytes() { return Tile<false, ROWS, DIM>::halves * sizeof(uint16_t); }

// Whether these activations go to the tensor cores.
template <class Args> bool takes_attention_mma(Context &context, const Args &args) { return args.head_dim <= 128 && has_mma(context, args.q.type); }
int32_t attention_mma(Context &context, cudaStream_t stream, const AttentionView &view, const qlora_attention_args &args);
int32_t attention_grad_mma(Context &context, cudaStream_t stream, const AttentionView &view, const qlora_attention_grad_args &args);

// Calls run(type constant, DIM constant).
template <class Run> int32_t with_attention_tile(int32_t type, uint32_t head_dim, Run &&run) {
    if (type == QLORA_FORMAT_F16) return head_dim <= 64 ? run(Size<QLORA_FORMAT_F16>(), Size<64>()) : run(Size<QLORA_FORMAT_F16>(), Size<128>());
    return head_dim <= 64 ? run(Size<QLORA_FORMAT_BF16>(), Size<64>()) : run(Size<QLORA_FORMAT_BF16>(), Size<128>());
}

} // namespace cuda
} // namespace qlora
