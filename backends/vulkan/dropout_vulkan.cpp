// Dropout, one shader.
#include "backends/dropout.h"
#include "backends/vulkan/device_vulkan.h"

#include <cstring>

namespace qlora {
namespace vulkan {

uint64_t dropout_scratch(Context &, const qlora_dropout_args &) { return 0; }

int32_t dropout(Context &context, const qlora_dropout_args &args) {
    struct Push {
        PushHeader header;
        uint32_t rows, cols, x_stride, y_stride, seed_low, seed_high, threshold, factor;
    };
    for (const qlora_tensor *tensor : {&args.x, &args.y}) QLORA_TRY(check_elements(context, "qlora_dropout_apply", tensor->rows * tensor->stride));
    const DropoutRule rule = dropout_rule(args);
    Push push = {{}, uint32_t(args.x.rows), uint32_t(args.x.cols), uint32_t(args.x.stride), uint32_t(args.y.stride), rule.seed_low, rule.seed_high, rule.threshold, 0};
    memcpy(&push.factor, &rule.factor, sizeof push.factor);
    return enqueue(context, args.stream, Shader::dropout, {uint32_t(args.x.type), (args.flags & QLORA_FLAG_ACCUMULATE) != 0}, {exact(args.x), exact(args.y)}, push,
                   groups_of(args.x.rows * groups_of(args.x.cols, 2), 256));
}

} // namespace vulkan
} // namespace qlora
