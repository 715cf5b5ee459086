// AdamW over a list of tensors: one launch per batch, one block per 8192 elements.
#include "backends/cuda/tensor_list.cuh"
#include "backends/optimizer.h"

#include <cmath>

namespace qlora {
namespace cuda {

constexpr int threads = 256;

struct Adam {
    const float *norm; // null: no clipping
    float max_norm, gradient_scale, rate, decay, beta1, rest1, beta2, rest2, correction1, correction2, epsilon;
};

static __device__ __forceinline__ void step(const Adam &adam, float rate, float g, float &p, float &m, float &v) {
    m = adam.beta1 * m + adam.rest1 * g;
    v = adam.beta2 * v + adam.rest2 * g * g;
    p = p - rate * adam.decay * p - rate / adam.correction1 * (m / (sqrtf(v) / adam.correction2 + adam.epsilon));
}

static __global__ void __launch_bounds__(threads) adam_kernel(const __grid_constant__ TensorList list, const __grid_constant__ Adam adam) {
    int64_t begin;
    const ListEntry &entry = list.entries[list.find(blockIdx.x, begin)];
    const int64_t end = begin + list_chunk < entry.count ? begin + list_chunk : entry.count;
    const float clip = adam.norm ? adam.gradient_scale * fminf(1.0f, adam.max_norm / (*adam.norm + 1e-6f)) : adam.gradient_scale;
    const float rate = adam.rate * entry.rate_scale;
    float *const value = entry.value, *const state1 = entry.state1, *const state2 = entry.state2;
    const float *const gradient = entry.gradient;
    const uint64_t places = reinterpret_cast<uint64_t>(value) | reinterpret_cast<uint64_t>(state1) | reinterpret_cast<uint64_t>(state2) | reinterpret_cast<uint64_t>(gradient);
    int64_t i = begin + threadIdx.x * 4;
    if (places % 16 == 0)
        for (; i + 4 <= end; i += threads * 4) {
            const float4 g = *reinterpret_cast<const float4 *>(gradient + i);
            float4 p = *reinterpret_cast<float4 *>(value + i), m = *reinterpret_cast<float4 *>(state1 + i), v = *reinterpret_cast<float4 *>(state2 + i);
            step(adam, rate, clip * g.x, p.x, m.x, v.x);
            step(adam, rate, clip * g.y, p.y, m.y, v.y);
            step(adam, rate, clip * g.z, p.z, m.z, v.z);
            step(adam, rate, clip * g.w, p.w, m.w, v.w);
            *reinterpret_cast<float4 *>(value + i) = p;
            *reinterpret_cast<float4 *>(state1 + i) = m;
            *reinterpret_cast<float4 *>(state2 + i) = v;
        }
    for (; i < end; i += threads * 4)
        for (int64_t j = i; j < i + 4 && j < end; j++) step(adam, rate, clip * gradient[j], value[j], state1[j], state2[j]);
}

uint64_t optimizer_step_scratch(Context &, const qlora_optimizer_args &) { return 0; }

int32_t optimizer_step(Context &context, const qlora_optimizer_args &args) {
    if (!plain_adamw(args)) return context.fail(QLORA_ERROR_UNSUPPORTED, "qlora_optimizer_step: this backend has AdamW over F32 tensors with F32 state alone");
    DeviceScope scope(context);
    const cudaStream_t stream = stream_of(context, args);
    const double beta1 = args.beta1, beta2 = args.beta2, steps = double(args.step);
    const Adam adam = {args.norm.handle && args.max_norm > 0 ? address<const float>(args.norm) : nullptr, args.max_norm, args.gradient_scale, args.learning_rate, args.weight_decay,
                       args.beta1, float(1 - beta1), args.beta2, float(1 - beta2), float(1 - std::pow(beta1, steps)), float(std::sqrt(1 - std::pow(beta2, steps))), args.epsilon};
    return each_batch(args.parameters, args.parameter_count, [&](const TensorList &list, uint32_t) -> int32_t {
        return launch(context, stream, Grid{dim3(unsigned(list.blocks)), threads}, adam_kernel, list, adam);
    });
}

} // namespace cuda
} // namespace qlora
