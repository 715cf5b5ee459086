// What the kernels of quantize share: reading eight flattened elements, the maximum over a block, storing eight codes. A
// thread holds eight neighbours, a group of block / 8 threads holds a block, and a thread block of 512 threads holds a tile of
// 4096 values.
#pragma once
#include "backends/cuda/weight.cuh"

namespace qlora {
namespace cuda {

constexpr int quantize_threads = 512, quantize_tile = quantize_threads * 8;
constexpr float smallest_normal = 1.17549435e-38f; // an absmax below it counts as zero

// Eight flattened elements of src, of which count exist.
__device__ __forceinline__ void load_flat(const View &src, int64_t index, int64_t count, float (&values)[8]) {
    if (src.stride == src.cols) load8(src.data, src.type, index, count, src.vector, values);
    else {
        const int64_t row = index / src.cols, col = index - row * src.cols;
        if (col + 8 <= src.cols) load8(src, row, col, values);
        else
            for (int i = 0; i < 8; i++) values[i] = i < count ? load1(src.data, src.type, (index + i) / src.cols * src.stride + (index + i) % src.cols) : 0.0f;
    }
}

// max over the threads of a block of values: lanes is a power of two up to 512.
__device__ __forceinline__ float group_max(float value, int lanes, float *shared) {
    for (int half = min(lanes, 32) / 2; half >= 1; half /= 2) value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, half));
    if (lanes > 32) { // the same for the whole grid
        __syncthreads();
        if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
        __syncthreads();
        const int warps = lanes / 32, first = threadIdx.x / 32 & ~(warps - 1);
        for (int i = 0; i < warps; i++) value = fmaxf(value, shared[first + i]);
    }
    return value;
}

// Codes of eight neighbours from index on, of which count exist.
__device__ __forceinline__ void store_codes(const WeightView &w, int64_t index, int64_t count, uint32_t word) {
    uint8_t *place = w.code + (index >> 1);
    if (count >= 8 && w.grouped) *reinterpret_cast<uint32_t *>(place) = word;
    else
        for (int i = 0; i < 4; i++)
            if (2 * i < count) place[i] = uint8_t(word >> (8 * i));
}
__device__ __forceinline__ void store_codes(const WeightView &w, int64_t index, int64_t count, uint2 words) {
    uint8_t *place = w.code + index;
    if (count >= 8 && w.grouped) *reinterpret_cast<uint2 *>(place) = words;
    else
        for (int i = 0; i < 8; i++)
            if (i < count) place[i] = uint8_t((i < 4 ? words.x : words.y) >> (i % 4 * 8));
}

// Eight codes of a byte each, as they lie in memory.
__device__ __forceinline__ uint2 bytes_of(const uint32_t (&codes)[8]) {
    return make_uint2(codes[0] | codes[1] << 8 | codes[2] << 16 | codes[3] << 24, codes[4] | codes[5] << 8 | codes[6] << 16 | codes[7] << 24);
}

// The index of the first NaN or infinity of src, or UINT64_MAX (not_finite_cuda.cu).
int32_t find_not_finite(Context &context, cudaStream_t stream, const View &src, uint64_t *first);

// Small floats: FP8, MXFP8, MXFP6 (quantize_narrow_cuda.cu).
int32_t quantize_narrow(Context &context, cudaStream_t stream, const qlora_quantize_args &args, const View &src);
uint64_t quantize_narrow_scratch(const qlora_quantize_args &args);

// INT8 (quantize_int8_cuda.cu).
int32_t quantize_int8(Context &context, cudaStream_t stream, const qlora_quantize_args &args, const View &src);
uint64_t quantize_int8_scratch(Context &context, const qlora_quantize_args &args);

// Interleaved blocks by the searches of backends/search (quantize_search.cuh): everything with Codec::BLOCK, and Q4_0 with importance.
template <class F> int32_t quantize_search(Context &context, cudaStream_t stream, const qlora_quantize_args &args, const View &src);

} // namespace cuda
} // namespace qlora
