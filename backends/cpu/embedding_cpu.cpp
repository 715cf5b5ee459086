// y[i] = W[ids[i]].
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
    const Planes planes = planes_of(weight);
    constexpr uint64_t unit_rows = 8;
    parallel(context, divide_up(args.y.rows, unit_rows), [&](uint64_t unit, uint32_t) {
        for (uint64_t i = unit * unit_rows; i < least((unit + 1) * unit_rows, args.y.rows); i++)
            decode_row(kernels_of(context), planes, weight, uint64_t(ids[i]) * weight.cols, weight.cols, args.y.type, element(args.y, i, 0));
    });
    return QLORA_OK;
}

} // namespace cpu
} // namespace qlora
