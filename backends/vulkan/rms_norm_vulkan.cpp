// RMSNorm and its gradients.
#include "backends/vulkan/sums_vulkan.h"

namespace qlora {
namespace vulkan {

uint64_t rms_norm_scratch(Context &, const qlora_rms_norm_args &) { return 0; }
// dweight may be absent when sizes are asked.
uint64_t rms_norm_grad_scratch(Context &, const qlora_rms_norm_grad_args &args) { return column_sum_scratch(args.x.rows, args.x.cols); }

int32_t rms_norm(Context &context, const qlora_rms_norm_args &args) {
    struct Push {
        PushHeader header;
        uint32_t rows, cols, x_stride, y_stride;
        float epsilon;
    };
    QLORA_TRY(check_elements(context, "qlora_rms_norm_forward", args.x.rows * args.x.stride));
    QLORA_TRY(check_elements(context, "qlora_rms_norm_forward", args.y.rows * args.y.stride));
    const Push push = {{}, uint32_t(args.x.rows), uint32_t(args.x.cols), uint32_t(args.x.stride), uint32_t(args.y.stride), args.epsilon};
    return enqueue(context, args.stream, Shader::rms_norm, {uint32_t(args.x.type), uint32_t(args.weight.type), args.rstd.handle != 0},
                   {exact(args.x), exact(args.weight), exact(args.y), part(args.rstd, 0, args.x.rows * 4)}, push, args.x.rows);
}

int32_t rms_norm_grad(Context &context, const qlora_rms_norm_grad_args &args) {
    struct Push {
        PushHeader header;
        uint32_t rows, cols, x_stride, dy_stride, dx_stride;
    };
    for (const qlora_tensor *tensor : {&args.x, &args.dy, &args.dx}) QLORA_TRY(check_elements(context, "qlora_rms_norm_grad", tensor->rows * tensor->stride));
    const qlora_span rstd = part(args.rstd, 0, args.x.rows * 4);
    // Before dx, which may lie where dy does.
    if (args.dweight.handle)
        QLORA_TRY(enqueue_column_sum(context, args.stream,
                                     {args.dy, args.x, rstd, part(args.dweight, 0, args.x.cols * 4), (args.flags & QLORA_FLAG_ACCUMULATE_GRADIENTS) != 0},
                                     args.scratch, Order::AFTER_PREVIOUS));
    const Push push = {{}, uint32_t(args.x.rows), uint32_t(args.x.cols), uint32_t(args.x.stride), uint32_t(args.dy.stride), uint32_t(args.dx.stride)};
    return enqueue(context, args.stream, Shader::rms_norm_grad, {uint32_t(args.x.type), uint32_t(args.weight.type), (args.flags & QLORA_FLAG_ACCUMULATE) != 0},
                   {exact(args.x), exact(args.weight), exact(args.dy), exact(args.dx), rstd}, push, args.x.rows);
}

} // namespace vulkan
} // namespace qlora
