// Input values. Cycles have a prime period, so that misplaced blocks cannot cancel; random values have a fixed seed.
#pragma once
#include "tests/support/numbers.h"

#include <cmath>

namespace test {

// SplitMix64 of a counter: the same numbers on every machine.
inline uint64_t mix(uint64_t seed, uint64_t index) {
    uint64_t z = seed * 0x9e3779b97f4a7c15u + index * 0xd1b54a32d192ed03u + 0x632be59bd9b4e019u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}
inline double uniform(uint64_t seed, uint64_t index) { return (double(mix(seed, index) >> 11) + 0.5) / 9007199254740992.0; }

// Normal with mean 0.
inline std::vector<float> random_values(uint64_t count, uint64_t seed, double deviation = 1) {
    std::vector<float> values(count);
    for (uint64_t i = 0; i < count; i++)
        values[i] = float(deviation * std::sqrt(-2 * std::log(uniform(seed, 2 * i))) * std::cos(6.283185307179586 * uniform(seed, 2 * i + 1)));
    return values;
}

// A sawtooth of the given prime period between -1 and 1.
inline std::vector<float> cycle(uint64_t count, uint32_t period = 37) {
    std::vector<float> values(count);
    for (uint64_t i = 0; i < count; i++) values[i] = float((double(i * 11 % period) - period / 2) / (period / 2 + 0.37));
    return values;
}

inline std::vector<int32_t> random_integers(uint64_t count, uint64_t seed, int32_t low, int32_t above) {
    std::vector<int32_t> values(count);
    for (uint64_t i = 0; i < count; i++) values[i] = low + int32_t(mix(seed, i) % uint64_t(above - low));
    return values;
}

// Awkward stretches of length `block`, repeated over random values: zeros, negative zeros, constants, ramps, one huge
// among small, tiny normals, subnormals, the largest finite values. All finite in type.
inline std::vector<float> special_values(uint64_t count, uint32_t block, int32_t type, uint64_t seed) {
    std::vector<float> values = random_values(count, seed);
    const float largest = type == QLORA_FORMAT_F16 ? 65504.0f : type == QLORA_FORMAT_BF16 ? from_bits(0x7f7f0000) : from_bits(0x7f7fffff);
    const float smallest = type == QLORA_FORMAT_F16 ? from_bits(0x33800000) : from_bits(0x00010000);
    for (uint64_t i = 0; i < count; i++) {
        const uint64_t within = i % block;
        float &value = values[i];
        switch (i / block % 13) {
        case 0: value = 0; break;
        case 1: value = within % 2 ? -0.0f : 0.0f; break;
        case 2: value = -1.5f; break;
        case 3: value = float(within) / float(block) - 0.5f; break;
        case 4: value = within == block / 2 ? -1000.0f : value * 1e-3f; break;
        case 5: value = value * 1e-30f; break;
        case 6: value = smallest * float(int(within % 5) - 2); break;
        case 7: value = within % 3 ? largest : -largest; break;
        case 8: value = from_bits(0x00800000) * float(int(within % 7) - 3); break;
        case 9: value = within % 4 ? 0.0f : 1.0f; break;
        case 10: value = float(int(within % 17) - 8) / 8; break;
        default: break;
        }
        value = round_to(type, value);
    }
    return values;
}

} // namespace test
