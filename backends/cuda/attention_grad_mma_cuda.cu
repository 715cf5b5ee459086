// Attention backward on the tensor cores: the two passes of attention_grad_cuda.cu.
#include "backends/cuda/attention_mma.cuh"

namespace qlora {
namespace cuda {

constexpr int stream_rows = 32;

// Shared memory: two stages of two tiles of the other side, then own rows, then, for keys, two stages of lse and delta. Own rows
// that are kept in registers lie in the stages before those are used.
template <int DIM> constexpr uint32_t tile = tile_bytes<DIM, stream_rows>;
template <int DIM, int M> constexpr uint32_t queries_bytes = 4 * tile<DIM> + (M == 1 ? 0 : 2 * tile_bytes<DIM, 64 * M>);
template <int DIM, int WARPS, int SHARES> constexpr uint32_t keys_rows = 4 * SHARES * tile<DIM> + (WARPS * SHARES == 4 ? 1 : 2) * tile_bytes<DIM, 16 * WARPS>;
template <int DIM, int WARPS, int SHARES> constexpr uint32_t keys_bytes = keys_rows<DIM, WARPS, SHARES> + 4 * SHARES * stream_rows * uint32_t(sizeof(float));

template <int TYPE, int DIM, int M, bool SHAPED>
static __global__ void __launch_bounds__(attention_threads, 2) dq_mma_kernel(const __grid_constant__ AttentionView a) {
    constexpr int own_rows = 64 * M;
    constexpr uint32_t stage_bytes = 2 * tile<DIM>, q_tile = M == 1 ? 0 : 2 * stage_bytes, dy_tile = q_tile + tile_bytes<DIM, own_rows>;
    extern __shared__ uint4 shared4[];
    wait_for_previous();
    const uint32_t shared = shared_address(shared4);
    const Sequence s = sequence_of(a, blockIdx.z);
    const int blocks = gridDim.x / a.heads, first = (blocks - 1 - int(blockIdx.x) / a.heads) * own_rows;
    if (!s.fits || first >= s.q_rows) return;
    const int head = blockIdx.x % a.heads, kv_head = head / (a.heads / a.kv_heads), warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const Shaping<SHAPED> shaping(a, head);
    const int begin = shaping.template first_key<stream_rows>(s, first), keys = min(s.k_rows, first + own_rows + s.ahead);
    Stream<DIM, own_rows, attention_threads>(a, a.q, s.q_first, first, s.q_rows, head).fetch(a, a.q, shared + q_tile);
    Stream<DIM, own_rows, attention_threads>(a, a.dy, s.q_first, first, s.q_rows, head).fetch(a, a.dy, shared + dy_tile);
    const uint32_t own = shared + q_tile + warp * M * tile_bytes<DIM, 16> + lane_rows<DIM>();
    uint32_t kept[2][DIM / 16][4];
    if constexpr (M == 1) {
        commit_copies();
        keep_tile<DIM>(own, kept[0]);
        keep_tile<DIM>(own + dy_tile - q_tile, kept[1]);
        __syncthreads();
    }
    Stream<DIM, stream_rows, attention_threads> k_stream(a, a.k, s.k_first, begin, s.k_rows, kv_head), v_stream(a, a.v, s.k_first, begin, s.k_rows, kv_head);
    const auto fetch = [&](int stage) {
        k_stream.fetch(a, a.k, shared + stage * stage_bytes);
        v_stream.fetch(a, a.v, shared + stage * stage_bytes + tile<DIM>);
        commit_copies();
    };
    fetch(0);
    const auto q = [&](int t, int d, uint32_t(&words)[4]) { take_own<DIM, M == 1>(own, kept[0], t, d, words); };
    const auto dy = [&](int t, int d, uint32_t(&words)[4]) { take_own<DIM, M == 1>(own + dy_tile - q_tile, kept[1], t, d, words); };
    const float factor = SHAPED ? log2_e : a.scale * log2_e;
    const int row = first + warp * M * 16; // of the warp's first; a lane has rows lane / 4 and 8 below of each 16
    float sums[M][DIM / 8][4] = {}, shift[M][2], delta[M][2];
#pragma unroll
    for (int t = 0; t < M; t++)
        for (int half = 0; half < 2; half++) {
            const int64_t place = (s.q_first + min(row + t * 16 + lane / 4 + 8 * half, s.q_rows - 1)) * a.heads + head;
            shift[t][half] = a.lse[place] * log2_e;
            delta[t][half] = a.delta[place];
        }
    int newest = row + s.ahead - begin; // the last key that the warp's first query sees, counted from the tile's first
    for (int tiles = (keys - begin + stream_rows - 1) / stream_rows, stage = 0; tiles > 0; tiles--, newest -= stream_rows, stage ^= 1) {
        wait_copies<0>();
        __syncthreads(); // this stage is there, and everyone is done with the other
        if (tiles > 1) fetch(stage ^ 1);
        if (newest + M * 16 <= 0) continue; // no row of this warp sees any of it
        const uint32_t k = shared + stage * stage_bytes, v = k + tile<DIM>;
        float scores[M][stream_rows / 8][4], slopes[M][stream_rows / 8][4];
        dot_tiles<TYPE, DIM, stream_rows, M, M == 1>(q, k + lane_columns<DIM>(), scores);
        dot_tiles<TYPE, DIM, stream_rows, M, M == 1>(dy, v + lane_columns<DIM>(), slopes);
#pragma unroll
        for (int t = 0; t < M; t++) {
            shaping.template cap<true>(scores[t]);
            const bool masked = SHAPED || newest + t * 16 < stream_rows - 1;
#pragma unroll
            for (int j = 0; j < stream_rows / 8; j++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const int last = newest + t * 16 + lane / 4 + i / 2 * 8 - lane % 4 * 2, place = 8 * j + i % 2; // counted from this lane's first
                    const float score = SHAPED ? shaping.score(scores[t][j][i], last, place) : scores[t][j][i];
                    const float weight = exp2_of(score * factor - shift[t][i / 2]) * (slopes[t][j][i] - delta[t][i / 2]) * shaping.derivative(scores[t][j][i]);
                    scores[t][j][i] = masked && !shaping.sees(last, place) ? 0.0f : weight;
                }
        }
        add_tiles<TYPE, DIM, stream_rows, M>(scores, k + lane_rows<DIM>(), sums);
    }
#pragma unroll
    for (int t = 0; t < M; t++) store_tile<TYPE, DIM>(a.dq, s.q_first, row + t * 16, s.q_rows, head, a, sums[t], a.scale, a.scale);
}

// Adds the sums of share 1 to those of share 0, through 32 vectors of shared memory each.
template <int TILES> static __device__ __forceinline__ void join_shares(float4 *shared, float (&sums)[TILES][4], int share) {
    __syncthreads();
#pragma unroll
    for (int j = 0; j < TILES; j++)
        if (share) shared[j * 32] = make_float4(sums[j][0], sums[j][1], sums[j][2], sums[j][3]);
    __syncthreads();
#pragma unroll
    for (int j = 0; j < TILES; j++)
        if (!share) {
            const float4 other = shared[j * 32];
            sums[j][0] += other.x; sums[j][1] += other.y; sums[j][2] += other.z; sums[j][3] += other.w;
        }
}

// WARPS warps own 16 keys each. With SHARES of 2 there are twice as many, which share the queries of a stage; their sums are joined
// in the end.
template <int TYPE, int DIM, int WARPS, int SHARES, bool SHAPED>
static __global__ void __launch_bounds__(32 * WARPS * SHARES, 8 / (WARPS * SHARES)) dkv_mma_kernel(const __grid_constant__ AttentionView a) {
    constexpr bool KEPT = WARPS * SHARES == 4;
    constexpr int own_rows = 16 * WARPS, threads = 32 * WARPS * SHARES, stage_rows = SHARES * stream_rows;
    constexpr uint32_t stage_bytes = 2 * SHARES * tile<DIM>, k_tile = KEPT ? 0 : 2 * stage_bytes, v_tile = 2 * stage_bytes + (KEPT ? 0 : tile_bytes<DIM, own_rows>), rows = keys_rows<DIM, WARPS, SHARES>, rows_bytes = 2 * stage_rows * sizeof(float);
    extern __shared__ uint4 shared4[];
    wait_for_previous();
    const uint32_t shared = shared_address(shared4);
    const Sequence s = sequence_of(a, blockIdx.z);
    const int first = int(blockIdx.x) / a.kv_heads * own_rows; // the keys that most queries see come first
    if (!s.fits || first >= s.k_rows) return;
    const int kv_head = blockIdx.x % a.kv_heads, group = a.heads / a.kv_heads, warp = threadIdx.x / 32 % WARPS, share = threadIdx.x / (32 * WARPS), lane = threadIdx.x % 32;
    const int begin = max(0, first - s.ahead) / stage_rows * stage_rows; // the first query that sees one of these keys
    const int end = Shaping<SHAPED>(a, 0).end_query(s, first + own_rows), last_head = (kv_head + 1) * group;
    Stream<DIM, own_rows, threads>(a, a.k, s.k_first, first, s.k_rows, kv_head).fetch(a, a.k, shared + k_tile);
    Stream<DIM, own_rows, threads>(a, a.v, s.k_first, first, s.k_rows, kv_head).fetch(a, a.v, shared + v_tile);
    const uint32_t own = shared + k_tile + warp * tile_bytes<DIM, 16> + lane_rows<DIM>();
    uint32_t kept[DIM / 16][4];
    if constexpr (KEPT) {
        commit_copies();
        keep_tile<DIM>(own, kept);
        __syncthreads();
    }
    using Queries = Stream<DIM, stage_rows, threads>;
    Queries q_stream, dy_stream;
    const auto fetch = [&](int head, int query, int stage) {
        if (query == begin) {
            q_stream = Queries(a, a.q, s.q_first, begin, s.q_rows, head);
            dy_stream = Queries(a, a.dy, s.q_first, begin, s.q_rows, head);
        }
        q_stream.fetch(a, a.q, shared + stage * stage_bytes);
        dy_stream.fetch(a, a.dy, shared + stage * stage_bytes + SHARES * tile<DIM>);
        if (threadIdx.x < 2 * stage_rows) {
            const int r = threadIdx.x % stage_rows;
            copy_async<4>(shared + rows + stage * rows_bytes + threadIdx.x * 4, (threadIdx.x < stage_rows ? a.lse : a.delta) + (s.q_first + query + r) * a.heads + head, query + r < s.q_rows);
        }
        commit_copies();
    };
    if (begin < end) fetch(kv_head * group, begin, 0);
    const auto k = [&](int t, int d, uint32_t(&words)[4]) { take_own<DIM, KEPT>(own, kept, t, d, words); };
    const auto v = [&](int, int d, uint32_t(&words)[4]) { load_matrices<false>(words, own + v_tile - k_tile + d * 2); };
    const float factor = SHAPED ? log2_e : a.scale * log2_e;
    const int row = first + warp * 16; // the warp's first key
    float dk[1][DIM / 8][4] = {}, dv[1][DIM / 8][4] = {};
    int stage = 0;
    for (int head = kv_head * group; head < last_head; head++) {
        const Shaping<SHAPED> shaping(a, head);
        int newest = begin + share * stream_rows + s.ahead - row; // the last key that the tile's first query sees, counted from the warp's first
        for (int query = begin; query < end; query += stage_rows, newest += stage_rows, stage ^= 1) {
            wait_copies<0>();
            __syncthreads(); // this stage is there, and everyone is done with the other
            if (query + stage_rows < end) fetch(head, query + stage_rows, stage ^ 1);
            else if (head + 1 < last_head) fetch(head + 1, begin, stage ^ 1);
            if (newest + stream_rows <= 0) continue; // none of them sees a key of this warp
            const uint32_t q = shared + stage * stage_bytes + share * tile<DIM>, dy = q + SHARES * tile<DIM>;
            const float *lse = reinterpret_cast<const float *>(reinterpret_cast<const char *>(shared4) + rows + stage * rows_bytes) + share * stream_rows, *delta = lse + stage_rows;
            float scores[1][stream_rows / 8][4], slopes[1][stream_rows / 8][4];
            dot_tiles<TYPE, DIM, stream_rows, 1, KEPT>(k, q + lane_columns<DIM>(), scores);
            dot_tiles<TYPE, DIM, stream_rows, 1, false>(v, dy + lane_columns<DIM>(), slopes);
            shaping.template cap<true>(scores[0]);
            const bool masked = SHAPED || newest < 15 || query + stage_rows > s.q_rows;
#pragma unroll
            for (int j = 0; j < stream_rows / 8; j++) {
                const int col = 8 * j + lane % 4 * 2;
                const float2 shifts = *reinterpret_cast<const float2 *>(lse + col), deltas = *reinterpret_cast<const float2 *>(delta + col);
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const int last = newest + lane % 4 * 2 - lane / 4 + 8 * j + i % 2, key = i / 2 * 8; // counted from this lane's first
                    const float score = SHAPED ? shaping.score(scores[0][j][i], last, key) : scores[0][j][i];
                    float weight = exp2_of(score * factor - (i % 2 ? shifts.y : shifts.x) * log2_e);
                    if (masked && !(query + share * stream_rows + col + i % 2 < s.q_rows && shaping.sees(last, key))) weight = 0;
                    slopes[0][j][i] = weight * (slopes[0][j][i] - (i % 2 ? deltas.y : deltas.x)) * shaping.derivative(scores[0][j][i]);
                    scores[0][j][i] = weight;
                }
            }
            add_tiles<TYPE, DIM, stream_rows, 1>(scores, dy + lane_rows<DIM>(), dv);
            add_tiles<TYPE, DIM, stream_rows, 1>(slopes, q + lane_rows<DIM>(), dk);
        }
    }
    if constexpr (SHARES == 2) {
        join_shares(reinterpret_cast<float4 *>(shared4) + warp * DIM / 8 * 32 + lane, dk[0], share);
        join_shares(reinterpret_cast<float4 *>(shared4) + warp * DIM / 8 * 32 + lane, dv[0], share);
        if (share) return;
    }
    store_tile<TYPE, DIM>(a.dk, s.k_first, row, s.k_rows, kv_head, a, dk[0], a.scale, a.scale);
    store_tile<TYPE, DIM>(a.dv, s.k_first, row, s.k_rows, kv_head, a, dv[0], 1, 1);
}

int32_t attention_grad_mma(Context &context, cudaStream_t stream, const AttentionView &view, const qlora_attention_grad_args &args) {
    return with_attention_tile(args.q.type, args.head_dim, [&](auto type, auto dim) -> int32_t {
        constexpr int kind = decltype(type)::value, size = decltype(dim)::value;
        const auto queries = [&](int own) { return attention_blocks(args.max_q_rows, own, args.heads, args.sequence_count); };
        const auto keys = [&](int own) { return attention_blocks(args.max_k_rows, own, args.kv_heads, args.sequence_count); };
        if (!view.shaped && fits_device(context, queries_bytes<size, 2>) && fills_device(context, queries(128)))
            QLORA_TRY(launch_early(context, stream, Grid{queries(128), attention_threads, queries_bytes<size, 2>}, dq_mma_kernel<kind, size, 2, false>, view));
        else
            QLORA_TRY(launch_early(context, stream, Grid{queries(64), attention_threads, queries_bytes<size, 1>},
                             view.shaped ? dq_mma_kernel<kind, size, 1, true> : dq_mma_kernel<kind, size, 1, false>, view));
        if (!view.shaped && fits_device(context, keys_bytes<size, 8, 1>) && fills_device(context, keys(128)))
            return launch_early(context, stream, Grid{keys(128), 256, keys_bytes<size, 8, 1>}, dkv_mma_kernel<kind, size, 8, 1, false>, view);
        if (fits_device(context, keys_bytes<size, 4, 2>))
            return launch_early(context, stream, Grid{keys(64), 256, keys_bytes<size, 4, 2>}, view.shaped ? dkv_mma_kernel<kind, size, 4, 2, true> : dkv_mma_kernel<kind, size, 4, 2, false>, view);
        return launch_early(context, stream, Grid{keys(64), 128, keys_bytes<size, 4, 1>}, view.shaped ? dkv_mma_kernel<kind, size, 4, 1, true> : dkv_mma_kernel<kind, size, 4, 1, false>, view);
    });
}

} // namespace cuda
} // namespace qlora
