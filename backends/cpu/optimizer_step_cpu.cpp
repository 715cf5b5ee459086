// AdamW over a list of tensors in one pass, by fixed chunks.
#include "backends/cpu/cpu.h"
#include "backends/optimizer.h"

#include <cmath>

namespace qlora {
namespace cpu {

namespace {
constexpr uint64_t chunk = 1 << 14;
}

uint64_t optimizer_step_scratch(Context &, const qlora_optimizer_args &args) { return align_scratch((uint64_t(args.parameter_count) + 1) * 8); }

int32_t optimizer_step(Context &context, const qlora_optimizer_args &args) {
    if (!plain_adamw(args)) return context.fail(QLORA_ERROR_UNSUPPORTED, "qlora_optimizer_step: this backend has AdamW over F32 tensors with F32 state alone");
    double factor = args.gradient_scale;
    if (args.norm.handle && args.max_norm > 0) {
        const double clip = double(args.max_norm) / (double(*address<const float>(args.norm)) + 1e-6);
        if (clip < 1) factor *= clip;
    }
    const double correction1 = 1 - std::pow(double(args.beta1), double(args.step)), correction2 = std::sqrt(1 - std::pow(double(args.beta2), double(args.step)));
    uint64_t *first = address<uint64_t>(args.scratch);
    chunk_parameters(args.parameters, args.parameter_count, chunk, first);
    const auto adamw = kernels_of(context).adamw;
    parallel(context, first[args.parameter_count], [&](uint64_t unit, uint32_t) {
        const uint32_t p = parameter_of_chunk(first, args.parameter_count, unit);
        const qlora_parameter &parameter = args.parameters[p];
        const double rate = double(args.learning_rate) * double(parameter.learning_rate_scale);
        const AdamW step = {float(factor), float(1 - rate * double(args.weight_decay)), args.beta1, args.beta2, float(rate / correction1), float(1 / correction2), args.epsilon};
        const uint64_t begin = (unit - first[p]) * chunk;
        adamw(step, least(chunk, parameter.count - begin), address<const float>(parameter.gradient) + begin, address<float>(parameter.value) + begin,
              address<float>(parameter.state1) + begin, address<float>(parameter.state2) + begin);
    });
    return QLORA_OK;
}

} // namespace cpu
} // namespace qlora
