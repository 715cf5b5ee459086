// y = x * rstd * weight + bias, rstd = 1 / sqrt(mean(x^2) + epsilon); with g = dy * weight:
// dx = rstd * (g - x * rstd^2 * mean(g x)),  dweight = column sums of dy * x * rstd,  dbias = column sums of dy. Centered, x is
// x minus its row's mean, and dx loses its mean, which is that of rstd * g. One block per row; what is read of a row again
// comes from the cache.
#include "backends/cuda/reduce.cuh"

namespace qlora {
namespace cuda {

constexpr int most_threads = 512;

// The mean of a row, for all threads of its block. shared has room for 32 values.
static __device__ __forceinline__ float row_mean(const View &x, int64_t r, float *shared) {
    float sum = 0;
    for (int64_t c = threadIdx.x * 8; c < x.cols; c += blockDim.x * 8) {
        float values[8];
        load8(x, r, c, values);
#pragma unroll
        for (int i = 0; i < 8; i++) sum += values[i];
    }
    return block_sum(sum, shared) / float(x.cols);
}

template <bool CENTERED>
static __global__ void __launch_bounds__(most_threads) rms_norm_kernel(View x, View weight, View bias, View y, float *rstd, float epsilon, bool accumulate) {
    __shared__ float shared[32];
    const int64_t r = blockIdx.x;
    const int step = blockDim.x * 8;
    const float mean = CENTERED ? row_mean(x, r, shared) : 0.0f;
    float sum = 0;
    for (int64_t c = threadIdx.x * 8; c < x.cols; c += step) {
        float values[8];
        load8(x, r, c, values);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            if (CENTERED) values[i] = c + i < x.cols ? values[i] - mean : 0.0f;
            sum += values[i] * values[i];
        }
    }
    sum = block_sum(sum, shared);
    const float scale = 1 / sqrtf(sum / float(x.cols) + epsilon);
    if (rstd && threadIdx.x == 0) rstd[r] = scale;
    for (int64_t c = threadIdx.x * 8; c < x.cols; c += step) {
        float values[8], weights[8], added[8];
        load8(x, r, c, values);
        load8(weight, 0, c, weights);
#pragma unroll
        for (int i = 0; i < 8; i++) values[i] = CENTERED ? (values[i] - mean) * scale * weights[i] : values[i] * (scale * weights[i]);
        if (bias.data) {
            load8(bias, 0, c, added);
#pragma unroll
            for (int i = 0; i < 8; i++) values[i] += added[i];
        }
        if (accumulate) {
            load8(y, r, c, added);
#pragma unroll
            for (int i = 0; i < 8; i++) values[i] += added[i];
        }
        store8(y, r, c, values);
    }
}

template <bool CENTERED>
static __global__ void __launch_bounds__(most_threads) rms_norm_grad_kernel(View x, View weight, View dy, View dx, const float *rstd, bool accumulate) {
    __shared__ float shared[32];
    const int64_t r = blockIdx.x;
    const int step = blockDim.x * 8;
    const float scale = rstd[r], mean = CENTERED ? row_mean(x, r, shared) : 0.0f;
    float sum = 0, sum_g = 0;
    for (int64_t c = threadIdx.x * 8; c < x.cols; c += step) {
        float values[8], weights[8], slopes[8];
        load8(x, r, c, values);
        load8(weight, 0, c, weights);
        load8(dy, r, c, slopes); // 0 past the end of a row
#pragma unroll
        for (int i = 0; i < 8; i++) {
            sum += slopes[i] * weights[i] * (CENTERED ? values[i] - mean : values[i]);
            if (CENTERED) sum_g += slopes[i] * weights[i];
        }
    }
    sum = block_sum(sum, shared);
    const float slope = sum / float(x.cols) * scale * scale, mean_g = CENTERED ? block_sum(sum_g, shared) / float(x.cols) : 0.0f;
    for (int64_t c = threadIdx.x * 8; c < x.cols; c += step) {
        float values[8], weights[8], slopes[8], old[8] = {};
        load8(x, r, c, values);
        load8(weight, 0, c, weights);
        load8(dy, r, c, slopes);
        if (accumulate) load8(dx, r, c, old);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            if (CENTERED) values[i] = scale * (slopes[i] * weights[i] - mean_g - (values[i] - mean) * slope) + old[i];
            else values[i] = scale * (slopes[i] * weights[i] - values[i] * slope) + old[i];
        }
        store8(dx, r, c, values);
    }
}

static __global__ void __launch_bounds__(most_threads) row_mean_kernel(View x, float *means) {
    __shared__ float shared[32];
    const float mean = row_mean(x, blockIdx.x, shared);
    if (threadIdx.x == 0) means[blockIdx.x] = mean;
}

static unsigned row_threads(const View &x) {
    const uint64_t wanted = ceil_divide(uint64_t(x.cols), 8 * 32) * 32;
    return unsigned(wanted < most_threads ? wanted : most_threads);
}

namespace {

// Scratch of the gradients of weight and bias: partial sums of columns, and means of centered rows.
struct Sums {
    Carver carver;
    float *partial, *means;
    explicit Sums(const qlora_rms_norm_grad_args &args) : carver(args.scratch) {
        partial = carver.take<float>(column_sums_partial(args.x.rows, args.x.cols));
        means = args.flags & QLORA_FLAG_CENTERED ? carver.take<float>(args.x.rows) : nullptr;
    }
};

} // namespace

uint64_t rms_norm_scratch(Context &, const qlora_rms_norm_args &) { return 0; }
uint64_t rms_norm_grad_scratch(Context &, const qlora_rms_norm_grad_args &args) {
    qlora_rms_norm_grad_args sizes = args;
    sizes.scratch = qlora_span{};
    return Sums(sizes).carver.bytes;
}

int32_t rms_norm(Context &context, const qlora_rms_norm_args &args) {
    DeviceScope scope(context);
    const View x = view_of(args.x);
    const auto kernel = args.flags & QLORA_FLAG_CENTERED ? rms_norm_kernel<true> : rms_norm_kernel<false>;
    return launch(context, stream_of(context, args), Grid{dim3(unsigned(x.rows)), row_threads(x)}, kernel, x, view_of(args.weight), view_of(args.bias), view_of(args.y),
                  args.rstd.handle ? address<float>(args.rstd) : nullptr, args.epsilon, (args.flags & QLORA_FLAG_ACCUMULATE) != 0);
}

// dweight and dbias first: dx may take the place of dy.
int32_t rms_norm_grad(Context &context, const qlora_rms_norm_grad_args &args) {
    DeviceScope scope(context);
    const cudaStream_t stream = stream_of(context, args);
    const View x = view_of(args.x), dy = view_of(args.dy);
    const float *rstd = address<const float>(args.rstd);
    const bool centered = args.flags & QLORA_FLAG_CENTERED, accumulate = args.flags & QLORA_FLAG_ACCUMULATE_GRADIENTS;
    const Grid rows = {dim3(unsigned(x.rows)), row_threads(x)};
    const Sums sums(args);
    if (args.dweight.handle) {
        if (centered) QLORA_TRY(launch(context, stream, rows, row_mean_kernel, x, sums.means));
        const Normed normed = {x, rstd, sums.means};
        QLORA_TRY(column_sums(context, stream, dy, &normed, address<float>(args.dweight), accumulate, sums.partial));
    }
    if (args.dbias.handle) QLORA_TRY(column_sums(context, stream, dy, nullptr, address<float>(args.dbias), accumulate, sums.partial));
    return launch(context, stream, rows, centered ? rms_norm_grad_kernel<true> : rms_norm_grad_kernel<false>, x, view_of(args.weight), dy, view_of(args.dx), rstd,
                  (args.flags & QLORA_FLAG_ACCUMULATE) != 0);
}

} // namespace cuda
} // namespace qlora
