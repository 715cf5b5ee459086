// Interleaved blocks by the encoders of backends/search: a thread per block, whose values lie in shared memory. Slow and exact:
// the same C++ as on the host, compiled without contraction (cuda.cmake says so of the files that include this).
#pragma once
#define QLORA_SEARCH __host__ __device__ inline
#include "backends/cuda/quantize.cuh"
#include "backends/search/encode_four.h"

namespace qlora {
namespace cuda {

constexpr int search_threads = 32;

template <class F> struct BytesOf { using type = typename F::Bytes; };
template <> struct BytesOf<Format<QLORA_FORMAT_Q4_0>> { using type = BlockQ4_0; };

// cols are a multiple of the block, so blocks follow each other in the flattened matrix.
template <class F>
static __global__ void __launch_bounds__(search_threads) quantize_search_kernel(View src, uint8_t *code, const float *importance, bool stochastic, uint64_t seed, float tensor_scale) {
    constexpr int size = F::block, stride = size + 1; // one apart: threads that read the same element of their blocks do not collide
    __shared__ float x[search_threads * stride];
    const int64_t total = src.rows * src.cols;
    for (int64_t first = int64_t(blockIdx.x) * search_threads * size; first < total; first += int64_t(gridDim.x) * search_threads * size) {
        __syncthreads();
        for (int i = threadIdx.x; i < search_threads * size && first + i < total; i += search_threads) {
            const int64_t r = src.stride == src.cols ? 0 : (first + i) / src.cols;
            x[i / size * stride + i % size] = load1(src.data, src.type, first + i + r * (src.stride - src.cols));
        }
        __syncthreads();
        const int64_t index = first + threadIdx.x * size;
        if (index >= total) continue;
        const int64_t r = index / src.cols, c = index - r * src.cols;
        search::Source source = {x + threadIdx.x * stride, importance ? importance + c : nullptr, 0, stochastic, seed, uint64_t(index), tensor_scale};
        if (importance && size == 32) { // in the order of ref; super-blocks do not ask
            float sum = 0;
            for (int64_t i = 0; i < src.cols; i++) {
                const float value = load1(src.data, src.type, r * src.stride + i);
                sum = __fadd_rn(sum, __fmul_rn(value, value));
            }
            source.row_mean_square = __fdiv_rn(sum, float(src.cols));
        }
        typename BytesOf<F>::type block;
        search::Encode<F>::block(source, block);
        const uint8_t *bytes = reinterpret_cast<const uint8_t *>(&block);
        uint8_t *place = code + index / size * sizeof block;
        for (unsigned i = 0; i < sizeof block; i++) place[i] = bytes[i]; // blocks of 17 bytes lie anywhere
    }
}

template <class F> int32_t quantize_search(Context &context, cudaStream_t stream, const qlora_quantize_args &args, const View &src) {
    const uint64_t groups = ceil_divide(block_count(*args.weight), search_threads), most = uint64_t(1) << 20;
    return launch(context, stream, Grid{dim3(unsigned(groups < most ? groups : most)), search_threads}, quantize_search_kernel<F>, src,
                  address<uint8_t>(args.weight->planes[QLORA_PLANE_CODE]), args.importance.handle ? address<const float>(args.importance) : nullptr,
                  (args.flags & QLORA_FLAG_STOCHASTIC) != 0, args.seed, args.weight->tensor_scale);
}

} // namespace cuda
} // namespace qlora
