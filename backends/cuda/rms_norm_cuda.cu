// y = x * rstd * weight + bias, rstd = 1 / sqrt(mean(x^2) + epsilon); with g = dy * weight:
// dx = rstd * (g - x * rstd^2 * mean(g x)),  dweight = column sums of dy * x * rstd,  dbias = column sums of dy. Centered, x is
// x minus its row's mean, and dx loses its mean, which is that of rstd * g. One block per row. A thread keeps what it reads of a
// row of up to most_threads * kept_groups * 8 columns; what is read of a longer one again comes from the cache.
#include "backends/cuda/reduce.cuh"

namespace qlora {
namespace cuda {

constexpr int most_threads = 512, kept_groups = 2;

// Calls visit(group, column) for the groups of eight columns of a thread, which are kept_groups at most with KEPT; else each is
// group 0.
template <bool KEPT, class Visit> static __device__ __forceinline__ void each_group(int64_t cols, const Visit &visit) {
    if constexpr (KEPT) {
#pragma unroll
        for (int group = 0; group < kept_groups; group++) {
            const int64_t c = int64_t(threadIdx.x + group * blockDim.x) * 8;
            if (c < cols) visit(group, c);
        }
    } else {
        for (int64_t c = threadIdx.x * 8; c < cols; c += blockDim.x * 8) visit(0, c);
    }
}

// The mean of a row, for all threads of its block, and what of it is kept. shared has room for 32 values.
template <bool KEPT> static __device__ __forceinline__ float row_mean(const View &x, int64_t r, float *shared, float (&values)[kept_groups][8]) {
    float sum = 0;
    each_group<KEPT>(x.cols, [&](int group, int64_t c) {
        load8(x, r, c, values[group]);
#pragma unroll
        for (int i = 0; i < 8; i++) sum += values[group][i];
    });
    return block_sum(sum, shared) / float(x.cols);
}

template <bool CENTERED, bool KEPT>
static __global__ void __launch_bounds__(most_threads) rms_norm_kernel(View x, View weight, View bias, View y, float *rstd, float epsilon, bool accumulate) {
    __shared__ float shared[32];
    wait_for_previous();
    const int64_t r = blockIdx.x;
    float values[kept_groups][8], weights[kept_groups][8], sum = 0;
    const float mean = CENTERED ? row_mean<KEPT>(x, r, shared, values) : 0.0f;
    each_group<KEPT>(x.cols, [&](int group, int64_t c) {
        if (!KEPT || !CENTERED) load8(x, r, c, values[group]);
        if (KEPT) load8(weight, 0, c, weights[group]);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const float value = !CENTERED ? values[group][i] : c + i < x.cols ? values[group][i] - mean : 0.0f;
            sum += value * value;
        }
    });
    sum = block_sum(sum, shared);
    const float scale = 1 / sqrtf(sum / float(x.cols) + epsilon);
    if (rstd && threadIdx.x == 0) rstd[r] = scale;
    each_group<KEPT>(x.cols, [&](int group, int64_t c) {
        float out[8], added[8];
        if (!KEPT) load8(x, r, c, values[group]);
        if (!KEPT) load8(weight, 0, c, weights[group]);
#pragma unroll
        for (int i = 0; i < 8; i++) out[i] = CENTERED ? (values[group][i] - mean) * scale * weights[group][i] : values[group][i] * (scale * weights[group][i]);
        if (bias.data) {
            load8(bias, 0, c, added);
#pragma unroll
            for (int i = 0; i < 8; i++) out[i] += added[i];
        }
        if (accumulate) {
            load8(y, r, c, added);
#pragma unroll
            for (int i = 0; i < 8; i++) out[i] += added[i];
        }
        store8(y, r, c, out);
    });
}

template <bool CENTERED, bool KEPT>
static __global__ void __launch_bounds__(most_threads) rms_norm_grad_kernel(View x, View weight, View dy, View dx, const float *rstd, bool accumulate) {
    __shared__ float shared[32];
    wait_for_previous();
    const int64_t r = blockIdx.x;
    float values[kept_groups][8], slopes[kept_groups][8], sum = 0, sum_g = 0; // slopes: g, 0 past the end of a row
    const float scale = rstd[r], mean = CENTERED ? row_mean<KEPT>(x, r, shared, values) : 0.0f;
    const auto load = [&](int group, int64_t c) {
        float weights[8];
        if (!KEPT || !CENTERED) load8(x, r, c, values[group]);
        load8(weight, 0, c, weights);
        load8(dy, r, c, slopes[group]);
#pragma unroll
        for (int i = 0; i < 8; i++) slopes[group][i] *= weights[i];
    };
    each_group<KEPT>(x.cols, [&](int group, int64_t c) {
        load(group, c);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            sum += slopes[group][i] * (CENTERED ? values[group][i] - mean : values[group][i]);
            if (CENTERED) sum_g += slopes[group][i];
        }
    });
    sum = block_sum(sum, shared);
    const float slope = sum / float(x.cols) * scale * scale, mean_g = CENTERED ? block_sum(sum_g, shared) / float(x.cols) : 0.0f;
    each_group<KEPT>(x.cols, [&](int group, int64_t c) {
        float out[8], old[8] = {};
        if (!KEPT) load(group, c);
        if (accumulate) load8(dx, r, c, old);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            if (CENTERED) out[i] = scale * (slopes[group][i] - mean_g - (values[group][i] - mean) * slope) + old[i];
            else out[i] = scale * (slopes[group][i] - values[group][i] * slope) + old[i];
        }
        store8(dx, r, c, out);
    });
}

static __global__ void __launch_bounds__(most_threads) row_mean_kernel(View x, float *means) {
    __shared__ float shared[32];
    float values[kept_groups][8];
    const float mean = row_mean<false>(x, blockIdx.x, shared, values);
    if (threadIdx.x == 0) means[blockIdx.x] = mean;
}

// One block per row; kept: whether its threads keep the row.
static Grid row_grid(const View &x, bool *kept) {
    const uint64_t wanted = ceil_divide(uint64_t(x.cols), kept_groups * 8 * 32) * 32;
    *kept = wanted <= most_threads;
    return Grid{dim3(unsigned(x.rows)), unsigned(*kept ? wanted : most_threads)};
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
    bool kept;
    const Grid grid = row_grid(x, &kept);
    const auto kernel = args.flags & QLORA_FLAG_CENTERED ? kept ? rms_norm_kernel<true, true> : rms_norm_kernel<true, false> : kept ? rms_norm_kernel<false, true> : rms_norm_kernel<false, false>;
    return launch_early(context, stream_of(context, args), grid, kernel, x, view_of(args.weight), view_of(args.bias), view_of(args.y),
                  args.rstd.handle ? address<float>(args.rstd) : nullptr, args.epsilon, (args.flags & QLORA_FLAG_ACCUMULATE) != 0);
}

// dweight and dbias first: dx may take the place of dy.
int32_t rms_norm_grad(Context &context, const qlora_rms_norm_grad_args &args) {
    DeviceScope scope(context);
    const cudaStream_t stream = stream_of(context, args);
    const View x = view_of(args.x), dy = view_of(args.dy);
    const float *rstd = address<const float>(args.rstd);
    const bool centered = args.flags & QLORA_FLAG_CENTERED, accumulate = args.flags & QLORA_FLAG_ACCUMULATE_GRADIENTS;
    bool kept;
    const Grid rows = row_grid(x, &kept);
    const Sums sums(args);
    if (args.dweight.handle) {
        if (centered) QLORA_TRY(launch(context, stream, rows, row_mean_kernel, x, sums.means));
        const Normed normed = {x, rstd, sums.means};
        QLORA_TRY(column_sums(context, stream, dy, &normed, address<float>(args.dweight), accumulate, sums.partial));
    }
    if (args.dbias.handle) QLORA_TRY(column_sums(context, stream, dy, nullptr, address<float>(args.dbias), accumulate, sums.partial));
    const auto kernel = centered ? kept ? rms_norm_grad_kernel<true, true> : rms_norm_grad_kernel<true, false> : kept ? rms_norm_grad_kernel<false, true> : rms_norm_grad_kernel<false, false>;
    return launch_early(context, stream, rows, kernel, x, view_of(args.weight), dy, view_of(args.dx), rstd,
                  (args.flags & QLORA_FLAG_ACCUMULATE) != 0);
}

} // namespace cuda
} // namespace qlora
