// y = softmax(scale * q k^T) v with a running maximum and sum (FlashAttention): a block owns 32 queries of one head.
#include "backends/cuda/attention_mma.cuh"

namespace qlora {
namespace cuda {

template <int DIM> struct Forward {
    static constexpr int own = 32, stream = DIM > 128 ? 16 : 32, rt = own / 16, kt = stream / 8;
    static constexpr size_t shared_bytes = ((own + stream) * (DIM + 4) + own * (stream + 4)) * sizeof(float);
};

template <int DIM, bool SHAPED> static __global__ void __launch_bounds__(attention_threads) attention_kernel(const __grid_constant__ AttentionView a) {
    using T = Forward<DIM>;
    extern __shared__ float4 shared4[];
    float *q = reinterpret_cast<float *>(shared4), *kv = q + T::own * (DIM + 4), *weights = kv + T::stream * (DIM + 4);
    const Sequence s = sequence_of(a, blockIdx.z);
    const int first = int(gridDim.x - 1 - blockIdx.x) * T::own; // the longest rows start first
    if (!s.fits || first >= s.q_rows) return;
    const int head = blockIdx.y, kv_head = head / (a.heads / a.kv_heads), ty = threadIdx.x / 8, tx = threadIdx.x % 8;
    load_rows<DIM, T::own>(q, a.q, s.q_first, first, s.q_rows, head, a);
    float sums[T::rt][DIM / 32][4] = {}, maximum[T::rt], total[T::rt];
    for (int i = 0; i < T::rt; i++) { maximum[i] = -INFINITY; total[i] = 0; }
    const int keys = min(s.k_rows, first + T::own + s.ahead);
    const Shaping<SHAPED> shaping(a, head);
    for (int key = shaping.template first_key<T::stream>(s, first); key < keys; key += T::stream) {
        __syncthreads();
        load_rows<DIM, T::stream>(kv, a.k, s.k_first, key, s.k_rows, kv_head, a);
        __syncthreads();
        float scores[T::rt][T::kt];
        dot_rows<DIM>(q, kv, scores);
        shaping.template cap<false>(scores);
#pragma unroll
        for (int i = 0; i < T::rt; i++) {
            const int last = first + ty * T::rt + i + s.ahead; // the last key that this query sees
            float largest = maximum[i], sum = 0;
#pragma unroll
            for (int j = 0; j < T::kt; j++) {
                const int place = key + tx + 8 * j;
                scores[i][j] = shaping.sees(last, place) && place < s.k_rows ? shaping.score(scores[i][j], last, place) : -INFINITY;
                largest = fmaxf(largest, scores[i][j]);
            }
            for (int half = 4; half >= 1; half /= 2) largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, half));
            const float shift = largest == -INFINITY ? 0.0f : largest, fade = expf(maximum[i] - shift);
#pragma unroll
            for (int j = 0; j < T::kt; j++) sum += scores[i][j] = expf(scores[i][j] - shift);
            for (int half = 4; half >= 1; half /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, half);
            total[i] = total[i] * fade + sum;
            maximum[i] = largest;
#pragma unroll
            for (int block = 0; block < DIM / 32; block++)
                for (int j = 0; j < 4; j++) sums[i][block][j] *= fade;
        }
        put_weights<T::stream>(weights, scores);
        __syncthreads();
        load_rows<DIM, T::stream>(kv, a.v, s.k_first, key, s.k_rows, kv_head, a);
        __syncthreads();
        add_rows<DIM, T::stream>(weights, kv, sums);
    }
    float factors[T::rt];
    for (int i = 0; i < T::rt; i++) {
        const int row = first + ty * T::rt + i;
        factors[i] = 1 / total[i];
        if (a.lse && tx == 0 && row < s.q_rows) a.lse[(s.q_first + row) * a.heads + head] = maximum[i] + logf(total[i]);
    }
    store_rows<DIM>(a.y, s.q_first, first, s.q_rows, head, a.head_dim, sums, factors);
}

uint64_t attention_scratch(Context &, const qlora_attention_args &) { return 0; }

int32_t attention(Context &context, const qlora_attention_args &args) {
    DeviceScope scope(context);
    const AttentionView view = attention_view(args);
    if (takes_attention_mma(context, args)) return attention_mma(context, stream_of(context, args), view, args);
    return with_head_dim(args.head_dim, [&](auto dim) {
        using T = Forward<decltype(dim)::value>;
        const Grid grid = {dim3(unsigned(ceil_divide(args.max_q_rows, T::own)), args.heads, args.sequence_count), attention_threads, T::shared_bytes};
        const auto kernel = view.shaped ? attention_kernel<decltype(dim)::value, true> : attention_kernel<decltype(dim)::value, false>;
        return launch(context, stream_of(context, args), grid, kernel, view);
    });
}

} // namespace cuda
} // namespace qlora
