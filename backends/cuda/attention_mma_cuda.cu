// Attention forward on the tensor cores.
#include "backends/cuda/attention_mma.cuh"

namespace qlora {
namespace cuda {

constexpr int stream_rows = 64;

template <int TYPE, int DIM, bool SHAPED> static __global__ void __launch_bounds__(attention_threads) attention_mma_kernel(const __grid_constant__ AttentionView a) {
    extern __shared__ uint4 shared4[];
    uint16_t *q = reinterpret_cast<uint16_t *>(shared4), *k = q + Tile<false, attention_own, DIM>::halves, *v = k + Tile<false, stream_rows, DIM>::halves;
    const Sequence s = sequence_of(a, blockIdx.z);
    const int first = int(gridDim.x - 1 - blockIdx.x) * attention_own; // the longest rows start first
    if (!s.fits || first >= s.q_rows) return;
    const int head = blockIdx.y, kv_head = head / (a.heads / a.kv_heads), warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    load_tile<DIM, attention_own>(q, a.q, s.q_first, first, s.q_rows, head, a);
    float sums[DIM / 8][4] = {}, maximum[2] = {-INFINITY, -INFINITY}, total[2] = {0, 0};
    const int row = first + warp * 16 + lane / 4; // and row + 8
    const int keys = min(s.k_rows, first + attention_own + s.ahead);
    const Shaping<SHAPED> shaping(a, head);
    for (int key = shaping.template first_key<stream_rows>(s, first); key < keys; key += stream_rows) {
        __syncthreads();
        load_tile<DIM, stream_rows>(k, a.k, s.k_first, key, s.k_rows, kv_head, a);
        load_tile<DIM, stream_rows>(v, a.v, s.k_first, key, s.k_rows, kv_head, a);
        __syncthreads();
        float scores[stream_rows / 8][4];
        dot_tiles<TYPE, DIM, stream_rows>(q, k, scores);
        shaping.template cap<true>(scores);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int last = min(row + 8 * half + s.ahead, s.k_rows - 1); // the last key that this query sees, if it exists
            float largest = maximum[half], sum = 0;
#pragma unroll
            for (int j = 0; j < stream_rows / 8; j++)
#pragma unroll
                for (int i = 2 * half; i < 2 * half + 2; i++) {
                    const int place = key + 8 * j + lane % 4 * 2 + i % 2;
                    scores[j][i] = shaping.sees(last, place) ? shaping.score(scores[j][i], last, place) : -INFINITY;
                    largest = fmaxf(largest, scores[j][i]);
                }
            for (int step = 1; step <= 2; step *= 2) largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, step));
            const float shift = largest == -INFINITY ? 0.0f : largest, fade = __expf(maximum[half] - shift);
#pragma unroll
            for (int j = 0; j < stream_rows / 8; j++)
#pragma unroll
                for (int i = 2 * half; i < 2 * half + 2; i++) sum += scores[j][i] = __expf(scores[j][i] - shift);
            for (int step = 1; step <= 2; step *= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
            total[half] = total[half] * fade + sum;
            maximum[half] = largest;
#pragma unroll
            for (int j = 0; j < DIM / 8; j++) { sums[j][2 * half] *= fade; sums[j][2 * half + 1] *= fade; }
        }
        add_tiles<TYPE, DIM, stream_rows>(scores, v, sums);
    }
    if (a.lse && lane % 4 == 0)
        for (int half = 0; half < 2; half++)
            if (row + 8 * half < s.q_rows) a.lse[(s.q_first + row + 8 * half) * a.heads + head] = maximum[half] + logf(total[half]);
    store_tile<TYPE, DIM>(a.y, s.q_first, first, s.q_rows, head, a, sums, 1 / total[0], 1 / total[1]);
}

int32_t attention_mma(Context &context, cudaStream_t stream, const AttentionView &view, const qlora_attention_args &args) {
    return with_attention_tile(args.q.type, args.head_dim, [&](auto type, auto dim) {
        constexpr int size = decltype(dim)::value;
        const Grid grid = {dim3(unsigned(ceil_divide(args.max_q_rows, attention_own)), args.heads, args.sequence_count), attention_threads,
                           tile_bytes<size, attention_own>() + 2 * tile_bytes<size, stream_rows>()};
        constexpr int kind = decltype(type)::value;
        return launch(context, stream, grid, view.shaped ? attention_mma_kernel<kind, size, true> : attention_mma_kernel<kind, size, false>, view);
    });
}

} // namespace cuda
} // namespace qlora
