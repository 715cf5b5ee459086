// y = x m, m = 0 or 1 / (1 - probability) by a random word for each place. In f32, whose product and sum are promised to the bit.
#include "backends/dropout.h"
#include "backends/ref/ref.h"

namespace qlora {
namespace ref {

uint64_t dropout_scratch(Context &, const qlora_dropout_args &) { return 0; }

int32_t dropout(Context &, const qlora_dropout_args &args) {
    const DropoutRule rule = dropout_rule(args);
    for (uint64_t r = 0; r < args.x.rows; r++)
        for (uint64_t c = 0; c < args.x.cols; c++) {
            const uint64_t place = r * args.x.cols + c;
            const bool drops = qlora_random(rule.seed_low, rule.seed_high, uint32_t(place), uint32_t(place >> 32)) < rule.threshold;
            const float product = float(get(args.x, r, c)) * (drops ? 0 : rule.factor);
            set(args.y, r, c, args.flags & QLORA_FLAG_ACCUMULATE ? float(get(args.y, r, c)) + product : product);
        }
    return QLORA_OK;
}

} // namespace ref
} // namespace qlora
