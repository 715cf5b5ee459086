// Blocks of a cluster that add up what they have. Devices before sm_90 know no clusters, and compilers before CUDA 12.1 not all of
// their instructions: there, and with one block, nothing is done.
#pragma once
#include "backends/cuda/device.cuh"

namespace qlora {
namespace cuda {

constexpr int most_cluster = 4;
constexpr bool sums_of_clusters = CUDART_VERSION >= 12010; // older compilers know no stores that a barrier of another block counts

__device__ __forceinline__ void add4(float (&sum)[4], float4 more) {
    sum[0] += more.x;
    sum[1] += more.y;
    sum[2] += more.z;
    sum[3] += more.w;
}

// Sums of the blocks of a cluster, in their order, to warp 0 of the first, which waits for the bytes of the others to arrive: a
// barrier with the release that would make ordinary stores seen takes longer than all the rest. Made by all threads at the start of a
// kernel, before they diverge; add() is for all threads, too, and takes the sums of warp 0.
template <int COUNT> struct ClusterSum {
    struct Shared {
        float4 sums[(most_cluster - 1) * COUNT * 32]; // of all blocks but the first
        uint64_t arrived;
    };
    Shared &shared;
    unsigned rank, blocks;

    __device__ __forceinline__ ClusterSum(Shared &shared, unsigned rank, unsigned blocks) : shared(shared), rank(rank), blocks(blocks) {
#if __CUDA_ARCH__ >= 900 && CUDART_VERSION >= 12010
        if (blocks == 1) return;
        if (threadIdx.x == 0 && rank == 0) {
            const uint32_t place = uint32_t(__cvta_generic_to_shared(&shared.arrived)), bytes = (blocks - 1) * COUNT * 32 * 16;
            asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;\n"
                         "fence.mbarrier_init.release.cluster;\n"
                         "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(place), "r"(bytes) : "memory");
        }
        __syncwarp();
        asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
#endif
    }
    __device__ __forceinline__ void add(float (&sum)[COUNT][4]) {
#if __CUDA_ARCH__ >= 900 && CUDART_VERSION >= 12010
        if (blocks == 1) return;
        asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory"); // the first block is there, and its barrier is ready
        if (threadIdx.x >= 32) return;
        const uint32_t barrier = uint32_t(__cvta_generic_to_shared(&shared.arrived));
        if (rank > 0) {
            uint32_t there, its_barrier;
            const uint32_t here = uint32_t(__cvta_generic_to_shared(shared.sums + (rank - 1) * COUNT * 32 + threadIdx.x));
            asm volatile("mapa.shared::cluster.u32 %0, %1, 0;" : "=r"(there) : "r"(here));
            asm volatile("mapa.shared::cluster.u32 %0, %1, 0;" : "=r"(its_barrier) : "r"(barrier));
#pragma unroll
            for (int i = 0; i < COUNT; i++)
                asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, %4}, [%5];" ::"r"(there + i * 32 * 16), "f"(sum[i][0]),
                             "f"(sum[i][1]), "f"(sum[i][2]), "f"(sum[i][3]), "r"(its_barrier)
                             : "memory");
            return;
        }
        uint32_t done = 0;
        while (!done)
            asm volatile("{\n.reg .pred complete;\nmbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 complete, [%1], 0;\nselp.u32 %0, 1, 0, complete;\n}"
                         : "=r"(done)
                         : "r"(barrier)
                         : "memory");
        for (unsigned other = 0; other + 1 < blocks; other++)
#pragma unroll
            for (int i = 0; i < COUNT; i++) add4(sum[i], shared.sums[(other * COUNT + i) * 32 + threadIdx.x]);
#endif
    }
};

} // namespace cuda
} // namespace qlora
