// The norm of a list of gradients: a dispatch per tensor, one for all tensors, one for their sum.
#include "backends/vulkan/device_vulkan.h"

namespace qlora {
namespace vulkan {
namespace {

constexpr uint64_t chunk = 16384;

struct Push {
    PushHeader header;
    uint32_t count, first_out;
    float scale;
};

uint64_t chunks_of(const qlora_gradient_norm_args &args) {
    uint64_t chunks = 0;
    for (uint32_t i = 0; i < args.parameter_count; i++) chunks += groups_of(args.parameters[i].count, chunk);
    return chunks;
}

} // namespace

// Chunk sums, tensor sums, and where each tensor's chunks begin.
uint64_t gradient_norm_scratch(Context &, const qlora_gradient_norm_args &args) {
    return align_scratch(chunks_of(args) * 4) + align_scratch(args.parameter_count * uint64_t(4)) + align_scratch((args.parameter_count + uint64_t(1)) * 4);
}

int32_t gradient_norm(Context &context, const qlora_gradient_norm_args &args) {
    const uint64_t tensors = args.parameter_count, chunks = chunks_of(args);
    QLORA_TRY(check_elements(context, "qlora_gradient_norm", chunks));
    const qlora_span norm = part(args.norm, 0, 4);
    const qlora_span chunk_sums = part(args.scratch, 0, chunks * 4), tensor_sums = part(args.scratch, align_scratch(chunks * 4), tensors * 4);
    const qlora_span starts = part(args.scratch, align_scratch(chunks * 4) + align_scratch(tensors * 4), (tensors + 1) * 4);
    uint32_t batch[256], held = 0; // of starts, on their way to the device
    uint64_t first = 0, sent = 0;
    Order order = Order::AFTER_PREVIOUS;
    for (uint64_t i = 0; i <= tensors; i++) {
        batch[held++] = uint32_t(first);
        if (held == 256 || i == tensors) {
            QLORA_TRY(enqueue_update(context, args.stream, part(starts, sent * 4, held * 4), batch, held * 4));
            sent += held;
            held = 0;
        }
        if (i < tensors) first += groups_of(args.parameters[i].count, chunk);
    }
    first = 0;
    for (uint64_t i = 0; i < tensors; i++) {
        const qlora_parameter &parameter = args.parameters[i];
        if (parameter.count == 0) continue;
        QLORA_TRY(check_elements(context, "qlora_gradient_norm", parameter.count));
        QLORA_TRY(enqueue(context, args.stream, Shader::gradient_norm, {0, uint32_t(chunk), 0, uint32_t(parameter.gradient_type)}, {part(parameter.gradient, 0, parameter.count * type_bytes(parameter.gradient_type)), chunk_sums},
                          Push{{}, uint32_t(parameter.count), uint32_t(first), 1}, groups_of(parameter.count, chunk), order));
        first += groups_of(parameter.count, chunk);
        order = Order::WITH_PREVIOUS;
    }
    QLORA_TRY(enqueue(context, args.stream, Shader::gradient_norm, {1, uint32_t(chunk), args.norms.handle != 0, uint32_t(QLORA_FORMAT_F32)},
                      {chunk_sums, tensor_sums, starts, part(args.norms, 0, tensors * 4)}, Push{{}, uint32_t(tensors), 0, args.gradient_scale}, tensors));
    return enqueue(context, args.stream, Shader::gradient_norm, {2, uint32_t(chunk), 0, uint32_t(QLORA_FORMAT_F32)}, {tensor_sums, norm}, Push{{}, uint32_t(tensors), 0, args.gradient_scale}, 1);
}

} // namespace vulkan
} // namespace qlora
