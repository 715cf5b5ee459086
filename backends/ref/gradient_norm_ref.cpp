// norm = gradient_scale * sqrt(sum of squares), and each tensor's own.
#include "backends/ref/ref.h"

#include <cmath>

namespace qlora {
namespace ref {

uint64_t gradient_norm_scratch(Context &, const qlora_gradient_norm_args &) { return 0; }

int32_t gradient_norm(Context &, const qlora_gradient_norm_args &args) {
    double total = 0;
    for (uint32_t i = 0; i < args.parameter_count; i++) {
        double sum = 0;
        for (uint64_t j = 0; j < args.parameters[i].count; j++) {
            const double g = load(address<const void>(args.parameters[i].gradient), args.parameters[i].gradient_type, j);
            sum += g * g;
        }
        if (args.norms.handle) address<float>(args.norms)[i] = float(args.gradient_scale * std::sqrt(sum));
        total += sum;
    }
    *address<float>(args.norm) = float(args.gradient_scale * std::sqrt(total));
    return QLORA_OK;
}

} // namespace ref
} // namespace qlora
