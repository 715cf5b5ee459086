#include "rope_scaling.h"

#include <algorithm>
#include <cmath>

namespace finetune {
namespace {

const double turn = 2 * std::acos(-1.0);

// Divisors between the factor, where `kept` is 0, and 1.
template <class Kept> void stretch(double factor, uint32_t pairs, Rope &rope, const Kept &kept) {
    for (uint32_t i = 0; i < pairs; ++i) {
        const double share = std::min(1.0, std::max(0.0, kept(double(i))));
        rope.factors.push_back(static_cast<float>(1 / ((1 - share) / factor + share)));
    }
}

} // namespace

double yarn_magnitude(double factor, double weight) { return factor <= 1 ? 1 : 0.1 * weight * std::log(factor) + 1; }

double longrope_magnitude(double factor, double original) {
    return factor <= 1 ? 1 : std::sqrt(1 + std::log(factor) / std::log(original));
}

void apply_scaling(const RopeScaling &scaling, uint32_t dimensions, Rope &rope) {
    const double base = double(rope.base), size = dimensions;
    if (scaling.type == "linear") rope.scale = static_cast<float>(1 / scaling.factor);
    // Long waves are stretched by the factor, short ones stay, those between are mixed (Llama 3.1, 2407.21783).
    if (scaling.type == "llama3")
        stretch(scaling.factor, dimensions / 2, rope, [&](double i) {
            const double waves = scaling.original * std::pow(base, -2 * i / size) / turn;
            return (waves - scaling.low) / (scaling.high - scaling.low);
        });
    // The same, mixed evenly by the number of the pair (YaRN, 2309.00071).
    if (scaling.type == "yarn") {
        const auto pair_of = [&](double waves) {
            return size * std::log(scaling.original / (waves * turn)) / (2 * std::log(base));
        };
        double first = pair_of(scaling.beta_fast), last = pair_of(scaling.beta_slow);
        if (scaling.whole) {
            first = std::floor(first);
            last = std::ceil(last);
        }
        first = std::max(first, 0.0);
        last = std::min(last, size - 1);
        if (first == last) last += 0.001;
        stretch(scaling.factor, dimensions / 2, rope, [&](double i) { return 1 - (i - first) / (last - first); });
        rope.magnitude = static_cast<float>(scaling.magnitude > 0 ? scaling.magnitude : yarn_magnitude(scaling.factor, 1));
    }
    // Divisors found by search, for texts up to the length before and beyond it (LongRoPE, 2402.13753).
    if (scaling.type == "longrope") {
        rope.factors = scaling.short_factors;
        rope.long_factors = scaling.long_factors;
        rope.switch_length = static_cast<uint32_t>(scaling.original);
        rope.magnitude = static_cast<float>(scaling.magnitude > 0 ? scaling.magnitude
                                                                  : longrope_magnitude(scaling.factor, scaling.original));
    }
}

} // namespace finetune
