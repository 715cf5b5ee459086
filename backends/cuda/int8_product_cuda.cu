// y = a b^T of signed bytes on the tensor cores. A block of eight warps, two along m and four along n, computes a tile of y over steps of 64
// bytes along k, which are copied asynchronously some stages ahead. Rows of a stage are four chunks of 16 bytes, permuted so that eight
// rows of a chunk lie in different banks.
#include "backends/cuda/cublaslt.cuh"
#include "backends/cuda/int8_product.cuh"
#include "backends/cuda/mma.cuh"

#include <algorithm>

namespace qlora {
namespace cuda {

constexpr int threads = 256, step_bytes = 64, step_chunks = step_bytes / 16;

// 16 bytes from device to shared memory, or zeros. On sm_75 the copy is complete at once.
static __device__ __forceinline__ void copy_chunk(void *dst, const void *src, bool exists) {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(dst)), "l"(src), "r"(exists ? 16 : 0) : "memory");
#else
    *static_cast<uint4 *>(dst) = exists ? *static_cast<const uint4 *>(src) : make_uint4(0, 0, 0, 0);
#endif
}
static __device__ __forceinline__ void close_group() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
template <int pending> static __device__ __forceinline__ void wait_groups() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
#endif
}

// sum[16 x 8] += a[16 x 32] b[32 x 8], with the layout of sums of the 16-bit product (mma.cuh).
static __device__ __forceinline__ void multiply_add(int (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#if __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+r"(sum[0]), "+r"(sum[1]), "+r"(sum[2]), "+r"(sum[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#elif defined(__CUDA_ARCH__)
    asm volatile("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0,%1}, {%2}, {%3}, {%0,%1};" : "+r"(sum[0]), "+r"(sum[1]) : "r"(a[0]), "r"(b0));
    asm volatile("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0,%1}, {%2}, {%3}, {%0,%1};" : "+r"(sum[2]), "+r"(sum[3]) : "r"(a[1]), "r"(b0));
    asm volatile("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0,%1}, {%2}, {%3}, {%0,%1};" : "+r"(sum[0]), "+r"(sum[1]) : "r"(a[2]), "r"(b1));
    asm volatile("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0,%1}, {%2}, {%3}, {%0,%1};" : "+r"(sum[2]), "+r"(sum[3]) : "r"(a[3]), "r"(b1));
#endif
}

// A stage's part of one operand: ROWS rows of 64 bytes.
template <int ROWS> struct Stage {
    static constexpr int bytes = ROWS * step_bytes, chunks = ROWS * step_chunks / threads;
    static __device__ __forceinline__ int place(int row, int chunk) { return row * step_bytes + ((chunk ^ (row >> 1 & 3)) << 4); }
};

// Where a thread reads its chunks of an operand: rows `threads / 4` apart, 64 bytes further each step.
template <int ROWS> struct Reader {
    const int8_t *data, *place;
    int64_t apart, left; // left: bytes of a row from place on
    uint32_t exists;     // bit i: the row of chunk i
    bool words;
    int offset;          // in a stage
    __device__ __forceinline__ Reader(const int8_t *data, int64_t stride, bool words, int64_t first, int64_t rows, int64_t depth)
        : data(data), apart(stride * (threads / step_chunks)), exists(0), words(words) {
        const int row = threadIdx.x / step_chunks, chunk = threadIdx.x % step_chunks;
        place = data + (first + row) * stride + chunk * 16;
        left = depth - chunk * 16;
        offset = Stage<ROWS>::place(row, chunk);
#pragma unroll
        for (int i = 0; i < Stage<ROWS>::chunks; i++) exists |= (first + row + i * (threads / step_chunks) < rows ? 1u : 0u) << i;
    }
    __device__ __forceinline__ void copy(uint8_t *stage) {
#pragma unroll
        for (int i = 0; i < Stage<ROWS>::chunks; i++) {
            uint8_t *dst = stage + offset + i * (threads / step_chunks) * step_bytes;
            const bool here = left > 0 && (exists >> i & 1);
            const int8_t *src = here ? place + i * apart : data;
            if (words) copy_chunk(dst, src, here);
            else
                for (int j = 0; j < 16; j++) dst[j] = here && j < left ? uint8_t(src[j]) : 0;
        }
        place += step_bytes;
        left -= step_bytes;
    }
};

// The outliers' part of a tile, added to sums in f32: on the tensor cores for 16-bit types, else one by one.
template <int TILE_M, int TILE_N> struct OutlierTile {
    static constexpr int warp_m = TILE_M / 2, warp_n = TILE_N / 4, blocks_m = warp_m / 16, blocks_n = warp_n / 8;
    using Sums = float[blocks_m][blocks_n][4];

    static __device__ __forceinline__ float x_at(const Int8Outliers &o, int64_t r, int64_t j, int count) {
        if (count <= compact_outliers) return load1(o.x_compact, o.x.type, r * compact_outliers + j);
        return load1(o.x.data, o.x.type, r * o.x.stride + o.columns[j]);
    }
    static __device__ __forceinline__ float w_at(const Int8Outliers &o, int64_t r, int64_t j, int count) {
        if (count <= compact_outliers) return load1(o.w_compact, o.x.type, r * compact_outliers + j);
        return round_to(o.x.type, ByteDecoder().at(o.w, (o.w_first + r) * o.w.cols + o.columns[j]));
    }
    template <int TYPE> static __device__ __forceinline__ void add_halves(const Int8Outliers &o, int count, uint8_t *shared, int64_t m, int64_t n, const Int8Product &p, Sums &sums) {
        using TileA = Tile<false, TILE_M, 32>;
        using TileB = Tile<false, TILE_N, 32>;
        uint16_t *a = reinterpret_cast<uint16_t *>(shared), *b = a + TileA::halves;
        const int warp = threadIdx.x / 32;
        for (int first = 0; first < count; first += 32) {
            __syncthreads();
            if (count <= compact_outliers) { // a row of 32 is 64 bytes
                for (int group = threadIdx.x; group < TileA::groups + TileB::groups; group += threads) {
                    const bool left = group < TileA::groups;
                    const int g = left ? group : group - TileA::groups, row = g / 4, col = g % 4 * 8;
                    const bool exists = left ? m + row < p.m : n + row < p.n;
                    const uint16_t *src = static_cast<const uint16_t *>(left ? o.x_compact : o.w_compact) + ((left ? m : n) + row) * compact_outliers + first + col;
                    *reinterpret_cast<uint4 *>(left ? TileA::at(a, g) : TileB::at(b, g)) = exists ? *reinterpret_cast<const uint4 *>(src) : make_uint4(0, 0, 0, 0);
                }
            } else {
                for (int i = threadIdx.x; i < (TILE_M + TILE_N) * 32; i += threads) {
                    const bool left = i < TILE_M * 32;
                    const int row = (left ? i : i - TILE_M * 32) / 32, j = i % 32;
                    float value = 0;
                    if (first + j < count && (left ? m + row < p.m : n + row < p.n)) value = left ? x_at(o, m + row, first + j, count) : w_at(o, n + row, first + j, count);
                    (left ? a + row * TileA::stride : b + row * TileB::stride)[j] = uint16_t(TYPE == QLORA_FORMAT_F16 ? f16_from_f32(value) : bf16_from_f32(value));
                }
            }
            __syncthreads();
#pragma unroll
            for (int step = 0; step < 32; step += 16) {
                uint32_t right[(blocks_n + 1) / 2][4];
#pragma unroll
                for (int j = 0; j < (blocks_n + 1) / 2; j++) TileB::load_b(right[j], b, warp / 2 * warp_n + 16 * j, step);
#pragma unroll
                for (int i = 0; i < blocks_m; i++) {
                    uint32_t left[4];
                    TileA::load_a(left, a, warp % 2 * warp_m + 16 * i, step);
#pragma unroll
                    for (int j = 0; j < blocks_n; j++) cuda::multiply_add<TYPE>(sums[i][j], left, right[j / 2][j % 2 * 2], right[j / 2][j % 2 * 2 + 1]);
                }
            }
        }
    }
    static __device__ __forceinline__ void add_floats(const Int8Outliers &o, int count, uint8_t *shared, int64_t m, int64_t n, const Int8Product &p, Sums &sums) {
        constexpr int depth = 16, pitch = depth + 1;
        float *a = reinterpret_cast<float *>(shared), *b = a + TILE_M * pitch;
        const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        for (int first = 0; first < count; first += depth) {
            __syncthreads();
            for (int i = threadIdx.x; i < (TILE_M + TILE_N) * depth; i += threads) {
                const bool left = i < TILE_M * depth;
                const int row = (left ? i : i - TILE_M * depth) / depth, j = i % depth;
                float value = 0;
                if (first + j < count && (left ? m + row < p.m : n + row < p.n)) value = left ? x_at(o, m + row, first + j, count) : w_at(o, n + row, first + j, count);
                (left ? a : b)[row * pitch + j] = value;
            }
            __syncthreads();
#pragma unroll 1
            for (int j = 0; j < depth; j++)
#pragma unroll
                for (int s = 0; s < blocks_m * blocks_n * 4; s++) {
                    const int i = s / (blocks_n * 4), c = s / 4 % blocks_n, e = s % 4;
                    const int row = warp % 2 * warp_m + 16 * i + lane / 4 + e / 2 * 8, col = warp / 2 * warp_n + 8 * c + lane % 4 * 2 + e % 2;
                    sums[i][c][e] += a[row * pitch + j] * b[col * pitch + j];
                }
        }
    }
    static __device__ __forceinline__ void add(const Int8Outliers &o, uint8_t *shared, int64_t m, int64_t n, const Int8Product &p, Sums &sums) {
        const int count = *o.count;
        if (o.x.type == QLORA_FORMAT_F16) add_halves<QLORA_FORMAT_F16>(o, count, shared, m, n, p, sums);
#if __CUDA_ARCH__ >= 800
        else if (o.x.type == QLORA_FORMAT_BF16) add_halves<QLORA_FORMAT_BF16>(o, count, shared, m, n, p, sums);
#endif
        else add_floats(o, count, shared, m, n, p, sums);
    }
};

template <int TILE_M, int TILE_N, bool FINISH> constexpr int blocks_per_processor = FINISH ? 3 : TILE_M * TILE_N >= 128 * 256 ? 1 : 2;

// FINISH: the sums are p.sums, and neighbours are tiles of the same rows. Else neighbours read the same rows of b. tiles: along the
// first of these ways.
template <int TILE_M, int TILE_N, bool FINISH>
static __global__ void __launch_bounds__(threads, blocks_per_processor<TILE_M, TILE_N, FINISH>) int8_kernel(const __grid_constant__ Int8Product p, unsigned tiles, int stages) {
    using StageA = Stage<TILE_M>;
    using StageB = Stage<TILE_N>;
    constexpr int warp_m = TILE_M / 2, warp_n = TILE_N / 4, blocks_m = warp_m / 16, blocks_n = warp_n / 8, stage_bytes = StageA::bytes + StageB::bytes;
    extern __shared__ __align__(128) uint8_t shared[];
    const unsigned fast = blockIdx.x % tiles, slow = blockIdx.x / tiles;
    const int64_t m = int64_t(FINISH ? slow : fast) * TILE_M, n = int64_t(FINISH ? fast : slow) * TILE_N;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, first_m = warp % 2 * warp_m, first_n = warp / 2 * warp_n;
    int sum[blocks_m][blocks_n][4] = {};
    if constexpr (FINISH) {
#pragma unroll
        for (int i = 0; i < blocks_m; i++)
#pragma unroll
            for (int j = 0; j < blocks_n; j++)
#pragma unroll
                for (int e = 0; e < 4; e += 2) {
                    const int64_t r = m + first_m + 16 * i + lane / 4 + 4 * e, c = n + first_n + 8 * j + lane % 4 * 2;
                    const int2 pair = r < p.m && c < p.n ? *reinterpret_cast<const int2 *>(p.sums + r * p.sums_stride + c) : make_int2(0, 0);
                    sum[i][j][e] = pair.x;
                    sum[i][j][e + 1] = pair.y;
                }
    } else {
        const int steps = int((p.k + step_bytes - 1) / step_bytes);
        Reader<TILE_M> read_a(p.a, p.a_stride, true, m, p.m, p.a_stride);
        Reader<TILE_N> read_b(p.b, p.b_stride, p.b_words, n, p.n, p.k);
        uint8_t *const end = shared + stages * stage_bytes;
        uint8_t *filled = shared;
        const auto copy = [&] { // the next step's bytes into the next stage
            read_a.copy(filled);
            read_b.copy(filled + StageA::bytes);
            filled += stage_bytes;
            if (filled == end) filled = shared;
        };
        for (int step = 0; step < stages - 1; step++) {
            if (step < steps) copy();
            close_group();
        }
        // Rows of ldmatrix: of a lane % 16, of b lane % 8 and the next eight; permutations depend on the lane only.
        const int row_a = first_m + lane % 16, row_b = first_n + lane % 8 + lane / 16 * 8;
        const uint8_t *stage = shared;
        for (int step = 0; step < steps; step++) {
            if (stages == 4) wait_groups<2>();
            else wait_groups<0>();
            __syncthreads();
            if (step + stages - 1 < steps) copy();
            close_group();
            const uint8_t *a = stage, *b = a + StageA::bytes;
            stage += stage_bytes;
            if (stage == end) stage = shared;
#pragma unroll
            for (int k = 0; k < step_chunks; k += 2) {
                uint32_t left[blocks_m][4], right[(blocks_n + 1) / 2][4];
#pragma unroll
                for (int i = 0; i < blocks_m; i++) load_matrices<false>(left[i], a + StageA::place(row_a + 16 * i, k + lane / 16));
#pragma unroll
                for (int j = 0; j < (blocks_n + 1) / 2; j++) load_matrices<false>(right[j], b + StageB::place(row_b + 16 * j, k + lane / 8 % 2));
#pragma unroll
                for (int i = 0; i < blocks_m; i++)
#pragma unroll
                    for (int j = 0; j < blocks_n; j++) multiply_add(sum[i][j], left[i], right[j / 2][j % 2 * 2], right[j / 2][j % 2 * 2 + 1]);
            }
        }
        wait_groups<0>();
        __syncthreads(); // the stages' memory has other uses from here on
    }

    float values[blocks_m][blocks_n][4] = {};
    if (FINISH && p.outliers.count) OutlierTile<TILE_M, TILE_N>::add(p.outliers, shared, m, n, p, values); // while the sums arrive
#pragma unroll
    for (int i = 0; i < blocks_m; i++) {
        float left[2];
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int64_t r = m + first_m + 16 * i + lane / 4 + 8 * h;
            left[h] = r < p.m ? p.a_scale[r] : 0.0f;
        }
#pragma unroll
        for (int j = 0; j < blocks_n; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const int64_t c = n + first_n + 8 * j + lane % 4 * 2 + e % 2;
                float scale = left[e / 2];
                if (p.b_scale) scale = __fmul_rn(scale, c < p.n ? p.b_scale[p.one_b_scale ? 0 : c] : 0.0f);
                const float part = __fmul_rn(__int2float_rn(sum[i][j][e]), __fmul_rn(scale, p.factor));
                values[i][j][e] = FINISH ? __fadd_rn(values[i][j][e], part) : part;
            }
    }
    if (!FINISH && p.outliers.count) OutlierTile<TILE_M, TILE_N>::add(p.outliers, shared, m, n, p, values);
    __syncthreads();
    // Through shared memory to whole rows, 16 rows of every warp at a time.
    constexpr int pitch = TILE_N + 4;
    float *rows = reinterpret_cast<float *>(shared);
#pragma unroll 1
    for (int pass = 0; pass < blocks_m; pass++) {
#pragma unroll
        for (int i = 0; i < blocks_m; i++)
            if (i == pass)
#pragma unroll
                for (int j = 0; j < blocks_n; j++) {
                    float *place = rows + (warp % 2 * 16 + lane / 4) * pitch + first_n + 8 * j + lane % 4 * 2;
                    *reinterpret_cast<float2 *>(place) = make_float2(values[i][j][0], values[i][j][1]);
                    *reinterpret_cast<float2 *>(place + 8 * pitch) = make_float2(values[i][j][2], values[i][j][3]);
                }
        __syncthreads();
#pragma unroll 1
        for (int group = threadIdx.x; group < 32 * (TILE_N / 8); group += threads) {
            const int row = group / (TILE_N / 8), col = group % (TILE_N / 8) * 8;
            const int64_t r = m + row / 16 * warp_m + pass * 16 + row % 16;
            if (r < p.m && n + col < p.n) p.y.put8(r, n + col, rows + row * pitch + col);
        }
        __syncthreads();
    }
}

// Bytes turned: 64 x 64 a block, 4 x 4 a thread.
static __global__ void __launch_bounds__(threads) turn_kernel(const int8_t *src, int64_t src_stride, int64_t rows, int64_t cols, int8_t *dst, int64_t stride, unsigned tiles_c, bool words) {
    __shared__ uint32_t tile[64][17]; // [col][four rows]
    const int64_t first_r = int64_t(blockIdx.x / tiles_c) * 64, first_c = int64_t(blockIdx.x % tiles_c) * 64;
    const int64_t r = first_r + threadIdx.x / 16 * 4, c = first_c + threadIdx.x % 16 * 4;
    uint32_t in[4] = {};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        if (r + i >= rows) continue;
        const int8_t *place = src + (r + i) * src_stride + c;
        if (words && c + 4 <= cols) in[i] = *reinterpret_cast<const uint32_t *>(place);
        else
            for (int j = 0; j < 4; j++)
                if (c + j < cols) in[i] |= uint32_t(uint8_t(place[j])) << (8 * j);
    }
    const uint32_t low01 = __byte_perm(in[0], in[1], 0x5140), high01 = __byte_perm(in[0], in[1], 0x7362), low23 = __byte_perm(in[2], in[3], 0x5140), high23 = __byte_perm(in[2], in[3], 0x7362);
    const uint32_t out[4] = {__byte_perm(low01, low23, 0x5410), __byte_perm(low01, low23, 0x7632), __byte_perm(high01, high23, 0x5410), __byte_perm(high01, high23, 0x7632)};
#pragma unroll
    for (int i = 0; i < 4; i++) tile[threadIdx.x % 16 * 4 + i][threadIdx.x / 16] = out[i];
    __syncthreads();
    const int64_t out_c = first_c + threadIdx.x / 4, out_r = first_r + threadIdx.x % 4 * 16;
    const uint32_t *from = &tile[threadIdx.x / 4][threadIdx.x % 4 * 4];
    if (out_c < cols && out_r < stride) *reinterpret_cast<uint4 *>(dst + out_c * stride + out_r) = make_uint4(from[0], from[1], from[2], from[3]);
}

int32_t turn_bytes(Context &context, cudaStream_t stream, const int8_t *src, int64_t src_stride, int64_t rows, int64_t cols, int8_t *dst, int64_t stride) {
    const bool words = src_stride % 4 == 0 && reinterpret_cast<uint64_t>(src) % 4 == 0;
    const uint64_t tiles_c = ceil_divide(uint64_t(cols), 64), tiles = tiles_c * ceil_divide(uint64_t(stride), 64);
    return launch(context, stream, Grid{dim3(unsigned(tiles)), threads}, turn_kernel, src, src_stride, rows, cols, dst, stride, unsigned(tiles_c), words);
}

namespace {

// What a tile costs where `fit` of its blocks share a multiprocessor: small ones read more per product.
struct TileChoice {
    int m, n, fit;
    double efficiency;
};
constexpr TileChoice choices[] = {{128, 256, 1, 1.0}, {128, 128, 2, 0.9}, {64, 64, 2, 0.5}};

template <int TILE_M, int TILE_N, bool FINISH = false> int32_t run(Context &context, cudaStream_t stream, const Int8Product &p) {
    const int stages = state_of(context).compiled >= 80 ? 4 : 2;
    const size_t staged = FINISH ? 0 : size_t(stages) * (TILE_M + TILE_N) * step_bytes, rows = size_t(32) * (TILE_N + 4) * sizeof(float), outliers = size_t(TILE_M + TILE_N) * 80;
    const uint64_t tiles_m = ceil_divide(uint64_t(p.m), TILE_M), tiles_n = ceil_divide(uint64_t(p.n), TILE_N), tiles = tiles_m * tiles_n;
    if (tiles > INT32_MAX) return context.fail(QLORA_ERROR_UNSUPPORTED, "cuda: a product in int8 of %lld x %lld has too many tiles for one launch; divide the tokens", (long long)p.m, (long long)p.n);
    const Grid grid = {dim3(unsigned(tiles)), threads, std::max({staged, rows, outliers})};
    return launch(context, stream, grid, int8_kernel<TILE_M, TILE_N, FINISH>, p, unsigned(FINISH ? tiles_n : tiles_m), stages);
}

} // namespace

// The library's own kernel, in the tile that costs least.
static int32_t run_own(Context &context, cudaStream_t stream, const Int8Product &p) {
    int best = 0;
    double least = 0;
    for (int i = 0; i < 3; i++) {
        const TileChoice &choice = choices[i];
        const uint64_t tiles = ceil_divide(uint64_t(p.m), uint64_t(choice.m)) * ceil_divide(uint64_t(p.n), uint64_t(choice.n));
        const double waves = double(ceil_divide(tiles, uint64_t(state_of(context).multiprocessors * choice.fit)));
        const double cost = waves * choice.fit * choice.m * choice.n / choice.efficiency;
        if (i == 0 || cost < least) best = i, least = cost;
    }
    return best == 0 ? run<128, 256>(context, stream, p) : best == 1 ? run<128, 128>(context, stream, p) : run<64, 64>(context, stream, p);
}

// cuBLASLt makes sums of as many columns of y at a time as fit in sums_bytes.
constexpr int64_t lt_least_rows = 256, lt_workspace = int64_t(32) << 20, sums_bytes = int64_t(96) << 20;
static bool takes_lt(Context &context, int64_t m, int64_t n, int64_t k) {
    return state_of(context).lt && state_of(context).capability >= 80 && m >= lt_least_rows && n >= 256 && k >= 256 && k % 16 == 0;
}
static int64_t most_columns(int64_t m) { return std::max<int64_t>(256, sums_bytes / (m * 4) / 256 * 256); }

uint64_t multiply_int8_scratch(Context &context, int64_t m, int64_t n, int64_t k) {
    if (!takes_lt(context, m, n, k)) return 0;
    Carver carver;
    carver.take<char>(lt_workspace);
    carver.take<int32_t>(uint64_t(m) * uint64_t((std::min(n, most_columns(m)) + 7) / 8 * 8));
    return carver.bytes;
}

int32_t multiply_int8(Context &context, cudaStream_t stream, const Int8Product &p, Carver scratch) {
    if (!takes_lt(context, p.m, p.n, p.k) || !p.b_words) return run_own(context, stream, p);
    void *workspace = scratch.take<char>(lt_workspace);
    const uint64_t parts = ceil_divide(uint64_t(p.n), uint64_t(most_columns(p.m)));
    const int64_t columns = parts == 1 ? p.n : int64_t(ceil_divide(ceil_divide(uint64_t(p.n), parts), 256) * 256), stride = (columns + 7) / 8 * 8;
    int32_t *sums = scratch.take<int32_t>(uint64_t(p.m) * uint64_t(stride));
    const int64_t size = type_bytes(p.y.type);
    for (int64_t c = 0; c < p.n; c += columns) {
        Int8Product part = p;
        part.n = part.y.n = std::min(columns, p.n - c);
        part.b = p.b + c * p.b_stride;
        if (p.b_scale && !p.one_b_scale) part.b_scale = p.b_scale + c;
        part.y.y = static_cast<char *>(p.y.y) + c * size;
        if (p.y.bias) part.y.bias = p.y.bias + c;
        part.y.vector = p.y.vector && c * size % 16 == 0;
        if (p.outliers.count) {
            part.outliers.w_compact = static_cast<const char *>(p.outliers.w_compact) + c * compact_outliers * type_bytes(p.outliers.x.type);
            part.outliers.w_first = c;
        }
        const LtProduct lt = {p.m, part.n, p.k, p.a_stride, p.b_stride, stride, QLORA_FORMAT_INT8, 0, 0, 0, 0, 0};
        const int32_t status = multiply_lt(context, stream, lt, p.a, part.b, sums, workspace, lt_workspace);
        if (status == QLORA_ERROR_UNSUPPORTED) {
            QLORA_TRY(run_own(context, stream, part));
            continue;
        }
        QLORA_TRY(status);
        part.sums = sums;
        part.sums_stride = stride;
        QLORA_TRY((run<64, 64, true>(context, stream, part)));
    }
    return QLORA_OK;
}

} // namespace cuda
} // namespace qlora
