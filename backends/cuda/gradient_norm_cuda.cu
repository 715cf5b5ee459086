// norm = gradient_scale * sqrt(sum of squares), and each tensor's own: squares in double, so that neither size nor
// count can spoil the sum. Blocks of elements, then tensors, then the total, each in a fixed order.
#include "backends/cuda/tensor_list.cuh"
#include "backends/optimizer.h"

namespace qlora {
namespace cuda {

constexpr int threads = 256;

static __global__ void __launch_bounds__(threads) squares_kernel(const __grid_constant__ TensorList list, double *partial) {
    __shared__ double shared[32];
    int64_t begin;
    const ListEntry &entry = list.entries[list.find(blockIdx.x, begin)];
    const int64_t end = begin + list_chunk < entry.count ? begin + list_chunk : entry.count;
    double sum = 0;
    for (int64_t i = begin + threadIdx.x; i < end; i += threads) {
        const double g = entry.gradient[i];
        sum += g * g;
    }
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0) partial[list.first_block + blockIdx.x] = sum;
}

// One block per tensor of a batch.
static __global__ void __launch_bounds__(threads) tensors_kernel(const __grid_constant__ TensorList list, const double *partial, double *sums, float *norms, float gradient_scale) {
    __shared__ double shared[32];
    const ListEntry &entry = list.entries[blockIdx.x];
    const int64_t blocks = (entry.count + list_chunk - 1) / list_chunk;
    double sum = 0;
    for (int64_t i = threadIdx.x; i < blocks; i += threads) sum += partial[list.first_block + entry.blocks_before + i];
    sum = block_sum(sum, shared);
    if (threadIdx.x) return;
    sums[blockIdx.x] = sum;
    if (norms) norms[blockIdx.x] = float(gradient_scale * sqrt(sum));
}

static __global__ void __launch_bounds__(threads) total_norm_kernel(const double *sums, int64_t count, float *norm, float gradient_scale) {
    __shared__ double shared[32];
    double sum = 0;
    for (int64_t i = threadIdx.x; i < count; i += threads) sum += sums[i];
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0) *norm = float(gradient_scale * sqrt(sum));
}

static Carver carve(const qlora_gradient_norm_args &args, Carver carver, double *&partial, double *&sums) {
    uint64_t blocks = 0;
    for (uint32_t i = 0; i < args.parameter_count; i++) blocks += list_blocks(args.parameters[i].count);
    partial = carver.take<double>(blocks);
    sums = carver.take<double>(args.parameter_count);
    return carver;
}

uint64_t gradient_norm_scratch(Context &, const qlora_gradient_norm_args &args) {
    double *partial, *sums;
    return carve(args, Carver(), partial, sums).bytes;
}

int32_t gradient_norm(Context &context, const qlora_gradient_norm_args &args) {
    if (!plain_gradients(args)) return context.fail(QLORA_ERROR_UNSUPPORTED, "qlora_gradient_norm: this backend takes F32 gradients alone");
    DeviceScope scope(context);
    const cudaStream_t stream = stream_of(context, args);
    double *partial, *sums;
    carve(args, Carver(args.scratch), partial, sums);
    float *norms = args.norms.handle ? address<float>(args.norms) : nullptr;
    QLORA_TRY(each_batch(args.parameters, args.parameter_count, [&](const TensorList &list, uint32_t first) -> int32_t {
        QLORA_TRY(launch(context, stream, Grid{dim3(unsigned(list.blocks)), threads}, squares_kernel, list, partial));
        return launch(context, stream, Grid{dim3(unsigned(list.count)), threads}, tensors_kernel, list, partial, sums + first, norms ? norms + first : nullptr, args.gradient_scale);
    }));
    return launch(context, stream, Grid{dim3(1), threads}, total_norm_kernel, sums, int64_t(args.parameter_count), address<float>(args.norm), args.gradient_scale);
}

} // namespace cuda
} // namespace qlora
