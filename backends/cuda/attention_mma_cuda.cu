// Attention forward on the tensor cores.
#include "backends/cuda/attention_mma.cuh"

namespace qlora {
namespace cuda {

// Shared memory: two stages of keys and values, then queries. With M of 1 these lie in the first stage before they are kept in
// registers.
template <int DIM, int M> struct Shape {
    static constexpr int own = 64 * M, stream = 32 * M;
    static constexpr uint32_t tile = tile_bytes<DIM, stream>, stage = 2 * tile, q = M == 1 ? 0 : 2 * stage, shared_bytes = 2 * stage + (M == 1 ? 0 : tile_bytes<DIM, own>);
};

// Scores of one tile of 16 rows to weights relative to the running maximum, which with the total of what this lane has goes on;
// fade is for what was summed before.
template <int TILES> static __device__ __forceinline__ void soften(float (&scores)[TILES][4], float factor, float (&maximum)[2], float (&total)[2], float (&fade)[2]) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float largest = maximum[half], sum = 0;
#pragma unroll
        for (int j = 0; j < TILES; j++) largest = fmaxf(largest, fmaxf(scores[j][2 * half], scores[j][2 * half + 1]));
        for (int step = 1; step <= 2; step *= 2) largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, step));
        const float shift = largest == -INFINITY ? 0.0f : largest * factor;
        fade[half] = exp2_of(maximum[half] * factor - shift);
#pragma unroll
        for (int j = 0; j < TILES; j++)
#pragma unroll
            for (int i = 2 * half; i < 2 * half + 2; i++) sum += scores[j][i] = exp2_of(scores[j][i] * factor - shift);
        total[half] = total[half] * fade[half] + sum;
        maximum[half] = largest;
    }
}

template <int TYPE, int DIM, int M, bool SHAPED>
static __global__ void __launch_bounds__(attention_threads, M == 1 ? 3 : 2) attention_mma_kernel(const __grid_constant__ AttentionView a) {
    using T = Shape<DIM, M>;
    constexpr int stream_rows = T::stream;
    extern __shared__ uint4 shared4[];
    wait_for_previous();
    const uint32_t shared = shared_address(shared4);
    const Sequence s = sequence_of(a, blockIdx.z);
    const int blocks = gridDim.x / a.heads, first = (blocks - 1 - int(blockIdx.x) / a.heads) * T::own; // the longest rows start first
    if (!s.fits || first >= s.q_rows) return;
    const int head = blockIdx.x % a.heads, kv_head = head / (a.heads / a.kv_heads), warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const Shaping<SHAPED> shaping(a, head);
    const int begin = shaping.template first_key<stream_rows>(s, first), keys = min(s.k_rows, first + T::own + s.ahead);
    Stream<DIM, T::own, attention_threads>(a, a.q, s.q_first, first, s.q_rows, head).fetch(a, a.q, shared + T::q);
    const uint32_t own = shared + T::q + warp * M * tile_bytes<DIM, 16> + lane_rows<DIM>();
    uint32_t kept[DIM / 16][4];
    if constexpr (M == 1) {
        commit_copies();
        keep_tile<DIM>(own, kept);
        __syncthreads();
    }
    const auto q = [&](int t, int d, uint32_t(&words)[4]) { take_own<DIM, M == 1>(own, kept, t, d, words); };
    Stream<DIM, stream_rows, attention_threads> k_stream(a, a.k, s.k_first, begin, s.k_rows, kv_head), v_stream(a, a.v, s.k_first, begin, s.k_rows, kv_head);
    const auto fetch = [&](int stage) {
        k_stream.fetch(a, a.k, shared + stage * T::stage);
        v_stream.fetch(a, a.v, shared + stage * T::stage + T::tile);
        commit_copies();
    };
    fetch(0);
    const float factor = SHAPED ? log2_e : a.scale * log2_e;
    const int row = first + warp * M * 16; // of the warp's first; a lane has rows lane / 4 and 8 below of each 16
    float sums[M][DIM / 8][4] = {}, maximum[M][2], total[M][2];
#pragma unroll
    for (int t = 0; t < M; t++)
        for (int half = 0; half < 2; half++) { maximum[t][half] = -INFINITY; total[t][half] = 0; }
    int newest = row + s.ahead - begin; // the last key that the warp's first query sees, counted from the tile's first
    for (int tiles = (keys - begin + stream_rows - 1) / stream_rows, stage = 0; tiles > 0; tiles--, newest -= stream_rows, stage ^= 1) {
        wait_copies<0>();
        __syncthreads(); // this stage is there, and everyone is done with the other
        if (tiles > 1) fetch(stage ^ 1);
        if (newest + M * 16 <= 0) continue; // no row of this warp sees any of it
        const uint32_t k = shared + stage * T::stage, v = k + T::tile;
        float scores[M][stream_rows / 8][4];
        dot_tiles<TYPE, DIM, stream_rows, M, M == 1>(q, k + lane_columns<DIM>(), scores);
#pragma unroll
        for (int t = 0; t < M; t++) {
            shaping.template cap<true>(scores[t]);
            if (SHAPED || newest + t * 16 < stream_rows - 1) {
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    const int last = newest + t * 16 + lane / 4 + 8 * half - lane % 4 * 2; // counted from this lane's first
#pragma unroll
                    for (int j = 0; j < stream_rows / 8; j++)
#pragma unroll
                        for (int i = 2 * half; i < 2 * half + 2; i++) {
                            if (!shaping.sees(last, 8 * j + i % 2)) scores[t][j][i] = -INFINITY;
                            else if (SHAPED) scores[t][j][i] = shaping.score(scores[t][j][i], last, 8 * j + i % 2);
                        }
                }
            }
            float fade[2];
            soften(scores[t], factor, maximum[t], total[t], fade);
            if (__any_sync(0xffffffffu, fade[0] != 1 || fade[1] != 1)) {
#pragma unroll
                for (int j = 0; j < DIM / 8; j++)
#pragma unroll
                    for (int i = 0; i < 4; i++) sums[t][j][i] *= fade[i / 2];
            }
        }
        add_tiles<TYPE, DIM, stream_rows, M>(scores, v + lane_rows<DIM>(), sums);
    }
#pragma unroll
    for (int t = 0; t < M; t++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            for (int step = 1; step <= 2; step *= 2) total[t][half] += __shfl_xor_sync(0xffffffffu, total[t][half], step);
            const int place = row + t * 16 + lane / 4 + 8 * half;
            if (a.lse && lane % 4 == 0 && place < s.q_rows) a.lse[(s.q_first + place) * a.heads + head] = maximum[t][half] * factor * ln_2 + logf(total[t][half]);
        }
        store_tile<TYPE, DIM>(a.y, s.q_first, row + t * 16, s.q_rows, head, a, sums[t], 1 / total[t][0], 1 / total[t][1]);
    }
}

int32_t attention_mma(Context &context, cudaStream_t stream, const AttentionView &view, const qlora_attention_args &args) {
    return with_attention_tile(args.q.type, args.head_dim, [&](auto type, auto dim) -> int32_t {
        constexpr int kind = decltype(type)::value, size = decltype(dim)::value;
        const dim3 large = attention_blocks(args.max_q_rows, Shape<size, 2>::own, args.heads, args.sequence_count);
        if (!view.shaped && fits_device(context, Shape<size, 2>::shared_bytes) && fills_device(context, large))
            return launch_early(context, stream, Grid{large, attention_threads, Shape<size, 2>::shared_bytes}, attention_mma_kernel<kind, size, 2, false>, view);
        const Grid grid = {attention_blocks(args.max_q_rows, Shape<size, 1>::own, args.heads, args.sequence_count), attention_threads, Shape<size, 1>::shared_bytes};
        return launch_early(context, stream, grid, view.shaped ? attention_mma_kernel<kind, size, 1, true> : attention_mma_kernel<kind, size, 1, false>, view);
    });
}

} // namespace cuda
} // namespace qlora
