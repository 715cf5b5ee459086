// Head and loss in chunks of tokens: logits into scratch, softmax there, and back through the head.
#include "backends/vulkan/product_vulkan.h"

namespace qlora {
namespace vulkan {
namespace {

constexpr uint64_t logit_bytes = uint64_t(64) << 20; // of a chunk that the backend chooses

uint64_t chunk_of(const State &state, const qlora_cross_entropy_args &args) {
    const uint64_t row_bytes = args.weight->rows * 4, reach = state.properties.limits.maxStorageBufferRange - scratch_alignment;
    uint64_t chunk = args.chunk_rows ? args.chunk_rows : (logit_bytes + row_bytes - 1) / row_bytes;
    if (chunk > reach / row_bytes) chunk = reach / row_bytes;
    if (chunk > 128) chunk -= chunk % 128; // whole tiles of the products
    if (chunk == 0) chunk = 1;
    return chunk < args.x.rows ? chunk : args.x.rows;
}

} // namespace

uint64_t cross_entropy_scratch(Context &context, const qlora_cross_entropy_args &args) {
    return align_scratch(chunk_of(state_of(context), args) * args.weight->rows * 4);
}

int32_t cross_entropy(Context &context, const qlora_cross_entropy_args &args) {
    struct Push {
        PushHeader header;
        uint32_t rows, vocabulary, stride, first;
        float grad_scale, soft_cap, inverse_cap;
    };
    constexpr const char *entry = "qlora_cross_entropy_loss";
    const uint64_t vocabulary = args.weight->rows, chunk = chunk_of(state_of(context), args);
    const float inverse_cap = args.soft_cap != 0 ? 1 / args.soft_cap : 0;
    const qlora_span targets = part(args.targets, 0, args.x.rows * 4), losses = part(args.losses, 0, args.x.rows * 4);
    for (uint64_t first = 0; first < args.x.rows; first += chunk) {
        const uint64_t rows = args.x.rows - first < chunk ? args.x.rows - first : chunk;
        const qlora_tensor logits = float_tensor(part(args.scratch, 0, rows * vocabulary * 4), rows, vocabulary);
        Product forward = product_of(*args.weight, false, args.x, logits, args.compute_type);
        forward.x_first = first;
        forward.rows = rows;
        forward.bias = args.bias;
        QLORA_TRY(enqueue_product(context, args.stream, entry, forward));
        QLORA_TRY(enqueue(context, args.stream, Shader::cross_entropy, {args.dx.type != 0, args.soft_cap != 0}, {logits.data, targets, losses},
                          Push{{}, uint32_t(rows), uint32_t(vocabulary), uint32_t(vocabulary), uint32_t(first), args.grad_scale, args.soft_cap, inverse_cap}, rows));
        if (!args.dx.type) continue;
        Product backward = product_of(*args.weight, true, logits, args.dx, args.compute_type);
        backward.y_first = first;
        backward.rows = rows;
        QLORA_TRY(enqueue_product(context, args.stream, entry, backward));
    }
    return QLORA_OK;
}

} // namespace vulkan
} // namespace qlora
