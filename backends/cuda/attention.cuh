// What attention forward and backward share. A block of 128 threads, 16 x 8, owns OWN rows of one head (queries, or
// keys in the dk / dv pass) and streams tiles of STREAM rows of the other side through shared memory, all in f32.
// DIM is head_dim padded with zeros; rows in shared memory are DIM + 4 floats apart, which keeps float4 reads of
// eight rows free of bank conflicts. Kernels exist with and without SHAPED: a soft cap, slopes or a window.
#pragma once
#include "backends/cuda/device.cuh"

namespace qlora {
namespace cuda {

constexpr int attention_threads = 128;

struct AttentionView {
    View q, k, v, y, dy, dq, dk, dv;
    float *lse, *delta; // [q tokens][heads]; delta = dy . y
    const int32_t *sequences;
    int32_t heads, kv_heads, head_dim;
    float scale;
    bool vector; // eight neighbours from a multiple of eight in a head are aligned to 16 bytes, in every tensor
    bool shaped; // by any of the following, or with a scale that does not keep the order of products
    float soft_cap;
    int32_t window; // the largest number where there is none
    const float *slopes;
};

template <class Args> AttentionView attention_view(const Args &args) {
    AttentionView view = {};
    view.q = view_of(args.q);
    view.k = view_of(args.k);
    view.v = view_of(args.v);
    view.y = view_of(args.y);
    view.lse = args.lse.handle ? address<float>(args.lse) : nullptr;
    view.sequences = address<const int32_t>(args.sequences);
    view.heads = int32_t(args.heads);
    view.kv_heads = int32_t(args.kv_heads);
    view.head_dim = int32_t(args.head_dim);
    view.scale = args.scale;
    view.soft_cap = args.soft_cap;
    view.slopes = args.slopes.handle ? address<const float>(args.slopes) : nullptr;
    const bool windowed = args.window && args.window < args.max_k_rows; // else it hides nothing
    view.window = windowed && args.window < 0x7fffffffu ? int32_t(args.window) : 0x7fffffff;
    view.shaped = args.soft_cap > 0 || view.slopes || windowed || !(args.scale > 0);
    view.vector = args.head_dim % 8 == 0 && view.q.vector && view.k.vector && view.v.vector && view.y.vector;
    return view;
}

struct Sequence {
    int64_t q_first, k_first;
    int q_rows, k_rows, ahead; // query i sees keys 0 .. i + ahead
    bool fits;
};
__device__ __forceinline__ Sequence sequence_of(const AttentionView &view, int index) {
    const int32_t *row = view.sequences + index * 4;
    Sequence s = {row[0], row[2], row[1], row[3], row[3] - row[1], false};
    s.fits = s.q_first >= 0 && s.k_first >= 0 && s.q_rows > 0 && s.q_rows <= s.k_rows && s.q_first + s.q_rows <= view.q.rows && s.k_first + s.k_rows <= view.k.rows;
    return s;
}

// What shapes the scores of a head. `newest` is the last key that a query sees, `key` one that it may see.
template <bool SHAPED> struct Shaping {
    const AttentionView &a;
    float per_cap, slope;
    __device__ __forceinline__ Shaping(const AttentionView &a, int head)
        : a(a), per_cap(SHAPED && a.soft_cap > 0 ? 1 / a.soft_cap : 0), slope(SHAPED && a.slopes ? a.slopes[head] : 0) {}
    __device__ __forceinline__ bool sees(int newest, int key) const { return SHAPED ? unsigned(newest - key) < unsigned(a.window) : key <= newest; }
    // Products to scores, but for the slope. FAST: tanh from one exponential, to 1e-6 of 1, for 16-bit types.
    template <bool FAST, int ROWS, int COLS> __device__ __forceinline__ void cap(float (&scores)[ROWS][COLS]) const {
        if (SHAPED && a.soft_cap > 0) { // the same for the whole grid
            const float factor = a.scale * per_cap;
#pragma unroll
            for (int i = 0; i < ROWS; i++)
#pragma unroll
                for (int j = 0; j < COLS; j++) {
                    const float x = scores[i][j] * factor;
                    scores[i][j] = a.soft_cap * (FAST ? 1 - __fdividef(2.0f, 1 + __expf(2 * x)) : tanhf(x));
                }
        } else if (SHAPED) {
#pragma unroll
            for (int i = 0; i < ROWS; i++)
#pragma unroll
                for (int j = 0; j < COLS; j++) scores[i][j] *= a.scale;
        }
    }
    // The finished score from what cap() left.
    __device__ __forceinline__ float score(float capped, int newest, int key) const { return SHAPED ? capped - slope * float(newest - key) : capped * a.scale; }
    // The derivative of the score by the scaled product, likewise.
    __device__ __forceinline__ float derivative(float capped) const { return SHAPED ? 1 - (capped * per_cap) * (capped * per_cap) : 1; }
    // Tiles of STEP keys begin here for queries from first on.
    template <int STEP> __device__ __forceinline__ int first_key(const Sequence &s, int first) const { return SHAPED ? max(0, first + s.ahead + 1 - a.window) / STEP * STEP : 0; }
    // Past the last query that sees a key before `keys`.
    __device__ __forceinline__ int end_query(const Sequence &s, int keys) const {
        return SHAPED ? int(max(int64_t(0), min(int64_t(s.q_rows), int64_t(keys) - 1 - s.ahead + a.window))) : s.q_rows;
    }
};

// shared[row][d] = rows first .. first + ROWS of one head, with zeros past limit and past head_dim.
template <int DIM, int ROWS>
__device__ __forceinline__ void load_rows(float *shared, const View &view, int64_t base, int first, int limit, int head, const AttentionView &a) {
    for (int group = threadIdx.x; group < ROWS * (DIM / 8); group += attention_threads) {
        const int row = group / (DIM / 8), d = group % (DIM / 8) * 8;
        float values[8];
        load8(view.data, view.type, (base + first + row) * view.stride + int64_t(head) * a.head_dim + d, first + row < limit ? a.head_dim - d : 0, a.vector, values);
        float4 *place = reinterpret_cast<float4 *>(shared + row * (DIM + 4) + d);
        place[0] = make_float4(values[0], values[1], values[2], values[3]);
        place[1] = make_float4(values[4], values[5], values[6], values[7]);
    }
}

// Thread (ty, tx) works on own rows ty * RT .. and streamed rows tx, tx + 8, ...
template <int DIM, int RT, int KT>
__device__ __forceinline__ void dot_rows(const float *own, const float *stream, float (&dots)[RT][KT]) {
    const int ty = threadIdx.x / 8, tx = threadIdx.x % 8;
#pragma unroll
    for (int i = 0; i < RT; i++)
#pragma unroll
        for (int j = 0; j < KT; j++) dots[i][j] = 0;
#pragma unroll 4
    for (int d = 0; d < DIM; d += 4) {
        float4 left[RT], right[KT];
#pragma unroll
        for (int i = 0; i < RT; i++) left[i] = *reinterpret_cast<const float4 *>(own + (ty * RT + i) * (DIM + 4) + d);
#pragma unroll
        for (int j = 0; j < KT; j++) right[j] = *reinterpret_cast<const float4 *>(stream + (tx + 8 * j) * (DIM + 4) + d);
#pragma unroll
        for (int i = 0; i < RT; i++)
#pragma unroll
            for (int j = 0; j < KT; j++)
                dots[i][j] += left[i].x * right[j].x + left[i].y * right[j].y + left[i].z * right[j].z + left[i].w * right[j].w;
    }
}

// Weights of own x streamed rows go through shared memory, since every thread of a row needs all of them.
template <int STREAM, int RT, int KT> __device__ __forceinline__ void put_weights(float *shared, const float (&weights)[RT][KT]) {
    const int ty = threadIdx.x / 8, tx = threadIdx.x % 8;
#pragma unroll
    for (int i = 0; i < RT; i++)
#pragma unroll
        for (int j = 0; j < KT; j++) shared[(ty * RT + i) * (STREAM + 4) + tx + 8 * j] = weights[i][j];
}

// sums[own row][d] += sum over streamed rows of weights * stream[row][d], for d = tx * 4 + 32 * block.
template <int DIM, int STREAM, int RT>
__device__ __forceinline__ void add_rows(const float *weights, const float *stream, float (&sums)[RT][DIM / 32][4]) {
    const int ty = threadIdx.x / 8, tx = threadIdx.x % 8;
#pragma unroll 4
    for (int row = 0; row < STREAM; row++) {
        float weight[RT];
#pragma unroll
        for (int i = 0; i < RT; i++) weight[i] = weights[(ty * RT + i) * (STREAM + 4) + row];
#pragma unroll
        for (int block = 0; block < DIM / 32; block++) {
            const float4 values = *reinterpret_cast<const float4 *>(stream + row * (DIM + 4) + tx * 4 + 32 * block);
#pragma unroll
            for (int i = 0; i < RT; i++) {
                sums[i][block][0] += weight[i] * values.x;
                sums[i][block][1] += weight[i] * values.y;
                sums[i][block][2] += weight[i] * values.z;
                sums[i][block][3] += weight[i] * values.w;
            }
        }
    }
}

// Writes own rows, each times its factor.
template <int DIM, int RT>
__device__ __forceinline__ void store_rows(const View &view, int64_t base, int first, int limit, int head, int head_dim, const float (&sums)[RT][DIM / 32][4], const float (&factors)[RT]) {
    const int ty = threadIdx.x / 8, tx = threadIdx.x % 8;
#pragma unroll
    for (int i = 0; i < RT; i++) {
        const int row = first + ty * RT + i;
        if (row >= limit) continue;
        const int64_t place = (base + row) * view.stride + int64_t(head) * head_dim;
#pragma unroll
        for (int block = 0; block < DIM / 32; block++)
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const int d = tx * 4 + 32 * block + j;
                if (d < head_dim) store1(view.data, view.type, place + d, sums[i][block][j] * factors[i]);
            }
    }
}

// Calls run(DIM constant) for the padded size of a head.
template <int N> struct Size { static constexpr int value = N; };
template <class Run> int32_t with_head_dim(uint32_t head_dim, Run &&run) {
    if (head_dim <= 32) return run(Size<32>());
    if (head_dim <= 64) return run(Size<64>());
    if (head_dim <= 128) return run(Size<128>());
    return run(Size<256>());
}

} // namespace cuda
} // namespace qlora
