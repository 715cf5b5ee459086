// y[i] = scale * W[ids[i]], or added to it; zeros where ids[i] is no row.
#include "backends/vulkan/weight_vulkan.h"

namespace qlora {
namespace vulkan {

uint64_t embedding_scratch(Context &, const qlora_embedding_args &) { return 0; }

int32_t embedding(Context &context, const qlora_embedding_args &args) {
    const Gather gather = {part(args.ids, 0, args.y.rows * 4), args.scale, (args.flags & QLORA_FLAG_ACCUMULATE) != 0};
    return enqueue_dequantize(context, args.stream, "qlora_embedding_gather", *args.weight, args.weight->cols, gather, args.y);
}

} // namespace vulkan
} // namespace qlora
