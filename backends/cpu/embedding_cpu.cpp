// y[i] (+)= scale W[ids[i]], rounded in f32 after each operation.
#include "backends/cpu/cpu.h"

namespace qlora {
namespace cpu {

uint64_t embedding_scratch(Context &, const qlora_embedding_args &) { return 0; }

int32_t embedding(Context &context, const qlora_embedding_args &args) {
    const qlora_weight &weight = *args.weight;
    const int32_t *ids = address<const int32_t>(args.ids);
    for (uint64_t i = 0; i < args.y.rows; i++)
        if (ids[i] < 0 || uint64_t(ids[i]) >= weight.rows)
            return context.fail(QLORA_ERROR_ARGUMENT, "qlora_embedding_gather: ids[%llu] is %d; the weight has rows 0..%llu", (unsigned long long)i, ids[i],
                                (unsigned long long)weight.rows - 1);
    const Kernels &kernels = kernels_of(context);
    const Planes planes = planes_of(weight);
    const bool accumulate = (args.flags & QLORA_FLAG_ACCUMULATE) != 0, plain = args.scale == 1 && !accumulate;
    const int type = type_index(args.y.type);
    constexpr uint64_t unit_rows = 8, piece = 1024; // piece: decoded at a time before it is scaled
    parallel(context, divide_up(args.y.rows, unit_rows), [&](uint64_t unit, uint32_t) {
        for (uint64_t i = unit * unit_rows; i < least((unit + 1) * unit_rows, args.y.rows); i++) {
            const uint64_t first = uint64_t(ids[i]) * weight.cols;
            if (plain) {
                decode_row(kernels, planes, weight, first, weight.cols, args.y.type, element(args.y, i, 0));
                continue;
            }
            float values[piece];
            for (uint64_t c = 0; c < weight.cols; c += piece) {
                const uint64_t count = least(piece, weight.cols - c);
                decode_row(kernels, planes, weight, first + c, count, QLORA_FORMAT_F32, values);
                kernels.finish[type](values, args.scale, nullptr, accumulate, count, element(args.y, i, c));
            }
        }
    });
    return QLORA_OK;
}

} // namespace cpu
} // namespace qlora
