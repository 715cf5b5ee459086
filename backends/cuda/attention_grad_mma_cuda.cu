// Attention backward on the tensor cores: the two passes of attention_grad_cuda.cu.
#include "backends/cuda/attention_mma.cuh"

namespace qlora {
namespace cuda {

constexpr int stream_rows = 32;

template <int TYPE, int DIM, bool SHAPED> static __global__ void __launch_bounds__(attention_threads) dq_mma_kernel(const __grid_constant__ AttentionView a) {
    extern __shared__ uint4 shared4[];
    constexpr int own_halves = Tile<false, attention_own, DIM>::halves, stream_halves = Tile<false, stream_rows, DIM>::halves;
    uint16_t *q = reinterpret_cast<uint16_t *>(shared4), *dy = q + own_halves, *k = dy + own_halves, *v = k + stream_halves;
    const Sequence s = sequence_of(a, blockIdx.z);
    const int first = int(gridDim.x - 1 - blockIdx.x) * attention_own;
    if (!s.fits || first >= s.q_rows) return;
    const int head = blockIdx.y, kv_head = head / (a.heads / a.kv_heads), warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    load_tile<DIM, attention_own>(q, a.q, s.q_first, first, s.q_rows, head, a);
    load_tile<DIM, attention_own>(dy, a.dy, s.q_first, first, s.q_rows, head, a);
    const int row = first + warp * 16 + lane / 4; // and row + 8
    float sums[DIM / 8][4] = {}, lse[2], delta[2];
    for (int half = 0; half < 2; half++) {
        const int64_t place = (s.q_first + min(row + 8 * half, s.q_rows - 1)) * a.heads + head;
        lse[half] = a.lse[place];
        delta[half] = a.delta[place];
    }
    const int keys = min(s.k_rows, first + attention_own + s.ahead);
    const Shaping<SHAPED> shaping(a, head);
    for (int key = shaping.template first_key<stream_rows>(s, first); key < keys; key += stream_rows) {
        __syncthreads();
        load_tile<DIM, stream_rows>(k, a.k, s.k_first, key, s.k_rows, kv_head, a);
        load_tile<DIM, stream_rows>(v, a.v, s.k_first, key, s.k_rows, kv_head, a);
        __syncthreads();
        float scores[stream_rows / 8][4], slopes[stream_rows / 8][4];
        dot_tiles<TYPE, DIM, stream_rows>(q, k, scores);
        dot_tiles<TYPE, DIM, stream_rows>(dy, v, slopes);
        shaping.template cap<true>(scores);
#pragma unroll
        for (int j = 0; j < stream_rows / 8; j++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int query = row + i / 2 * 8, place = key + 8 * j + lane % 4 * 2 + i % 2;
                const bool seen = query < s.q_rows && shaping.sees(query + s.ahead, place);
                scores[j][i] = seen ? __expf(shaping.score(scores[j][i], query + s.ahead, place) - lse[i / 2]) * (slopes[j][i] - delta[i / 2]) * shaping.derivative(scores[j][i]) : 0.0f;
            }
        add_tiles<TYPE, DIM, stream_rows>(scores, k, sums);
    }
    store_tile<TYPE, DIM>(a.dq, s.q_first, first, s.q_rows, head, a, sums, a.scale, a.scale);
}

template <int TYPE, int DIM, bool SHAPED> static __global__ void __launch_bounds__(attention_threads) dkv_mma_kernel(const __grid_constant__ AttentionView a) {
    extern __shared__ uint4 shared4[];
    constexpr int own_halves = Tile<false, attention_own, DIM>::halves, stream_halves = Tile<false, stream_rows, DIM>::halves;
    uint16_t *k = reinterpret_cast<uint16_t *>(shared4), *v = k + own_halves, *q = v + own_halves, *dy = q + stream_halves;
    __shared__ float lse[stream_rows], delta[stream_rows];
    const Sequence s = sequence_of(a, blockIdx.z);
    const int first = int(blockIdx.x) * attention_own; // the keys that most queries see come first
    if (!s.fits || first >= s.k_rows) return;
    const int kv_head = blockIdx.y, group = a.heads / a.kv_heads, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    load_tile<DIM, attention_own>(k, a.k, s.k_first, first, s.k_rows, kv_head, a);
    load_tile<DIM, attention_own>(v, a.v, s.k_first, first, s.k_rows, kv_head, a);
    const int row = first + warp * 16 + lane / 4; // key, and key + 8
    float dk[DIM / 8][4] = {}, dv[DIM / 8][4] = {};
    const int begin = max(0, first - s.ahead) / stream_rows * stream_rows; // the first query that sees one of these keys
    for (int head = kv_head * group; head < (kv_head + 1) * group; head++) {
        const Shaping<SHAPED> shaping(a, head);
        const int end = shaping.end_query(s, first + attention_own);
        for (int query = begin; query < end; query += stream_rows) {
            __syncthreads();
            load_tile<DIM, stream_rows>(q, a.q, s.q_first, query, s.q_rows, head, a);
            load_tile<DIM, stream_rows>(dy, a.dy, s.q_first, query, s.q_rows, head, a);
            if (threadIdx.x < stream_rows) {
                const int64_t place = (s.q_first + min(query + int(threadIdx.x), s.q_rows - 1)) * a.heads + head;
                lse[threadIdx.x] = a.lse[place];
                delta[threadIdx.x] = a.delta[place];
            }
            __syncthreads();
            float scores[stream_rows / 8][4], slopes[stream_rows / 8][4];
            dot_tiles<TYPE, DIM, stream_rows>(k, q, scores);
            dot_tiles<TYPE, DIM, stream_rows>(v, dy, slopes);
            shaping.template cap<true>(scores);
#pragma unroll
            for (int j = 0; j < stream_rows / 8; j++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const int key = row + i / 2 * 8, col = 8 * j + lane % 4 * 2 + i % 2;
                    const bool seen = query + col < s.q_rows && key < s.k_rows && shaping.sees(query + col + s.ahead, key);
                    const float p = seen ? __expf(shaping.score(scores[j][i], query + col + s.ahead, key) - lse[col]) : 0.0f;
                    slopes[j][i] = p * (slopes[j][i] - delta[col]) * shaping.derivative(scores[j][i]);
                    scores[j][i] = p;
                }
            add_tiles<TYPE, DIM, stream_rows>(scores, dy, dv);
            add_tiles<TYPE, DIM, stream_rows>(slopes, q, dk);
        }
    }
    store_tile<TYPE, DIM>(a.dk, s.k_first, first, s.k_rows, kv_head, a, dk, a.scale, a.scale);
    store_tile<TYPE, DIM>(a.dv, s.k_first, first, s.k_rows, kv_head, a, dv, 1, 1);
}

int32_t attention_grad_mma(Context &context, cudaStream_t stream, const AttentionView &view, const qlora_attention_grad_args &args) {
    return with_attention_tile(args.q.type, args.head_dim, [&](auto type, auto dim) -> int32_t {
        constexpr int kind = decltype(type)::value, size = decltype(dim)::value;
        constexpr size_t bytes = 2 * tile_bytes<size, attention_own>() + 2 * tile_bytes<size, stream_rows>();
        const Grid queries = {dim3(unsigned(ceil_divide(args.max_q_rows, attention_own)), args.heads, args.sequence_count), attention_threads, bytes};
        const Grid keys = {dim3(unsigned(ceil_divide(args.max_k_rows, attention_own)), args.kv_heads, args.sequence_count), attention_threads, bytes};
        QLORA_TRY(launch(context, stream, queries, view.shaped ? dq_mma_kernel<kind, size, true> : dq_mma_kernel<kind, size, false>, view));
        return launch(context, stream, keys, view.shaped ? dkv_mma_kernel<kind, size, true> : dkv_mma_kernel<kind, size, false>, view);
    });
}

} // namespace cuda
} // namespace qlora
