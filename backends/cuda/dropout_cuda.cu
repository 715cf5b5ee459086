// y = x m, m = 0 or 1 / (1 - probability) by a random word for each place. Products and sums apart: their bits are promised.
#include "backends/cuda/blocks.cuh"
#include "backends/cuda/device.cuh"
#include "backends/dropout.h"

namespace qlora {
namespace cuda {

constexpr int threads = 256;

// The grid covers [rows][cols / 8].
static __global__ void __launch_bounds__(threads) dropout_kernel(View x, View y, DropoutRule rule, bool accumulate) {
    for (int64_t r = blockIdx.y; r < x.rows; r += gridDim.y)
        for (int64_t c = (int64_t(blockIdx.x) * threads + threadIdx.x) * 8; c < x.cols; c += int64_t(gridDim.x) * threads * 8) {
            float values[8], sums[8];
            load8(x, r, c, values);
            if (accumulate) load8(y, r, c, sums);
#pragma unroll
            for (int i = 0; i < 8; i++) {
                const uint64_t place = uint64_t(r * x.cols + c) + i;
                const bool drops = qlora_random(rule.seed_low, rule.seed_high, uint(place), uint(place >> 32)) < rule.threshold;
                values[i] = __fmul_rn(values[i], drops ? 0.0f : rule.factor);
                if (accumulate) values[i] = __fadd_rn(sums[i], values[i]);
            }
            store8(y, r, c, values);
        }
}

uint64_t dropout_scratch(Context &, const qlora_dropout_args &) { return 0; }

int32_t dropout(Context &context, const qlora_dropout_args &args) {
    DeviceScope scope(context);
    const uint64_t blocks = ceil_divide(args.x.cols, threads * 8);
    const Grid grid = {dim3(unsigned(blocks < 65535 ? blocks : 65535), unsigned(args.x.rows < 65535 ? args.x.rows : 65535)), threads};
    return launch(context, stream_of(context, args), grid, dropout_kernel, view_of(args.x), view_of(args.y), dropout_rule(args), (args.flags & QLORA_FLAG_ACCUMULATE) != 0);
}

} // namespace cuda
} // namespace qlora
