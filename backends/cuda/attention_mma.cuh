// Attention on the tensor cores, for 16-bit activations and heads of at most 128. A warp owns M x 16 rows of one head (queries,
// or keys in the dk / dv pass); a block of them streams tiles of the other side through two stages of shared memory, one of
// which fills while the other is used. Scores, softmax and sums are f32 in registers, and weights (p, ds) are rounded to the
// activations' type where they become operands, as FlashAttention-2 does (2307.08691). Exponentials are of base 2.
#pragma once
#include "backends/cuda/attention.cuh"
#include "backends/cuda/mma.cuh"

namespace qlora {
namespace cuda {

constexpr float log2_e = 1.4426950408889634f, ln_2 = 0.69314718055994531f;

__device__ __forceinline__ float exp2_of(float x) {
    float value;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(value) : "f"(x));
    return value;
}

// Tiles lie as [row][d], DIM + 8 values apart, so that eight rows of a matrix lie in different banks.
template <int DIM> constexpr int row_bytes = (DIM + 8) * 2;
template <int DIM, int ROWS> constexpr uint32_t tile_bytes = ROWS * row_bytes<DIM>;

// Where a lane looks in a tile for the rows of a left operand, or for those of a right one that has its rows along k; and for
// the columns of a right operand that has its rows along n.
template <int DIM> __device__ __forceinline__ uint32_t lane_rows() { return threadIdx.x % 16 * row_bytes<DIM> + threadIdx.x % 32 / 16 * 16; }
template <int DIM> __device__ __forceinline__ uint32_t lane_columns() { return (threadIdx.x % 8 + threadIdx.x % 32 / 16 * 8) * row_bytes<DIM> + threadIdx.x / 8 % 2 * 16; }

// Rows of one head from first on, which a block of THREADS copies to tiles of ROWS, one after the other, with zeros past limit and
// past head_dim.
template <int DIM, int ROWS, int THREADS> struct Stream {
    static constexpr int groups = DIM / 8, step = THREADS / groups; // step: rows that the block copies at a time
    static_assert(ROWS % step == 0, "every thread copies as much");
    const uint16_t *data; // of this thread's next eight values
    int left;             // rows from there to limit
    Stream() = default;
    __device__ __forceinline__ Stream(const AttentionView &a, const View &view, int64_t base, int first, int limit, int head)
        : data(static_cast<const uint16_t *>(view.data) + (base + first + threadIdx.x / groups) * view.stride + int64_t(head) * a.head_dim + threadIdx.x % groups * 8),
          left(int(threadIdx.x % groups * 8) < a.head_dim ? limit - first - int(threadIdx.x / groups) : 0) {}
    // Begins to copy the next tile.
    __device__ __forceinline__ void fetch(const AttentionView &a, const View &view, uint32_t tile) {
        uint32_t place = tile + threadIdx.x / groups * row_bytes<DIM> + threadIdx.x % groups * 16;
#pragma unroll
        for (int row = 0; row < ROWS; row += step, place += step * row_bytes<DIM>, data += step * view.stride) {
            asm volatile("" : "+l"(data)); // or all addresses would be kept in registers through the loop over tiles
            if (a.vector) {
                copy_async<16>(place, data, row < left);
                continue;
            }
            uint32_t words[4];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int rest = row < left ? a.head_dim - int(threadIdx.x % groups * 8) - 2 * i : 0;
                words[i] = (rest > 0 ? data[2 * i] : 0) | uint32_t(rest > 1 ? data[2 * i + 1] : 0) << 16;
            }
            store_shared(place, words);
        }
        left -= ROWS;
    }
};

// The 16 own rows of a warp with M of 1, to be kept in registers: of the tile plus lane_rows, when the block's copies are there.
template <int DIM> __device__ __forceinline__ void keep_tile(uint32_t own, uint32_t (&kept)[DIM / 16][4]) {
    wait_copies<0>();
    __syncthreads();
#pragma unroll
    for (int d = 0; d < DIM / 16; d++) load_matrices<false>(kept[d], own + d * 32);
}
// 16 columns from d of the t-th 16 own rows, kept or from the tile.
template <int DIM, bool KEPT> __device__ __forceinline__ void take_own(uint32_t own, const uint32_t (&kept)[DIM / 16][4], int t, int d, uint32_t (&words)[4]) {
    if constexpr (!KEPT) {
        load_matrices<false>(words, own + t * tile_bytes<DIM, 16> + d * 2);
    } else {
#pragma unroll
        for (int i = 0; i < 4; i++) words[i] = kept[d / 16][i];
    }
}

// dots[16 M own rows of the warp][STREAM] = own stream^T over DIM. left(t, d, words) gives 16 columns from d of the t-th own 16
// rows; stream is a tile plus lane_columns.
template <int TYPE, int DIM, int STREAM, int M, bool KEPT, class Left> __device__ __forceinline__ void dot_tiles(const Left &left, uint32_t stream, float (&dots)[M][STREAM / 8][4]) {
#pragma unroll
    for (int t = 0; t < M; t++)
#pragma unroll
        for (int j = 0; j < STREAM / 8; j++)
#pragma unroll
            for (int i = 0; i < 4; i++) dots[t][j][i] = 0;
#pragma unroll(KEPT ? DIM / 16 : 4)
    for (int d = 0; d < DIM; d += 16) {
        uint32_t own[M][4];
#pragma unroll
        for (int t = 0; t < M; t++) left(t, d, own[t]);
#pragma unroll
        for (int j = 0; j < STREAM / 16; j++) {
            uint32_t right[4];
            load_matrices<false>(right, stream + 16 * j * row_bytes<DIM> + d * 2);
#pragma unroll
            for (int t = 0; t < M; t++) {
                multiply_add<TYPE>(dots[t][2 * j], own[t], right[0], right[1]);
                multiply_add<TYPE>(dots[t][2 * j + 1], own[t], right[2], right[3]);
            }
        }
    }
}

// sums[16 M own rows][DIM] += weights stream: the sums of one product are, pairwise rounded, the left operand of the next.
// stream is a tile plus lane_rows.
template <int TYPE, int DIM, int STREAM, int M>
__device__ __forceinline__ void add_tiles(const float (&weights)[M][STREAM / 8][4], uint32_t stream, float (&sums)[M][DIM / 8][4]) {
#pragma unroll
    for (int j = 0; j < STREAM / 16; j++) {
        uint32_t left[M][4];
#pragma unroll
        for (int t = 0; t < M; t++)
#pragma unroll
            for (int i = 0; i < 4; i++) left[t][i] = pack2<TYPE>(weights[t][2 * j + i / 2][i % 2 * 2], weights[t][2 * j + i / 2][i % 2 * 2 + 1]);
#pragma unroll
        for (int n = 0; n < DIM / 16; n++) {
            uint32_t right[4];
            load_matrices<true>(right, stream + 16 * j * row_bytes<DIM> + n * 32);
#pragma unroll
            for (int t = 0; t < M; t++) {
                multiply_add<TYPE>(sums[t][2 * n], left[t], right[0], right[1]);
                multiply_add<TYPE>(sums[t][2 * n + 1], left[t], right[2], right[3]);
            }
        }
    }
}

// Writes 16 rows of the warp from first on; a lane has the rows lane / 4 and, half 1, 8 below, each with its factor.
template <int TYPE, int DIM>
__device__ __forceinline__ void store_tile(const View &view, int64_t base, int first, int limit, int head, const AttentionView &a, const float (&sums)[DIM / 8][4], float factor0,
                                           float factor1) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int row = first + lane / 4 + 8 * half;
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

// Whether these activations go to the tensor cores.
template <class Args> bool takes_attention_mma(Context &context, const Args &args) { return args.head_dim <= 128 && has_mma(context, args.q.type); }
int32_t attention_mma(Context &context, cudaStream_t stream, const AttentionView &view, const qlora_attention_args &args);
int32_t attention_grad_mma(Context &context, cudaStream_t stream, const AttentionView &view, const qlora_attention_grad_args &args);

// Calls run(type constant, DIM constant).
template <class Run> int32_t with_attention_tile(int32_t type, uint32_t head_dim, Run &&run) {
    if (type == QLORA_FORMAT_F16) return head_dim <= 64 ? run(Size<QLORA_FORMAT_F16>(), Size<64>()) : run(Size<QLORA_FORMAT_F16>(), Size<128>());
    return head_dim <= 64 ? run(Size<QLORA_FORMAT_BF16>(), Size<64>()) : run(Size<QLORA_FORMAT_BF16>(), Size<128>());
}

// One block per `own` rows and head. Heads come fastest in a grid, so that the longest blocks of all of them start first.
inline dim3 attention_blocks(uint32_t rows, int own, uint32_t heads, uint32_t sequences) { return dim3(unsigned(ceil_divide(rows, uint64_t(own)) * heads), 1, sequences); }
// Whether a block may have this much shared memory; whether there are enough blocks to keep every multiprocessor at work.
inline bool fits_device(Context &context, uint32_t shared_bytes) { return shared_bytes <= uint32_t(state_of(context).shared_bytes); }
inline bool fills_device(Context &context, dim3 blocks) { return uint64_t(blocks.x) * blocks.z >= 2 * uint64_t(state_of(context).multiprocessors); }

} // namespace cuda
} // namespace qlora
