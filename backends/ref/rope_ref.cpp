// Pair i of every head turns by positions[t] * freq_scale * freq_base^(-2i/rotary_dim) / freq_factors[i].
#include "backends/ref/ref.h"

#include <cmath>

namespace qlora {
namespace ref {

uint64_t rope_scratch(Context &, const qlora_rope_args &) { return 0; }

int32_t rope(Context &, const qlora_rope_args &args) {
    const uint64_t heads = args.x.cols / args.head_dim, pairs = args.rotary_dim / 2;
    const bool adjacent = args.layout == QLORA_ROPE_ADJACENT;
    for (uint64_t t = 0; t < args.x.rows; t++)
        for (uint64_t i = 0; i < pairs; i++) {
            const double factor = args.freq_factors.handle ? address<const float>(args.freq_factors)[i] : 1;
            const double frequency = std::pow(double(args.freq_base), -2.0 * double(i) / args.rotary_dim) * args.freq_scale / factor;
            const double angle = address<const int32_t>(args.positions)[t] * frequency;
            const double cosine = std::cos(angle) * args.magnitude;
            const double sine = std::sin(angle) * args.magnitude * (args.flags & QLORA_FLAG_INVERSE ? -1 : 1);
            for (uint64_t h = 0; h < heads; h++) {
                const uint64_t first = h * args.head_dim + (adjacent ? 2 * i : i), second = adjacent ? first + 1 : first + pairs;
                const double x0 = get(args.x, t, first), x1 = get(args.x, t, second);
                set(args.x, t, first, x0 * cosine - x1 * sine);
                set(args.x, t, second, x0 * sine + x1 * cosine);
            }
        }
    return QLORA_OK;
}

} // namespace ref
} // namespace qlora
