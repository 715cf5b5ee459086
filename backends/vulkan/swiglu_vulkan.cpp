// The gated activation and its gradients, one shader.
#include "backends/vulkan/device_vulkan.h"

namespace qlora {
namespace vulkan {
namespace {

// dy and second are absent forward, up and second of an ungated activation.
int32_t enqueue_swiglu(Context &context, uint64_t stream, const char *entry, int32_t activation, const qlora_tensor &gate, const qlora_tensor &up, const qlora_tensor &dy, const qlora_tensor &first,
                       const qlora_tensor &second) {
    struct Push {
        PushHeader header;
        uint32_t rows, cols, gate_stride, up_stride, dy_stride, first_stride, second_stride;
    };
    for (const qlora_tensor *tensor : {&gate, &up, &dy, &first, &second}) QLORA_TRY(check_elements(context, entry, tensor->rows * tensor->stride));
    const Push push = {{},
                       uint32_t(gate.rows),
                       uint32_t(gate.cols),
                       uint32_t(gate.stride),
                       uint32_t(up.stride),
                       uint32_t(dy.stride),
                       uint32_t(first.stride),
                       uint32_t(second.stride)};
    return enqueue(context, stream, Shader::swiglu, {uint32_t(gate.type), dy.type != 0, uint32_t(activation), up.type != 0}, {exact(gate), exact(up), exact(dy), exact(first), exact(second)}, push,
                   groups_of(gate.rows * groups_of(gate.cols, 2), 256));
}

} // namespace

uint64_t swiglu_scratch(Context &, const qlora_swiglu_args &) { return 0; }
uint64_t swiglu_grad_scratch(Context &, const qlora_swiglu_grad_args &) { return 0; }

int32_t swiglu(Context &context, const qlora_swiglu_args &args) {
    return enqueue_swiglu(context, args.stream, "qlora_swiglu_forward", args.activation, args.gate, args.up, qlora_tensor{}, args.y, qlora_tensor{});
}

int32_t swiglu_grad(Context &context, const qlora_swiglu_grad_args &args) {
    return enqueue_swiglu(context, args.stream, "qlora_swiglu_grad", args.activation, args.gate, args.up, args.dy, args.dgate, args.dup);
}

} // namespace vulkan
} // namespace qlora
