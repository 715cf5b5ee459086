// y[i] (+)= scale * W[ids[i]], rounded in f32 after each operation.
#include "backends/ref/ref.h"

namespace qlora {
namespace ref {

uint64_t embedding_scratch(Context &, const qlora_embedding_args &) { return 0; }

int32_t embedding(Context &context, const qlora_embedding_args &args) {
    const Decode decode = decoder(args.weight->format);
    const int32_t *ids = address<const int32_t>(args.ids);
    for (uint64_t i = 0; i < args.y.rows; i++)
        if (ids[i] < 0 || uint64_t(ids[i]) >= args.weight->rows)
            return context.fail(QLORA_ERROR_ARGUMENT, "qlora_embedding_gather: ids[%llu] is %d; the weight has rows 0..%llu", (unsigned long long)i, ids[i],
                                (unsigned long long)args.weight->rows - 1);
    for (uint64_t i = 0; i < args.y.rows; i++)
        for (uint64_t c = 0; c < args.y.cols; c++) {
            const float value = decode(*args.weight, uint64_t(ids[i]) * args.weight->cols + c) * args.scale;
            set(args.y, i, c, args.flags & QLORA_FLAG_ACCUMULATE ? get(args.y, i, c) + value : value);
        }
    return QLORA_OK;
}

} // namespace ref
} // namespace qlora
