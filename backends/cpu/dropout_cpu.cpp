// y = x m, m = 0 or 1 / (1 - probability), by pieces of rows.
#include "backends/cpu/cpu.h"
#include "backends/dropout.h"

namespace qlora {
namespace cpu {

namespace {
constexpr uint64_t piece = 1024; // columns at a time, whose factors are made first
constexpr uint64_t unit = 1 << 14; // elements per task about
} // namespace

uint64_t dropout_scratch(Context &, const qlora_dropout_args &) { return 0; }

int32_t dropout(Context &context, const qlora_dropout_args &args) {
    const DropoutRule rule = dropout_rule(args);
    const Kernels &kernels = kernels_of(context);
    const auto kernel = kernels.dropout[type_index(args.x.type)];
    const bool accumulate = args.flags & QLORA_FLAG_ACCUMULATE;
    const uint64_t pieces = divide_up(args.x.cols, piece), count = args.x.rows * pieces, per_task = most(1, unit / least(piece, args.x.cols));
    parallel(context, divide_up(count, per_task), [&](uint64_t task, uint32_t) {
        float factors[piece];
        for (uint64_t i = task * per_task; i < least((task + 1) * per_task, count); i++) {
            const uint64_t r = i / pieces, c = i % pieces * piece, width = least(piece, args.x.cols - c);
            kernels.dropout_factors(rule.seed_low, rule.seed_high, r * args.x.cols + c, rule.threshold, rule.factor, width, factors);
            kernel(element(args.x, r, c), factors, element(args.y, r, c), accumulate, width);
        }
    });
    return QLORA_OK;
}

} // namespace cpu
} // namespace qlora
