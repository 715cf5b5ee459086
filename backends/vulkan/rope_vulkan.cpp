// Rotary embedding. The frequencies go to the shader as fixed-point turns.
#include "backends/vulkan/device_vulkan.h"

#include <cmath>

namespace qlora {
namespace vulkan {
namespace {

constexpr uint32_t power_count = 9; // up to 512 pairs

struct Push {
    PushHeader header;
    uint32_t rows, heads, head_dim, pairs, stride;
    float magnitude;
    uint32_t whole, start_high, start_low, unused;
    uint32_t powers[2 * power_count];
};

// The 64 fractional bits of a value below 1; 1 itself becomes the largest fraction.
void fraction(double value, uint32_t *high, uint32_t *low) {
    const double scaled = value * 18446744073709551616.0;
    const uint64_t bits = scaled >= 18446744073709551615.0 ? UINT64_MAX : uint64_t(scaled);
    *high = uint32_t(bits >> 32);
    *low = uint32_t(bits);
}

} // namespace

uint64_t rope_scratch(Context &, const qlora_rope_args &) { return 0; }

int32_t rope(Context &context, const qlora_rope_args &args) {
    const uint64_t pairs = args.rotary_dim / 2;
    if (pairs > (1u << power_count)) return context.fail(QLORA_ERROR_UNSUPPORTED, "qlora_rope_apply: rotary_dim %u: vulkan turns at most %u dimensions of a head", args.rotary_dim, 2u << power_count);
    if (!(args.freq_base > 0)) return context.fail(QLORA_ERROR_UNSUPPORTED, "qlora_rope_apply: freq_base: must be positive on vulkan");
    QLORA_TRY(check_elements(context, "qlora_rope_apply", args.x.rows * args.x.stride));
    Push push = {{}, uint32_t(args.x.rows), uint32_t(args.x.cols / args.head_dim), args.head_dim, uint32_t(pairs), uint32_t(args.x.stride), args.magnitude, 0, 0, 0, 0, {}};
    // Powers of a ratio below 1 fit fractions: a base below 1 is walked from the last pair.
    const bool reversed = args.freq_base < 1;
    const double exponent = 2 * std::log(double(args.freq_base)) / args.rotary_dim, first = std::fabs(double(args.freq_scale)) * 0.15915494309189533577;
    const double start = reversed ? first * std::exp(-exponent * double(pairs - 1)) : first;
    if (!(start < 4294967296.0)) return context.fail(QLORA_ERROR_UNSUPPORTED, "qlora_rope_apply: freq_scale, freq_base: a frequency above 2^32 turns");
    push.whole = uint32_t(start);
    fraction(start - std::floor(start), &push.start_high, &push.start_low);
    for (uint32_t b = 0; b < power_count; b++) fraction(std::exp(-std::fabs(exponent) * double(1u << b)), &push.powers[2 * b], &push.powers[2 * b + 1]);
    const bool adjacent = args.layout == QLORA_ROPE_ADJACENT, inverse = (args.flags & QLORA_FLAG_INVERSE) != 0;
    return enqueue(context, args.stream, Shader::rope, {uint32_t(args.x.type), adjacent, inverse != (args.freq_scale < 0), args.freq_factors.handle != 0, reversed},
                   {exact(args.x), part(args.positions, 0, args.x.rows * 4), part(args.freq_factors, 0, pairs * 4)}, push,
                   groups_of(args.x.rows * groups_of(pairs, adjacent ? 1 : 2), 256));
}

} // namespace vulkan
} // namespace qlora
