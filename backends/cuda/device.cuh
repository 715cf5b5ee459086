// Elements on the device: 16-bit conversions, tensors as kernels see them, loads and stores of eight elements.
// The element type is a run-time number: the branch is the same for a whole grid, and one kernel serves three types.
#pragma once
#include "backends/cuda/cuda.cuh"

namespace qlora {
namespace cuda {

// Hardware conversions, written in PTX so that no 16-bit header has to be compiled. All round to nearest even.
__device__ __forceinline__ float f32_from_f16(uint32_t bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(static_cast<unsigned short>(bits)));
    return value;
}
__device__ __forceinline__ uint32_t f16_from_f32(float value) {
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}
__device__ __forceinline__ float f32_from_bf16(uint32_t bits) { return __uint_as_float(bits << 16); }
__device__ __forceinline__ uint32_t bf16_from_f32(float value) {
#if __CUDA_ARCH__ >= 800
    unsigned short bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
#else
    const uint32_t bits = __float_as_uint(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (bits >> 16) | 0x40u;
    return (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
#endif
}
// Two values in one word, the first in the low half.
template <int type> __device__ __forceinline__ uint32_t pack2(float low, float high) {
    uint32_t word;
#if __CUDA_ARCH__ >= 800
    if (type == QLORA_FORMAT_F16) asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
    else asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
#else
    word = type == QLORA_FORMAT_F16 ? f16_from_f32(low) | f16_from_f32(high) << 16 : bf16_from_f32(low) | bf16_from_f32(high) << 16;
#endif
    return word;
}

__device__ __forceinline__ float round_to(int type, float value) {
    if (type == QLORA_FORMAT_F16) return f32_from_f16(f16_from_f32(value));
    if (type == QLORA_FORMAT_BF16) return f32_from_bf16(bf16_from_f32(value));
    return value;
}

__device__ __forceinline__ float load1(const void *data, int type, int64_t index) {
    if (type == QLORA_FORMAT_F32) return static_cast<const float *>(data)[index];
    const uint32_t half = static_cast<const uint16_t *>(data)[index];
    return type == QLORA_FORMAT_F16 ? f32_from_f16(half) : f32_from_bf16(half);
}
__device__ __forceinline__ void store1(void *data, int type, int64_t index, float value) {
    if (type == QLORA_FORMAT_F32) static_cast<float *>(data)[index] = value;
    else static_cast<uint16_t *>(data)[index] = uint16_t(type == QLORA_FORMAT_F16 ? f16_from_f32(value) : bf16_from_f32(value));
}

__device__ __forceinline__ void unpack8(uint4 words, int type, float (&values)[8]) {
    const uint32_t pairs[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        values[2 * i] = type == QLORA_FORMAT_F16 ? f32_from_f16(pairs[i] & 0xffffu) : __uint_as_float(pairs[i] << 16);
        values[2 * i + 1] = type == QLORA_FORMAT_F16 ? f32_from_f16(pairs[i] >> 16) : __uint_as_float(pairs[i] & 0xffff0000u);
    }
}
template <int type> __device__ __forceinline__ uint4 pack8(const float (&values)[8]) {
    return make_uint4(pack2<type>(values[0], values[1]), pack2<type>(values[2], values[3]), pack2<type>(values[4], values[5]),
                      pack2<type>(values[6], values[7]));
}

// Eight neighbours, of which count exist (the others read as 0 and are not written). vector: data + index is aligned to 16 bytes.
__device__ __forceinline__ void load8(const void *data, int type, int64_t index, int64_t count, bool vector, float (&values)[8]) {
    if (vector && count >= 8) {
        if (type == QLORA_FORMAT_F32) {
            const float4 *place = reinterpret_cast<const float4 *>(static_cast<const float *>(data) + index);
            const float4 low = place[0], high = place[1];
            values[0] = low.x; values[1] = low.y; values[2] = low.z; values[3] = low.w;
            values[4] = high.x; values[5] = high.y; values[6] = high.z; values[7] = high.w;
        } else {
            unpack8(*reinterpret_cast<const uint4 *>(static_cast<const uint16_t *>(data) + index), type, values);
        }
        return;
    }
    if (type == QLORA_FORMAT_F32) {
#pragma unroll
        for (int i = 0; i < 8; i++) values[i] = i < count ? static_cast<const float *>(data)[index + i] : 0.0f;
    } else {
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const uint32_t half = i < count ? static_cast<const uint16_t *>(data)[index + i] : 0;
            values[i] = type == QLORA_FORMAT_F16 ? f32_from_f16(half) : f32_from_bf16(half);
        }
    }
}
__device__ __forceinline__ void store8(void *data, int type, int64_t index, int64_t count, bool vector, const float (&values)[8]) {
    if (vector && count >= 8) {
        if (type == QLORA_FORMAT_F32) {
            float4 *place = reinterpret_cast<float4 *>(static_cast<float *>(data) + index);
            place[0] = make_float4(values[0], values[1], values[2], values[3]);
            place[1] = make_float4(values[4], values[5], values[6], values[7]);
        } else {
            *reinterpret_cast<uint4 *>(static_cast<uint16_t *>(data) + index) =
                type == QLORA_FORMAT_F16 ? pack8<QLORA_FORMAT_F16>(values) : pack8<QLORA_FORMAT_BF16>(values);
        }
        return;
    }
#pragma unroll
    for (int i = 0; i < 8; i++)
        if (i < count) store1(data, type, index + i, values[i]);
}

// A tensor as a kernel parameter. vector: every eighth element of every row is aligned to 16 bytes.
struct View {
    void *data;
    int64_t rows, cols, stride;
    int32_t type;
    bool vector;
};

inline View view_of(const qlora_tensor &tensor) {
    const uint64_t place = tensor.data.handle + tensor.data.offset;
    return View{reinterpret_cast<void *>(place), int64_t(tensor.rows), int64_t(tensor.cols), int64_t(tensor.stride), tensor.type,
                place % 16 == 0 && (tensor.stride % 8 == 0 || tensor.rows == 1)};
}

__device__ __forceinline__ void load8(const View &view, int64_t row, int64_t col, float (&values)[8]) {
    load8(view.data, view.type, row * view.stride + col, view.cols - col, view.vector, values);
}
__device__ __forceinline__ void store8(const View &view, int64_t row, int64_t col, const float (&values)[8]) {
    store8(view.data, view.type, row * view.stride + col, view.cols - col, view.vector, values);
}

// What launch_early is for: the kernel after this one may start, and this one goes on when the kernel before it has ended and its
// writes are seen. Before it a kernel touches nothing that another could have written, or could still read.
__device__ __forceinline__ void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Sum over a block, in a fixed order, for all threads. shared has room for 32 values; threads are whole warps.
template <class T> __device__ __forceinline__ T block_sum(T value, T *shared) {
#pragma unroll
    for (int half = 16; half >= 1; half /= 2) value += __shfl_xor_sync(0xffffffffu, value, half);
    __syncthreads();
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
    __syncthreads();
    T sum = 0;
    for (unsigned warp = 0; warp < blockDim.x / 32; warp++) sum += shared[warp];
    return sum;
}

} // namespace cuda
} // namespace qlora
