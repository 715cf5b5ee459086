// The tensor core instructions: 16-bit operands, f32 sums, in the forms that sm_75 has and sm_80 widened.
#pragma once
#include "backends/cuda/device.cuh"

namespace qlora {
namespace cuda {

__device__ __forceinline__ uint32_t shared_address(const void *place) { return uint32_t(__cvta_generic_to_shared(place)); }

// Four 8 x 8 matrices of 16-bit values; lane l gives the address of row l % 8 of matrix l / 8.
template <bool turned> __device__ __forceinline__ void load_matrices(uint32_t (&words)[4], const void *place) {
    if (turned)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                     : "r"(shared_address(place)));
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                     : "r"(shared_address(place)));
}

// sum[16 x 8] += a[16 x 16] b[16 x 8]. In a lane l: sum holds (l/4, 2(l%4)), its right neighbour, and both 8 rows below.
template <int type> __device__ __forceinline__ void multiply_add(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#if __CUDA_ARCH__ >= 800
    if (type == QLORA_FORMAT_F16)
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                     : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    else
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                     : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#elif defined(__CUDA_ARCH__)
    if (type == QLORA_FORMAT_F16) { // bf16 never comes here: see has_mma
        asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
                     : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
                     : "r"(a[0]), "r"(a[1]), "r"(b0));
        asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
                     : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
                     : "r"(a[2]), "r"(a[3]), "r"(b1));
    }
#endif
}

inline bool has_mma(Context &context, int32_t type) {
    return type == QLORA_FORMAT_F16 || (type == QLORA_FORMAT_BF16 && state_of(context).compiled >= 80);
}

// Element (i, k) of an operand tile in shared memory, i below 16-multiples, k below WIDTH: rows padded by 16 bytes so
// that eight rows of a matrix lie in different banks. As it arrives: [i][k], or [k][i] when turned.
template <bool turned, int SIZE, int WIDTH> struct Tile {
    static constexpr int stride = (turned ? SIZE : WIDTH) + 8, halves = (turned ? WIDTH : SIZE) * stride;
    static constexpr int groups = SIZE * WIDTH / 8, groups_per_row = (turned ? SIZE : WIDTH) / 8;
    static __device__ __forceinline__ int outer(int group) { return group / groups_per_row; }
    static __device__ __forceinline__ int inner(int group) { return group % groups_per_row * 8; }
    static __device__ __forceinline__ uint16_t *at(uint16_t *tile, int group) { return tile + outer(group) * stride + inner(group); }
    // a: 16 rows from i, 16 from k.
    static __device__ __forceinline__ void load_a(uint32_t (&words)[4], const uint16_t *tile, int i, int k) {
        const int lane = threadIdx.x % 32;
        if (turned) load_matrices<true>(words, tile + (k + lane % 8 + lane / 16 * 8) * stride + i + lane / 8 % 2 * 8);
        else load_matrices<false>(words, tile + (i + lane % 16) * stride + k + lane / 16 * 8);
    }
    // b: words 0, 1 are k halves of the eight columns from i, words 2, 3 of the next eight.
    static __device__ __forceinline__ void load_b(uint32_t (&words)[4], const uint16_t *tile, int i, int k) {
        const int lane = threadIdx.x % 32;
        if (turned) load_matrices<true>(words, tile + (k + lane % 16) * stride + i + lane / 16 * 8);
        else load_matrices<false>(words, tile + (i + lane % 8 + lane / 16 * 8) * stride + k + lane / 8 % 2 * 8);
    }
};

} // namespace cuda
} // namespace qlora
