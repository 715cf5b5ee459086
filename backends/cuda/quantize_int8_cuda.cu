// INT8: one absmax per row or one in all, code = x * (127 / absmax) to nearest even. A thread block takes a row; what it reads for the
// absmax it reads again for the codes, from the first cache.
#include "backends/cuda/int8_rows.cuh"
#include "backends/cuda/quantize.cuh"

#include <cmath>

namespace qlora {
namespace cuda {

constexpr int row_threads = 256, most_partials = 1024;

static __device__ __forceinline__ float block_max(float value, float *shared) {
#pragma unroll
    for (int half = 16; half >= 1; half /= 2) value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, half));
    __syncthreads();
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
    __syncthreads();
#pragma unroll
    for (int warp = 0; warp < row_threads / 32; warp++) value = fmaxf(value, shared[warp]);
    return value;
}

// Eight values of row r from column c on, zero where there are none.
static __device__ __forceinline__ void load_scaled(const Int8Rows &rows, int64_t r, int64_t c, float (&values)[8]) {
    load8(rows.x, r, c, values);
    if (!rows.scales) return;
#pragma unroll
    for (int i = 0; i < 8; i++)
        if (c + i < rows.x.cols) values[i] = __fmul_rn(values[i], __fmul_rn(rows.scales[rows.one_scale ? 0 : c + i], int8_part));
}

static __device__ __forceinline__ float absmax_of_row(const Int8Rows &rows, int64_t r, float *shared) {
    float largest = 0;
    for (int64_t c = threadIdx.x * 8; c < rows.x.cols; c += row_threads * 8) {
        float values[8];
        load_scaled(rows, r, c, values);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const float magnitude = fabsf(values[i]);
            if (magnitude < rows.limit) largest = fmaxf(largest, magnitude);
            else if (rows.outliers && c + i < rows.x.cols) rows.outliers[c + i] = 1;
        }
    }
    return block_max(largest, shared);
}

static __device__ __forceinline__ void codes_of_row(const Int8Rows &rows, int64_t r, float absmax, bool words) {
    const float inverse = absmax > 0 ? __fdiv_rn(127.0f, absmax) : 0.0f;
    for (int64_t c = threadIdx.x * 8; c < rows.stride; c += row_threads * 8) {
        float values[8] = {};
        uint32_t codes[8];
        if (c < rows.x.cols) load_scaled(rows, r, c, values);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const float scaled = fabsf(values[i]) < rows.limit ? __fmul_rn(values[i], inverse) : 0.0f;
            codes[i] = __float_as_uint(__fadd_rn(scaled, 12582912.0f)) & 255u; // 1.5 * 2^23 leaves the rounded value in the low bits
        }
        int8_t *dst = rows.codes + r * rows.stride + c;
        const uint2 bytes = bytes_of(codes);
        if (words && c + 8 <= rows.stride) *reinterpret_cast<uint2 *>(dst) = bytes;
        else
            for (int i = 0; i < 8; i++)
                if (c + i < rows.stride) dst[i] = int8_t((i < 4 ? bytes.x : bytes.y) >> (i % 4 * 8));
    }
}

static __global__ void __launch_bounds__(row_threads) quantize_rows_kernel(const __grid_constant__ Int8Rows rows, bool words) {
    __shared__ float shared[row_threads / 32];
    for (int64_t r = blockIdx.x; r < rows.x.rows; r += gridDim.x) {
        float absmax = absmax_of_row(rows, r, shared);
        if (absmax < int8_least) absmax = 0;
        if (threadIdx.x == 0) rows.absmax[r] = absmax;
        codes_of_row(rows, r, absmax, words);
    }
}

// One scale in all: maxima of the rows of every thread block, then codes.
static __global__ void __launch_bounds__(row_threads) partial_absmax_kernel(const __grid_constant__ Int8Rows rows, float *partial) {
    __shared__ float shared[row_threads / 32];
    float largest = 0;
    for (int64_t r = blockIdx.x; r < rows.x.rows; r += gridDim.x) largest = fmaxf(largest, absmax_of_row(rows, r, shared));
    if (threadIdx.x == 0) partial[blockIdx.x] = largest;
}
static __global__ void __launch_bounds__(row_threads) quantize_one_scale_kernel(const __grid_constant__ Int8Rows rows, const float *partial, int count, bool words) {
    __shared__ float shared[row_threads / 32];
    float absmax = 0;
    for (int i = threadIdx.x; i < count; i += row_threads) absmax = fmaxf(absmax, partial[i]);
    absmax = block_max(absmax, shared);
    if (absmax < int8_least) absmax = 0;
    if (blockIdx.x == 0 && threadIdx.x == 0) *rows.absmax = absmax;
    for (int64_t r = blockIdx.x; r < rows.x.rows; r += gridDim.x) codes_of_row(rows, r, absmax, words);
}

static bool has_words(const Int8Rows &rows) { return rows.stride % 8 == 0 && reinterpret_cast<uint64_t>(rows.codes) % 8 == 0; }

int32_t quantize_rows(Context &context, cudaStream_t stream, const Int8Rows &rows) {
    const int64_t most = INT32_MAX;
    return launch(context, stream, Grid{dim3(unsigned(rows.x.rows < most ? rows.x.rows : most)), row_threads}, quantize_rows_kernel, rows, has_words(rows));
}

uint64_t quantize_int8_scratch(Context &, const qlora_quantize_args &args) { return one_scale(*args.weight) ? align_scratch(most_partials * sizeof(float)) : 0; }

int32_t quantize_int8(Context &context, cudaStream_t stream, const qlora_quantize_args &args, const View &src) {
    const qlora_weight &weight = *args.weight;
    Int8Rows rows = {};
    rows.x = src;
    rows.x.vector = src.vector && (src.stride % 8 == 0 || src.rows == 1); // src was looked at as one long row
    rows.limit = INFINITY;
    rows.codes = address<int8_t>(weight.planes[QLORA_PLANE_CODE]);
    rows.stride = int64_t(weight.cols);
    rows.absmax = address<float>(weight.planes[QLORA_PLANE_SCALE]);
    if (!one_scale(weight)) return quantize_rows(context, stream, rows);
    float *partial = Carver(args.scratch).take<float>(most_partials);
    const int blocks = int(src.rows < most_partials ? src.rows : most_partials);
    QLORA_TRY(launch(context, stream, Grid{dim3(unsigned(blocks)), row_threads}, partial_absmax_kernel, rows, partial));
    return launch(context, stream, Grid{dim3(unsigned(blocks)), row_threads}, quantize_one_scale_kernel, rows, partial, blocks, has_words(rows));
}

} // namespace cuda
} // namespace qlora
