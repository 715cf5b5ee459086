// Double quantization of scales: offset = mean(absmax) in the fixed order, then absmax - offset as dynamic 8-bit codes
// in nested blocks of 256.
#include "backends/cuda/encode.cuh"

namespace qlora {
namespace cuda {

constexpr int chunk = 4096, lanes = 256, nested_block = 256;

// dst[b] = sum of the b-th chunk of src. Lane l adds elements l, l + 256, ... from 0; then a tree halves the lanes.
// divisor, unless 0, makes the mean of the last level.
static __global__ void __launch_bounds__(lanes) sum_kernel(const float *src, int64_t count, float *dst, float divisor) {
    __shared__ float lane[lanes];
    const int64_t begin = int64_t(blockIdx.x) * chunk, end = begin + chunk < count ? begin + chunk : count;
    float sum = 0;
    for (int64_t i = begin + threadIdx.x; i < end; i += lanes) sum = __fadd_rn(sum, src[i]);
    lane[threadIdx.x] = sum;
    for (int half = lanes / 2; half >= 1; half /= 2) {
        __syncthreads();
        if (int(threadIdx.x) < half) lane[threadIdx.x] = __fadd_rn(lane[threadIdx.x], lane[threadIdx.x + half]);
    }
    if (threadIdx.x == 0) dst[blockIdx.x] = divisor != 0 ? __fdiv_rn(lane[0], divisor) : lane[0];
}

// One warp per nested block, eight scales per thread.
static __global__ void __launch_bounds__(256) nest_kernel(WeightView w, const float *absmax, int64_t blocks) {
    __shared__ float shared[EncodeDyn8<true>::shared_values];
    EncodeDyn8<true> encoder;
    encoder.prepare(shared);
    __syncthreads();
    const int64_t nested_blocks = (blocks + nested_block - 1) / nested_block;
    const float offset = *w.offset;
    for (int64_t b = blockIdx.x * 8 + threadIdx.x / 32; b < nested_blocks; b += gridDim.x * 8) {
        float d[8], largest = 0;
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const int64_t place = b * nested_block + i * 32 + threadIdx.x % 32;
            d[i] = place < blocks ? __fsub_rn(absmax[place], offset) : 0.0f;
            largest = fmaxf(largest, fabsf(d[i]));
        }
        for (int half = 16; half >= 1; half /= 2) largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, half));
        if (largest < smallest_normal) largest = 0;
        const float inverse = largest > 0 ? __frcp_rn(largest) : 0;
        if (threadIdx.x % 32 == 0) w.nested[b] = largest;
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const int64_t place = b * nested_block + i * 32 + threadIdx.x % 32;
            const float y = __fmul_rn(d[i], inverse);
            // NaN, where the mean overflowed, compares as smaller than every value of the table.
            if (place < blocks) static_cast<uint8_t *>(w.scale)[place] = uint8_t(largest > 0 && y == y ? encoder.code(y) : 0);
        }
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
    for (;;) {
        const uint64_t chunks = ceil_divide(uint64_t(count), chunk);
        float *dst = chunks == 1 ? w.offset : sums;
        QLORA_TRY(launch(context, stream, Grid{dim3(unsigned(chunks)), lanes}, sum_kernel, src, count, dst, chunks == 1 ? float(blocks) : 0.0f));
        if (chunks == 1) break;
        src = sums;
        sums += chunks;
        count = int64_t(chunks);
    }
    const uint64_t wanted = ceil_divide(ceil_divide(uint64_t(blocks), nested_block), 8), most = uint64_t(state_of(context).multiprocessors) * 4;
    return launch(context, stream, Grid{dim3(unsigned(wanted < most ? wanted : most)), 256}, nest_kernel, w, absmax, blocks);
}

} // namespace cuda
} // namespace qlora
