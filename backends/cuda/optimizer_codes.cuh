// Codes of 8-bit state by one look-up. A bucket is what the upper bits of a magnitude say, between 2^-23 and 1, and so fine that at
// most one midpoint of the table lies in it. Its word holds the rank below that midpoint, and beneath it what carries into the
// rank when the lower bits of a greater magnitude are added. A midpoint whose tie goes up counts as the float before it. The
// compiler makes the buckets; that they find what the search through the table finds is tests/optim_codes.cpp.
#pragma once
#include "backends/cuda/weight.cuh"

namespace qlora {
namespace cuda {

// is_signed: ranks are 0..128, the distance from index 127; else they are the indices.
template <bool is_signed> struct alignas(16) Buckets {
    static constexpr int low_bits = is_signed ? 17 : 16, first = (104 << 23) >> low_bits, count = ((127 << 23) >> low_bits) - first + 1;
    static constexpr uint32_t mask = (1u << low_bits) - 1;
    uint32_t words[(count + 3) / 4 * 4];

    // Of a magnitude up to 1.
    static __device__ __forceinline__ uint32_t rank(const uint32_t *words, float magnitude) {
        const uint32_t bits = __float_as_uint(magnitude);
        return (words[max(0, min(int(bits >> low_bits) - first, count - 1))] + (bits & mask)) >> low_bits;
    }
};

constexpr uint32_t dyn8_bits[256] = {
#include "backends/codebooks/dyn8.inc"
};
constexpr uint32_t udyn8_bits[256] = {
#include "backends/codebooks/udyn8.inc"
};

// Floats between 0 and 1 that are not subnormal, at compile time.
constexpr float float_from(uint32_t bits) {
    double value = bits ? double((bits & 0x7fffffu) | 0x800000u) : 0;
    for (uint32_t exponent = bits >> 23; bits && exponent < 150; exponent++) value *= 0.5;
    return float(value);
}
constexpr uint32_t bits_from(float value) {
    double scaled = value;
    uint32_t exponent = 127;
    for (; scaled < 1; scaled *= 2) exponent--;
    return (exponent << 23) + uint32_t((scaled - 1) * 8388608);
}

// table: magnitudes that rise from 0 to 1.
template <bool is_signed> constexpr Buckets<is_signed> make_buckets(const uint32_t *table) {
    using B = Buckets<is_signed>;
    constexpr int midpoints = is_signed ? 128 : 255;
    uint32_t middle[midpoints + 1] = {};
    for (int i = 0; i < midpoints; i++) {
        const bool tie_goes_up = i % 2 == (is_signed ? 0 : 1); // to the even index: 127 + rank, or rank
        middle[i] = bits_from((float_from(table[i]) + float_from(table[i + 1])) * 0.5f) - (tie_goes_up ? 1 : 0);
    }
    middle[midpoints] = 0xffffffffu;
    B made = {};
    uint32_t rank = 0;
    for (int b = 0; b < B::count; b++) {
        const uint32_t bucket = uint32_t(b + B::first), lower = b ? bucket << B::low_bits : 0; // the first begins at 0
        while (middle[rank] < lower) rank++;
        made.words[b] = rank << B::low_bits | (middle[rank] >> B::low_bits == bucket ? B::mask - (middle[rank] & B::mask) : 0);
    }
    return made;
}
static __device__ constexpr Buckets<true> signed_buckets = make_buckets<true>(dyn8_bits + 127);
static __device__ constexpr Buckets<false> unsigned_buckets = make_buckets<false>(udyn8_bits);

} // namespace cuda
} // namespace qlora
