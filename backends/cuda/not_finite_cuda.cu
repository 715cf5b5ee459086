// Where the first NaN or infinity of a matrix is. The minimum of integers does not depend on the order of threads.
#include "backends/cuda/quantize.cuh"

namespace qlora {
namespace cuda {

constexpr int threads = 256;

static __global__ void begin_kernel(unsigned long long *first) { *first = ~0ull; }

static __global__ void __launch_bounds__(threads) not_finite_kernel(View src, unsigned long long *first) {
    const int64_t total = src.rows * src.cols, step = int64_t(gridDim.x) * threads;
    for (int64_t i = int64_t(blockIdx.x) * threads + threadIdx.x; i < total; i += step) {
        const int64_t place = src.stride == src.cols ? i : i / src.cols * src.stride + i % src.cols;
        if ((__float_as_uint(load1(src.data, src.type, place)) & 0x7f800000u) != 0x7f800000u) continue;
        atomicMin(first, static_cast<unsigned long long>(i));
        return; // what this thread still had is behind it
    }
}

int32_t find_not_finite(Context &context, cudaStream_t stream, const View &src, uint64_t *first) {
    unsigned long long *place = reinterpret_cast<unsigned long long *>(first);
    QLORA_TRY(launch(context, stream, Grid{dim3(1), 1}, begin_kernel, place));
    const uint64_t blocks = ceil_divide(uint64_t(src.rows) * uint64_t(src.cols), threads), most = uint64_t(state_of(context).multiprocessors) * 16;
    return launch(context, stream, Grid{dim3(unsigned(blocks < most ? blocks : most)), threads}, not_finite_kernel, src, place);
}

} // namespace cuda
} // namespace qlora
