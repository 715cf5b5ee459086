// RMSNorm and LayerNorm, and their gradients.
#include "backends/vulkan/sums_vulkan.h"

namespace qlora {
namespace vulkan {
namespace {

struct NormPush {
    PushHeader header;
    uint32_t rows, cols, x_stride, y_stride;
    float epsilon;
};

// Where the means of rows lie in scratch: behind the partial sums.
uint64_t centers_bytes(const qlora_rms_norm_grad_args &args) { return args.flags & QLORA_FLAG_CENTERED ? args.x.rows * 8 : 0; }

} // namespace

uint64_t rms_norm_scratch(Context &, const qlora_rms_norm_args &) { return 0; }
// dweight and dbias may be absent when sizes are asked.
uint64_t rms_norm_grad_scratch(Context &, const qlora_rms_norm_grad_args &args) {
    return column_sum_scratch(args.x.rows, args.x.cols) + align_scratch(centers_bytes(args));
}

int32_t rms_norm(Context &context, const qlora_rms_norm_args &args) {
    QLORA_TRY(check_elements(context, "qlora_rms_norm_forward", args.x.rows * args.x.stride));
    QLORA_TRY(check_elements(context, "qlora_rms_norm_forward", args.y.rows * args.y.stride));
    const NormPush push = {{}, uint32_t(args.x.rows), uint32_t(args.x.cols), uint32_t(args.x.stride), uint32_t(args.y.stride), args.epsilon};
    return enqueue(context, args.stream, Shader::rms_norm,
                   {uint32_t(args.x.type), uint32_t(args.weight.type), args.rstd.handle != 0, (args.flags & QLORA_FLAG_CENTERED) != 0, uint32_t(args.bias.type),
                    (args.flags & QLORA_FLAG_ACCUMULATE) != 0, false},
                   {exact(args.x), exact(args.weight), exact(args.y), part(args.rstd, 0, args.x.rows * 4), exact(args.bias)}, push, args.x.rows);
}

int32_t rms_norm_grad(Context &context, const qlora_rms_norm_grad_args &args) {
    struct Push {
        PushHeader header;
        uint32_t rows, cols, x_stride, dy_stride, dx_stride;
    };
    for (const qlora_tensor *tensor : {&args.x, &args.dy, &args.dx}) QLORA_TRY(check_elements(context, "qlora_rms_norm_grad", tensor->rows * tensor->stride));
    const bool is_centered = args.flags & QLORA_FLAG_CENTERED, accumulate = args.flags & QLORA_FLAG_ACCUMULATE_GRADIENTS;
    const qlora_span rstd = part(args.rstd, 0, args.x.rows * 4);
    const uint64_t sums_bytes = column_sum_scratch(args.x.rows, args.x.cols);
    const qlora_span partial = part(args.scratch, 0, sums_bytes), centers = is_centered ? part(args.scratch, sums_bytes, centers_bytes(args)) : qlora_span{};
    const uint32_t type = uint32_t(args.x.type);
    if (is_centered)
        QLORA_TRY(enqueue(context, args.stream, Shader::rms_norm, {type, type, false, true, 0u, false, true}, {exact(args.x), qlora_span{}, qlora_span{}, qlora_span{}, qlora_span{}, centers},
                          NormPush{{}, uint32_t(args.x.rows), uint32_t(args.x.cols), uint32_t(args.x.stride), 0, 0}, args.x.rows));
    // Before dx, which may lie where dy does; one after the other, since both use the partial sums.
    if (args.dweight.handle)
        QLORA_TRY(enqueue_column_sum(context, args.stream, {args.dy, args.x, rstd, part(args.dweight, 0, args.x.cols * 4), accumulate, centers}, partial, Order::AFTER_PREVIOUS));
    if (args.dbias.handle)
        QLORA_TRY(enqueue_column_sum(context, args.stream, {args.dy, qlora_tensor{}, qlora_span{}, part(args.dbias, 0, args.x.cols * 4), accumulate}, partial, Order::AFTER_PREVIOUS));
    const Push push = {{}, uint32_t(args.x.rows), uint32_t(args.x.cols), uint32_t(args.x.stride), uint32_t(args.dy.stride), uint32_t(args.dx.stride)};
    return enqueue(context, args.stream, Shader::rms_norm_grad, {type, uint32_t(args.weight.type), (args.flags & QLORA_FLAG_ACCUMULATE) != 0, is_centered},
                   {exact(args.x), exact(args.weight), exact(args.dy), exact(args.dx), rstd, centers}, push, args.x.rows);
}

} // namespace vulkan
} // namespace qlora
