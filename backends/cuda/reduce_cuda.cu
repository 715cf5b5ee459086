// Column sums in two steps: blocks of rows to partial sums, partial sums to the result. The order never changes.
#include "backends/cuda/reduce.cuh"

namespace qlora {
namespace cuda {

static __global__ void __launch_bounds__(reduce_cols *reduce_lanes) partial_kernel(View x, Normed normed, float *partial) {
    __shared__ float lanes[reduce_lanes][reduce_cols];
    const int64_t c = int64_t(blockIdx.x) * reduce_cols + threadIdx.x % reduce_cols, begin = int64_t(blockIdx.y) * reduce_rows;
    const int64_t end = begin + reduce_rows < x.rows ? begin + reduce_rows : x.rows;
    const int lane = threadIdx.x / reduce_cols;
    float sum = 0;
    if (c < x.cols)
        for (int64_t r = begin + lane; r < end; r += reduce_lanes) {
            float value = load1(x.data, x.type, r * x.stride + c);
            if (normed.factor) value *= (load1(normed.x.data, normed.x.type, r * normed.x.stride + c) - (normed.mean ? normed.mean[r] : 0.0f)) * normed.factor[r];
            sum += value;
        }
    lanes[lane][threadIdx.x % reduce_cols] = sum;
    __syncthreads();
    if (lane || c >= x.cols) return;
    for (int i = 1; i < reduce_lanes; i++) sum += lanes[i][threadIdx.x];
    partial[blockIdx.y * x.cols + c] = sum;
}

static __global__ void __launch_bounds__(256) total_kernel(const float *partial, int64_t parts, int64_t cols, float *dst, bool accumulate) {
    const int64_t c = blockIdx.x * 256ll + threadIdx.x;
    if (c >= cols) return;
    float sum = 0;
    for (int64_t i = 0; i < parts; i++) sum += partial[i * cols + c];
    dst[c] = accumulate ? dst[c] + sum : sum;
}

int32_t column_sums(Context &context, cudaStream_t stream, const View &x, const Normed *normed, float *dst, bool accumulate, float *partial) {
    const uint64_t parts = ceil_divide(uint64_t(x.rows), reduce_rows);
    const Grid grid = {dim3(unsigned(ceil_divide(uint64_t(x.cols), reduce_cols)), unsigned(parts)), reduce_cols * reduce_lanes};
    QLORA_TRY(launch(context, stream, grid, partial_kernel, x, normed ? *normed : Normed{}, partial));
    return launch(context, stream, Grid{dim3(unsigned(ceil_divide(uint64_t(x.cols), 256))), 256}, total_kernel, partial, int64_t(parts), x.cols, dst, accumulate);
}

} // namespace cuda
} // namespace qlora
