// Double quantization of scales: offset = mean(absmax) in the fixed order, then absmax - offset as dynamic 8-bit codes
// in nested blocks of 256.
#include "backends/cuda/encode.cuh"

namespace qlora {
namespace cuda {

constexpr int chunk = 4096, lanes = 256, nested_block = 256;

// Sum of up to 4096 values, for all threads: lane l adds elements l, l + 256, ... from 0; then a tree halves the lanes.
static __device__ __forceinline__ float chunk_sum(const float *src, int64_t count, float *lane) {
    float sum = 0;
    if (count == chunk) { // unrolled, so that the loads are on the way together
        float values[chunk / lanes];
#pragma unroll
        for (int i = 0; i < chunk / lanes; i++) values[i] = src[i * lanes + threadIdx.x];
#pragma unroll
        for (int i = 0; i < chunk / lanes; i++) sum = __fadd_rn(sum, values[i]);
    } else {
#pragma unroll 4
        for (int64_t i = threadIdx.x; i < count; i += lanes) sum = __fadd_rn(sum, src[i]);
    }
    lane[threadIdx.x] = sum;
    for (int half = lanes / 2; half >= 1; half /= 2) {
        __syncthreads();
        if (int(threadIdx.x) < half) lane[threadIdx.x] = __fadd_rn(lane[threadIdx.x], lane[threadIdx.x + half]);
    }
    __syncthreads();
    return lane[0];
}

// dst[b] = sum of the b-th chunk of src.
static __global__ void __launch_bounds__(lanes) sum_kernel(const float *src, int64_t count, float *dst) {
    __shared__ float lane[lanes];
    const int64_t begin = int64_t(blockIdx.x) * chunk;
    const float sum = chunk_sum(src + begin, count - begin < chunk ? count - begin : chunk, lane);
    if (threadIdx.x == 0) dst[blockIdx.x] = sum;
}

// One warp per nested block, eight neighbours per thread. Every block adds up the last sums (at most a chunk) for itself, which is
// quicker than one more kernel.
static __global__ void __launch_bounds__(lanes) nest_kernel(WeightView w, const float *absmax, int64_t blocks, const float *sums, int64_t sum_count, bool words) {
    __shared__ float table[EncodeDyn8<true>::shared_values], lane[lanes];
    EncodeDyn8<true> encoder;
    encoder.prepare(table);
    const float offset = __fdiv_rn(chunk_sum(sums, sum_count, lane), float(blocks)); // synchronises
    if (blockIdx.x == 0 && threadIdx.x == 0) *w.offset = offset;
    const int64_t nested_blocks = (blocks + nested_block - 1) / nested_block;
    for (int64_t b = blockIdx.x * 8 + threadIdx.x / 32; b < nested_blocks; b += gridDim.x * 8) {
        const int64_t place = b * nested_block + threadIdx.x % 32 * 8;
        float d[8], largest = 0;
        load8(absmax, QLORA_FORMAT_F32, place, blocks - place, true, d);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            d[i] = place + i < blocks ? __fsub_rn(d[i], offset) : 0.0f;
            largest = fmaxf(largest, fabsf(d[i]));
        }
        for (int half = 16; half >= 1; half /= 2) largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, half));
        if (largest < smallest_normal) largest = 0;
        const float inverse = largest > 0 ? __frcp_rn(largest) : 0;
        if (threadIdx.x % 32 == 0) w.nested[b] = largest;
        uint2 codes = encoder.codes(d, inverse);
        if (largest == 0 || isinf(largest)) codes = make_uint2(0, 0); // infinite where the mean overflowed
        uint8_t *dst = static_cast<uint8_t *>(w.scale) + place;
        if (words && place + 8 <= blocks) *reinterpret_cast<uint2 *>(dst) = codes;
        else
            for (int i = 0; i < 8; i++)
                if (place + i < blocks) dst[i] = uint8_t((i < 4 ? codes.x : codes.y) >> (i % 4 * 8));
    }
}

uint64_t nest_scales_sums(uint64_t blocks) {
    uint64_t sums = 0;
    for (uint64_t count = blocks; count > chunk;) sums += count = ceil_divide(count, chunk);
    return sums;
}

int32_t nest_scales(Context &context, cudaStream_t stream, const WeightView &w, const float *absmax, float *sums, int64_t blocks) {
    const float *src = absmax;
    int64_t count = blocks;
    while (count > chunk) {
        const uint64_t chunks = ceil_divide(uint64_t(count), chunk);
        QLORA_TRY(launch(context, stream, Grid{dim3(unsigned(chunks)), lanes}, sum_kernel, src, count, sums));
        src = sums;
        sums += chunks;
        count = int64_t(chunks);
    }
    const uint64_t wanted = ceil_divide(ceil_divide(uint64_t(blocks), nested_block), 8), most = uint64_t(state_of(context).multiprocessors) * 8;
    const bool words = reinterpret_cast<uint64_t>(w.scale) % 8 == 0;
    return launch(context, stream, Grid{dim3(unsigned(wanted < most ? wanted : most)), lanes}, nest_kernel, w, absmax, blocks, src, count, words);
}

} // namespace cuda
} // namespace qlora
