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

template <int bits> __device__ __forceinline__ void store_codes(const WeightView &w, int64_t index, int64_t count, const uint32_t (&codes)[8]) {
    if (bits == 4) {
        uint32_t word = 0;
#pragma unroll
        for (int i = 0; i < 8; i++) word |= codes[i] << (i % 2 ? 4 * i - 4 : 4 * i + 4);
        if (count >= 8 && w.grouped) *reinterpret_cast<uint32_t *>(w.code + (index >> 1)) = word;
        else
            for (int i = 0; i < 4; i++)
                if (2 * i < count) w.code[(index >> 1) + i] = uint8_t(word >> (8 * i));
    } else {
        uint32_t low = 0, high = 0;
#pragma unroll
        for (int i = 0; i < 4; i++) { low |= codes[i] << (8 * i); high |= codes[i + 4] << (8 * i); }
        if (count >= 8 && w.grouped) *reinterpret_cast<uint2 *>(w.code + index) = make_uint2(low, high);
        else
            for (int i = 0; i < 8; i++)
                if (i < count) w.code[index + i] = uint8_t((i < 4 ? low : high) >> (i % 4 * 8));
    }
}

// The index of the first NaN or infinity of src, or UINT64_MAX (not_finite_cuda.cu).
int32_t find_not_finite(Context &context, cudaStream_t stream, const View &src, uint64_t *first);

// Small floats: FP8, MXFP8, MXFP6 (quantize_narrow_cuda.cu).
int32_t quantize_narrow(Context &context, cudaStream_t stream, const qlora_quantize_args &args, const View &src);
uint64_t quantize_narrow_scratch(const qlora_quantize_args &args);

// Interleaved blocks by the searches of backends/search (quantize_search.cuh): everything with Codec::BLOCK, and Q4_0 with importance.
template <class F> int32_t quantize_search(Context &context, cudaStream_t stream, const qlora_quantize_args &args, const View &src);

} // namespace cuda
} // namespace qlora
