// Counter-based random numbers: a value is a function of (seed, stream, counter) and nothing else, so that a run is the
// same on every machine and device, and any part of it can be made again alone.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace finetune {

class Random {
public:
    // Streams keep uses apart: one per tensor to initialise, one per epoch to shuffle.
    Random(uint64_t seed, uint64_t stream) : key_(mix(mix(seed + golden) ^ (stream * golden + 1))) {}

    uint64_t at(uint64_t counter) const { return mix(key_ + (counter + 1) * golden); }
    uint64_t next() { return at(counter_++); }

    // In [0, 1), with 24 bits: exact in float.
    float next_uniform() { return float(next() >> 40) * (1.0f / 16777216.0f); }

    // In [0, bound), without bias: values from the incomplete last multiple are drawn again.
    uint64_t next_below(uint64_t bound) {
        const uint64_t reject_from = UINT64_MAX - UINT64_MAX % bound;
        uint64_t value = next();
        while (value >= reject_from) value = next();
        return value % bound;
    }

    template <class T> void shuffle(std::vector<T> &items) {
        for (uint64_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[next_below(i)]);
    }

private:
    static constexpr uint64_t golden = 0x9e3779b97f4a7c15;

    // SplitMix64's finaliser (Steele, Lea, Flood 2014).
    static uint64_t mix(uint64_t x) {
        x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
        x = (x ^ x >> 27) * 0x94d049bb133111eb;
        return x ^ x >> 31;
    }

    uint64_t key_;
    uint64_t counter_ = 0;
};

} // namespace finetune
