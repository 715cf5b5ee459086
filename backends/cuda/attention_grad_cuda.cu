// p = exp(score - lse); ds = p * (dy . v - dy . y) * derivative of the score * scale; dq = ds k; dk = ds^T q; dv = p^T dy. Two passes, each of
// which owns what it writes, so that no sum depends on the order of blocks: queries own dq, keys own dk and dv.
#include "backends/cuda/attention_mma.cuh"

namespace qlora {
namespace cuda {

constexpr int delta_lanes = 8;

// delta[token][head] = dy . y, by delta_lanes threads each.
static __global__ void __launch_bounds__(attention_threads) delta_kernel(const __grid_constant__ AttentionView a) {
    wait_for_previous();
    const int64_t i = (blockIdx.x * int64_t(attention_threads) + threadIdx.x) / delta_lanes, token = i / a.heads, first = i % a.heads * a.head_dim;
    const int lane = threadIdx.x % delta_lanes;
    float sum = 0;
    for (int d = lane * 8; token < a.q.rows && d < a.head_dim; d += delta_lanes * 8) {
        float slopes[8], values[8];
        load8(a.dy.data, a.dy.type, token * a.dy.stride + first + d, a.head_dim - d, a.vector, slopes);
        load8(a.y.data, a.y.type, token * a.y.stride + first + d, a.head_dim - d, a.vector, values);
#pragma unroll
        for (int j = 0; j < 8; j++) sum += slopes[j] * values[j];
    }
    for (int half = delta_lanes / 2; half >= 1; half /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, half);
    if (lane == 0 && token < a.q.rows) a.delta[i] = sum;
}

template <int DIM> struct Queries {
    static constexpr int own = DIM > 128 ? 16 : 32, stream = DIM > 128 ? 16 : 32, rt = own / 16, kt = stream / 8;
    static constexpr size_t shared_bytes = ((2 * own + stream) * (DIM + 4) + own * (stream + 4)) * sizeof(float);
};

template <int DIM, bool SHAPED> static __global__ void __launch_bounds__(attention_threads) dq_kernel(const __grid_constant__ AttentionView a) {
    using T = Queries<DIM>;
    extern __shared__ float4 shared4[];
    float *q = reinterpret_cast<float *>(shared4), *dy = q + T::own * (DIM + 4), *kv = dy + T::own * (DIM + 4), *weights = kv + T::stream * (DIM + 4);
    const Sequence s = sequence_of(a, blockIdx.z);
    const int first = int(gridDim.x - 1 - blockIdx.x) * T::own;
    if (!s.fits || first >= s.q_rows) return;
    const int head = blockIdx.y, kv_head = head / (a.heads / a.kv_heads), ty = threadIdx.x / 8, tx = threadIdx.x % 8;
    load_rows<DIM, T::own>(q, a.q, s.q_first, first, s.q_rows, head, a);
    load_rows<DIM, T::own>(dy, a.dy, s.q_first, first, s.q_rows, head, a);
    float sums[T::rt][DIM / 32][4] = {}, lse[T::rt], delta[T::rt], factors[T::rt];
    for (int i = 0; i < T::rt; i++) {
        const int row = min(first + ty * T::rt + i, s.q_rows - 1);
        lse[i] = a.lse[(s.q_first + row) * a.heads + head];
        delta[i] = a.delta[(s.q_first + row) * a.heads + head];
        factors[i] = 1;
    }
    const int keys = min(s.k_rows, first + T::own + s.ahead);
    const Shaping<SHAPED> shaping(a, head);
    for (int key = shaping.template first_key<T::stream>(s, first); key < keys; key += T::stream) {
        float slopes[T::rt][T::kt], scores[T::rt][T::kt];
        __syncthreads();
        load_rows<DIM, T::stream>(kv, a.v, s.k_first, key, s.k_rows, kv_head, a);
        __syncthreads();
        dot_rows<DIM>(dy, kv, slopes);
        __syncthreads();
        load_rows<DIM, T::stream>(kv, a.k, s.k_first, key, s.k_rows, kv_head, a);
        __syncthreads();
        dot_rows<DIM>(q, kv, scores);
        shaping.template cap<false>(scores);
#pragma unroll
        for (int i = 0; i < T::rt; i++)
#pragma unroll
            for (int j = 0; j < T::kt; j++) {
                const int row = first + ty * T::rt + i, place = key + tx + 8 * j;
                const bool seen = row < s.q_rows && shaping.sees(row + s.ahead, place);
                scores[i][j] = seen ? expf(shaping.score(scores[i][j], row + s.ahead, place) - lse[i]) * (slopes[i][j] - delta[i]) * shaping.derivative(scores[i][j]) * a.scale : 0.0f;
            }
        put_weights<T::stream>(weights, scores);
        __syncthreads();
        add_rows<DIM, T::stream>(weights, kv, sums);
    }
    store_rows<DIM>(a.dq, s.q_first, first, s.q_rows, head, a.head_dim, sums, factors);
}

template <int DIM> struct Keys {
    static constexpr int own = DIM > 128 ? 16 : 32, stream = DIM > 128 ? 8 : DIM > 64 ? 16 : 32, rt = own / 16, kt = stream / 8;
    static constexpr size_t shared_bytes = (2 * (own + stream) * (DIM + 4) + 2 * own * (stream + 4)) * sizeof(float);
};

template <int DIM, bool SHAPED> static __global__ void __launch_bounds__(attention_threads) dkv_kernel(const __grid_constant__ AttentionView a) {
    using T = Keys<DIM>;
    extern __shared__ float4 shared4[];
    float *k = reinterpret_cast<float *>(shared4), *v = k + T::own * (DIM + 4), *q = v + T::own * (DIM + 4), *dy = q + T::stream * (DIM + 4);
    float *weights = dy + T::stream * (DIM + 4), *slope_weights = weights + T::own * (T::stream + 4);
    const Sequence s = sequence_of(a, blockIdx.z);
    const int first = int(blockIdx.x) * T::own; // the keys that most queries see come first
    if (!s.fits || first >= s.k_rows) return;
    const int kv_head = blockIdx.y, group = a.heads / a.kv_heads, ty = threadIdx.x / 8, tx = threadIdx.x % 8;
    load_rows<DIM, T::own>(k, a.k, s.k_first, first, s.k_rows, kv_head, a);
    load_rows<DIM, T::own>(v, a.v, s.k_first, first, s.k_rows, kv_head, a);
    float dk[T::rt][DIM / 32][4] = {}, dv[T::rt][DIM / 32][4] = {}, factors[T::rt];
    for (int i = 0; i < T::rt; i++) factors[i] = 1;
    const int begin = max(0, first - s.ahead) / T::stream * T::stream; // the first query that sees one of these keys
    for (int head = kv_head * group; head < (kv_head + 1) * group; head++) {
        const Shaping<SHAPED> shaping(a, head);
        const int end = shaping.end_query(s, first + T::own);
        for (int query = begin; query < end; query += T::stream) {
            float scores[T::rt][T::kt], slopes[T::rt][T::kt];
            __syncthreads();
            load_rows<DIM, T::stream>(q, a.q, s.q_first, query, s.q_rows, head, a);
            load_rows<DIM, T::stream>(dy, a.dy, s.q_first, query, s.q_rows, head, a);
            __syncthreads();
            dot_rows<DIM>(k, q, scores);
            dot_rows<DIM>(v, dy, slopes);
            shaping.template cap<false>(scores);
#pragma unroll
            for (int j = 0; j < T::kt; j++) {
                const int row = query + tx + 8 * j;
                const int64_t place = (s.q_first + min(row, s.q_rows - 1)) * a.heads + head;
                const float lse = a.lse[place], delta = a.delta[place];
#pragma unroll
                for (int i = 0; i < T::rt; i++) {
                    const int key = first + ty * T::rt + i;
                    const bool seen = row < s.q_rows && key < s.k_rows && shaping.sees(row + s.ahead, key);
                    const float p = seen ? expf(shaping.score(scores[i][j], row + s.ahead, key) - lse) : 0.0f;
                    slopes[i][j] = p * (slopes[i][j] - delta) * shaping.derivative(scores[i][j]) * a.scale;
                    scores[i][j] = p;
                }
            }
            put_weights<T::stream>(weights, scores);
            put_weights<T::stream>(slope_weights, slopes);
            __syncthreads();
            add_rows<DIM, T::stream>(weights, dy, dv);
            add_rows<DIM, T::stream>(slope_weights, q, dk);
        }
    }
    store_rows<DIM>(a.dk, s.k_first, first, s.k_rows, kv_head, a.head_dim, dk, factors);
    store_rows<DIM>(a.dv, s.k_first, first, s.k_rows, kv_head, a.head_dim, dv, factors);
}

uint64_t attention_grad_scratch(Context &, const qlora_attention_grad_args &args) { return align_scratch(args.q.rows * args.heads * sizeof(float)); }

int32_t attention_grad(Context &context, const qlora_attention_grad_args &args) {
    DeviceScope scope(context);
    const cudaStream_t stream = stream_of(context, args);
    AttentionView view = attention_view(args);
    view.dy = view_of(args.dy);
    view.dq = view_of(args.dq);
    view.dk = view_of(args.dk);
    view.dv = view_of(args.dv);
    view.delta = address<float>(args.scratch);
    view.vector = view.vector && view.dy.vector && view.dq.vector && view.dk.vector && view.dv.vector;
    QLORA_TRY(launch_early(context, stream, Grid{dim3(unsigned(ceil_divide(args.q.rows * args.heads, attention_threads / delta_lanes))), attention_threads}, delta_kernel, view));
    if (takes_attention_mma(context, args)) return attention_grad_mma(context, stream, view, args);
    return with_head_dim(args.head_dim, [&](auto dim) -> int32_t {
        constexpr int size = decltype(dim)::value;
        const Grid queries = {dim3(unsigned(ceil_divide(args.max_q_rows, Queries<size>::own)), args.heads, args.sequence_count), attention_threads, Queries<size>::shared_bytes};
        const Grid keys = {dim3(unsigned(ceil_divide(args.max_k_rows, Keys<size>::own)), args.kv_heads, args.sequence_count), attention_threads, Keys<size>::shared_bytes};
        QLORA_TRY(launch(context, stream, queries, view.shaped ? dq_kernel<size, true> : dq_kernel<size, false>, view));
        return launch(context, stream, keys, view.shaped ? dkv_kernel<size, true> : dkv_kernel<size, false>, view);
    });
}

} // namespace cuda
} // namespace qlora
