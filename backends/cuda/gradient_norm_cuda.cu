// norm = gradient_scale * sqrt(sum of squares), and each tensor's own: squares in double, so that neither size nor
// count can spoil the sum. Granules, then tensors, then the total, each in a fixed order.
#include "backends/cuda/tensor_list.cuh"

namespace qlora {
namespace cuda {

constexpr int threads = 256, square_threads = 128;
using List = TensorList<1>;

// A block per granule, eight elements in flight in each thread.
static __global__ void __launch_bounds__(square_threads) squares_kernel(const __grid_constant__ List list, double *partial) {
    __shared__ double shared[32];
    const uint32_t granule = blockIdx.x;
    const TensorEntry<1> &entry = list.entries[list.find(granule, 0)];
    const int64_t begin = int64_t(granule - entry.granules_before) * state_granule, count = entry.count;
    double sum = 0;
#pragma unroll
    for (int part = 0; part < int(state_granule) / square_threads / 8; part++) {
        float g[8];
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int64_t index = begin + ((part * 2 + half) * square_threads + threadIdx.x) * 4;
            if (entry.vector() && index + 4 <= count) load4(entry.gradient, entry.gradient_type(), index, g + half * 4);
            else
                for (int i = 0; i < 4; i++) g[half * 4 + i] = index + i < count ? load1(entry.gradient, entry.gradient_type(), index + i) : 0.0f;
        }
#pragma unroll
        for (int j = 0; j < 8; j++) sum += double(g[j]) * g[j];
    }
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0) partial[granule] = sum;
}

// One block per tensor of a list.
static __global__ void __launch_bounds__(threads) tensors_kernel(const __grid_constant__ List list, const double *partial, double *sums, float *norms, float gradient_scale) {
    __shared__ double shared[32];
    const TensorEntry<1> &entry = list.entries[blockIdx.x];
    const int64_t granules = (entry.count + state_granule - 1) / state_granule;
    double sum = 0;
    for (int64_t i = threadIdx.x; i < granules; i += threads) sum += partial[entry.granules_before + i];
    sum = block_sum(sum, shared);
    if (threadIdx.x) return;
    sums[entry.index] = sum;
    if (norms) norms[entry.index] = float(gradient_scale * sqrt(sum));
}

static __global__ void __launch_bounds__(threads) total_norm_kernel(const double *sums, int64_t count, float *norm, float gradient_scale) {
    __shared__ double shared[32];
    double sum = 0;
    for (int64_t i = threadIdx.x; i < count; i += threads) sum += sums[i];
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0) *norm = float(gradient_scale * sqrt(sum));
}

static Carver carve(const qlora_gradient_norm_args &args, Carver carver, double *&partial, double *&sums) {
    uint64_t granules = 0;
    for (uint32_t i = 0; i < args.parameter_count; i++) granules += granules_of(args.parameters[i].count);
    partial = carver.take<double>(granules);
    sums = carver.take<double>(args.parameter_count);
    return carver;
}

uint64_t gradient_norm_scratch(Context &, const qlora_gradient_norm_args &args) {
    double *partial, *sums;
    return carve(args, Carver(), partial, sums).bytes;
}

int32_t gradient_norm(Context &context, const qlora_gradient_norm_args &args) {
    DeviceScope scope(context);
    const cudaStream_t stream = stream_of(context, args);
    double *partial, *sums;
    carve(args, Carver(args.scratch), partial, sums);
    float *norms = args.norms.handle ? address<float>(args.norms) : nullptr;
    List list;
    list.clear();
    auto flush = [&]() -> int32_t {
        QLORA_TRY(launch(context, stream, Grid{dim3(list.granules), square_threads}, squares_kernel, list, partial));
        QLORA_TRY(launch(context, stream, Grid{dim3(list.count), threads}, tensors_kernel, list, partial, sums, norms, args.gradient_scale));
        partial += list.granules;
        list.clear();
        return QLORA_OK;
    };
    for (uint32_t i = 0; i < args.parameter_count; i++) {
        if (list.full(args.parameters[i].count)) QLORA_TRY(flush());
        Piece piece = {args.parameters[i], 0, i, 0};
        piece.parameter.value = piece.parameter.state1 = {}; // of no matter here
        list.add(piece);
    }
    QLORA_TRY(flush());
    return launch(context, stream, Grid{dim3(1), threads}, total_norm_kernel, sums, int64_t(args.parameter_count), address<float>(args.norm), args.gradient_scale);
}

} // namespace cuda
} // namespace qlora
