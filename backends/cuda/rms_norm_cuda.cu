// y = x * rstd * weight, rstd = 1 / sqrt(mean(x^2) + epsilon); with g = dy * weight:
// dx = rstd * (g - x * rstd^2 * mean(g x)),  dweight = column sums of dy * x * rstd. One block per row; the second
// reading of a row comes from the cache.
#include "backends/cuda/reduce.cuh"

namespace qlora {
namespace cuda {

constexpr int most_threads = 512;

static __global__ void __launch_bounds__(most_threads) rms_norm_kernel(View x, View weight, View y, float *rstd, float epsilon) {
    __shared__ float shared[32];
    const int64_t r = blockIdx.x;
    const int step = blockDim.x * 8;
    float sum = 0;
    for (int64_t c = threadIdx.x * 8; c < x.cols; c += step) {
        float values[8];
        load8(x, r, c, values);
#pragma unroll
        for (int i = 0; i < 8; i++) sum += values[i] * values[i];
    }
    sum = block_sum(sum, shared);
    const float scale = 1 / sqrtf(sum / float(x.cols) + epsilon);
    if (rstd && threadIdx.x == 0) rstd[r] = scale;
    for (int64_t c = threadIdx.x * 8; c < x.cols; c += step) {
        float values[8], weights[8];
        load8(x, r, c, values);
        load8(weight, 0, c, weights);
#pragma unroll
        for (int i = 0; i < 8; i++) values[i] *= scale * weights[i];
        store8(y, r, c, values);
    }
}

static __global__ void __launch_bounds__(most_threads) rms_norm_grad_kernel(View x, View weight, View dy, View dx, const float *rstd, bool accumulate) {
    __shared__ float shared[32];
    const int64_t r = blockIdx.x;
    const int step = blockDim.x * 8;
    const float scale = rstd[r];
    float sum = 0;
    for (int64_t c = threadIdx.x * 8; c < x.cols; c += step) {
        float values[8], weights[8], slopes[8];
        load8(x, r, c, values);
        load8(weight, 0, c, weights);
        load8(dy, r, c, slopes);
#pragma unroll
        for (int i = 0; i < 8; i++) sum += slopes[i] * weights[i] * values[i];
    }
    sum = block_sum(sum, shared);
    const float slope = sum / float(x.cols) * scale * scale;
    for (int64_t c = threadIdx.x * 8; c < x.cols; c += step) {
        float values[8], weights[8], slopes[8], old[8] = {};
        load8(x, r, c, values);
        load8(weight, 0, c, weights);
        load8(dy, r, c, slopes);
        if (accumulate) load8(dx, r, c, old);
#pragma unroll
        for (int i = 0; i < 8; i++) values[i] = scale * (slopes[i] * weights[i] - values[i] * slope) + old[i];
        store8(dx, r, c, values);
    }
}

static unsigned row_threads(const View &x) {
    const uint64_t wanted = ceil_divide(uint64_t(x.cols), 8 * 32) * 32;
    return unsigned(wanted < most_threads ? wanted : most_threads);
}

uint64_t rms_norm_scratch(Context &, const qlora_rms_norm_args &) { return 0; }
uint64_t rms_norm_grad_scratch(Context &, const qlora_rms_norm_grad_args &args) {
    Carver carver;
    carver.take<float>(column_sums_partial(args.x.rows, args.x.cols));
    return carver.bytes;
}

int32_t rms_norm(Context &context, const qlora_rms_norm_args &args) {
    DeviceScope scope(context);
    const View x = view_of(args.x);
    return launch(context, stream_of(context, args), Grid{dim3(unsigned(x.rows)), row_threads(x)}, rms_norm_kernel, x, view_of(args.weight), view_of(args.y),
                  args.rstd.handle ? address<float>(args.rstd) : nullptr, args.epsilon);
}

// dweight first: dx may take the place of dy.
int32_t rms_norm_grad(Context &context, const qlora_rms_norm_grad_args &args) {
    DeviceScope scope(context);
    const cudaStream_t stream = stream_of(context, args);
    const View x = view_of(args.x), dy = view_of(args.dy);
    const float *rstd = address<const float>(args.rstd);
    if (args.dweight.handle)
        QLORA_TRY(column_sums(context, stream, dy, &x, rstd, address<float>(args.dweight), args.flags & QLORA_FLAG_ACCUMULATE_GRADIENTS, Carver(args.scratch).take<float>(0)));
    return launch(context, stream, Grid{dim3(unsigned(x.rows)), row_threads(x)}, rms_norm_grad_kernel, x, view_of(args.weight), dy, view_of(args.dx), rstd,
                  (args.flags & QLORA_FLAG_ACCUMULATE) != 0);
}

} // namespace cuda
} // namespace qlora
