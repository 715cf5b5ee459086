// One AdamW step: a dispatch per tensor, none waiting for another.
#include "backends/vulkan/device_vulkan.h"
#include "backends/optimizer.h"

#include <cmath>

namespace qlora {
namespace vulkan {

uint64_t optimizer_step_scratch(Context &, const qlora_optimizer_args &) { return 0; }

int32_t optimizer_step(Context &context, const qlora_optimizer_args &args) {
    if (!plain_adamw(args)) return context.fail(QLORA_ERROR_UNSUPPORTED, "qlora_optimizer_step: this backend has AdamW over F32 tensors with F32 state alone");
    struct Push {
        PushHeader header;
        uint32_t count;
        float gradient_scale, max_norm, beta1, beta2, rest1, rest2, rate, decay, correction, epsilon;
    };
    const double correction1 = 1 - std::pow(double(args.beta1), double(args.step)), correction2 = std::sqrt(1 - std::pow(double(args.beta2), double(args.step)));
    const bool clip = args.norm.handle && args.max_norm > 0;
    Order order = Order::AFTER_PREVIOUS;
    for (uint32_t i = 0; i < args.parameter_count; i++) {
        const qlora_parameter &parameter = args.parameters[i];
        if (parameter.count == 0) continue;
        QLORA_TRY(check_elements(context, "qlora_optimizer_step", parameter.count));
        const double rate = double(args.learning_rate) * parameter.learning_rate_scale;
        const Push push = {{},
                           uint32_t(parameter.count),
                           args.gradient_scale,
                           args.max_norm,
                           args.beta1,
                           args.beta2,
                           float(1 - double(args.beta1)),
                           float(1 - double(args.beta2)),
                           float(rate / correction1),
                           float(rate * args.weight_decay),
                           float(correction2),
                           args.epsilon};
        const uint64_t bytes = parameter.count * 4;
        QLORA_TRY(enqueue(context, args.stream, Shader::optimizer_step, {clip},
                          {part(parameter.value, 0, bytes), part(parameter.gradient, 0, bytes), part(parameter.state1, 0, bytes), part(parameter.state2, 0, bytes), part(args.norm, 0, 4)},
                          push, groups_of(parameter.count, 256), order));
        order = Order::WITH_PREVIOUS;
    }
    return QLORA_OK;
}

} // namespace vulkan
} // namespace qlora
