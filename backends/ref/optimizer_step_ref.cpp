// AdamW, element by element in double.
#include "backends/ref/ref.h"

#include <cmath>

namespace qlora {
namespace ref {

uint64_t optimizer_step_scratch(Context &, const qlora_optimizer_args &) { return 0; }

int32_t optimizer_step(Context &, const qlora_optimizer_args &args) {
    double clip = args.gradient_scale;
    if (args.norm.handle && args.max_norm > 0) clip *= std::fmin(1.0, double(args.max_norm) / (double(*address<const float>(args.norm)) + 1e-6));
    const double correction1 = 1 - std::pow(double(args.beta1), double(args.step)), correction2 = std::sqrt(1 - std::pow(double(args.beta2), double(args.step)));
    for (uint32_t i = 0; i < args.parameter_count; i++) {
        const qlora_parameter &parameter = args.parameters[i];
        const double rate = double(args.learning_rate) * parameter.learning_rate_scale;
        float *p = address<float>(parameter.value), *m = address<float>(parameter.state1), *v = address<float>(parameter.state2);
        for (uint64_t j = 0; j < parameter.count; j++) {
            const double g = address<const float>(parameter.gradient)[j] * clip;
            const double decayed = p[j] - rate * args.weight_decay * p[j];
            const double m1 = args.beta1 * double(m[j]) + (1 - double(args.beta1)) * g, v1 = args.beta2 * double(v[j]) + (1 - double(args.beta2)) * g * g;
            m[j] = float(m1);
            v[j] = float(v1);
            p[j] = float(decayed - rate / correction1 * m1 / (std::sqrt(v1) / correction2 + args.epsilon));
        }
    }
    return QLORA_OK;
}

} // namespace ref
} // namespace qlora
