// The tensor core instructions: 16-bit operands, f32 sums, in the forms that sm_75 has and sm_80 widened.
#pragma once
#include "backends/cuda/device.cuh"

namespace qlora {
namespace cuda {

__device__ __forceinline__ uint32_t shared_address(const void *place) { return uint32_t(__cvta_generic_to_shared(place)); }

// Four 8 x 8 matrices of 16-bit values; lane l gives the address of row l % 8 of matrix l / 8.
template <bool turned> __device__ __forceinline__ void load_matrices(uint32_t (&words)[4], uint32_t address) {
    if (turned)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                     : "r"(address));
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                     : "r"(address));
}
template <bool turned> __device__ __forceinline__ void load_matrices(uint32_t (&words)[4], const void *place) { load_matrices<turned>(words, shared_address(place)); }

__device__ __forceinline__ void store_shared(uint32_t address, const uint32_t (&words)[4]) {
    asm volatile("st.shared.v4.u32 [%0], {%1,%2,%3,%4};" ::"r"(address), "r"(words[0]), "r"(words[1]), "r"(words[2]), "r"(words[3]) : "memory");
}

// Copies from global to shared memory that go on while the block works: BYTES (4 or 16) each, zeros where not valid. A thread's
// copies since its last commit_copies() are one group; wait_copies<N>() waits until at most N groups of it are on their way, and
// a barrier then shows them to the block. Before sm_80 they are copies like any other.
template <int BYTES> __device__ __forceinline__ void copy_async(uint32_t shared, const void *global, bool valid) {
#if __CUDA_ARCH__ >= 800
    if (BYTES == 16) asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(global), "r"(valid ? 16 : 0) : "memory");
    else asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared), "l"(global), "r"(valid ? 4 : 0) : "memory");
#else
    if (BYTES == 16) {
        const uint4 words = valid ? *static_cast<const uint4 *>(global) : make_uint4(0, 0, 0, 0);
        store_shared(shared, {words.x, words.y, words.z, words.w});
    } else {
        asm volatile("st.shared.u32 [%0], %1;" ::"r"(shared), "r"(valid ? *static_cast<const uint32_t *>(global) : 0) : "memory");
    }
#endif
}
__device__ __forceinline__ void commit_copies() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
template <int N> __device__ __forceinline__ void wait_copies() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#endif
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
