// The frozen tables as f32 bit patterns, and which of them a codebook format uses.
#pragma once
#include "backends/ref/ref.h"

namespace qlora {
namespace ref {

constexpr uint32_t nf4_table[16] = {
#include "backends/codebooks/nf4.inc"
};
constexpr uint32_t nf4_thresholds[15] = {
#include "backends/codebooks/nf4_thresholds.inc"
};
constexpr uint32_t fp4_table[16] = {
#include "backends/codebooks/fp4.inc"
};
constexpr uint32_t fp4_thresholds[7] = {
#include "backends/codebooks/fp4_thresholds.inc"
};
constexpr uint32_t dyn8_table[256] = {
#include "backends/codebooks/dyn8.inc"
};
constexpr uint32_t udyn8_table[256] = {
#include "backends/codebooks/udyn8.inc"
};

// Code of a value that was divided by its block's absmax.
inline uint32_t nf4_code(float y) {
    uint32_t code = 0;
    while (code < 15 && y > float_of(nf4_thresholds[code])) code++;
    return code;
}
inline uint32_t fp4_code(float y) {
    static const uint32_t by_magnitude[8] = {0, 1, 6, 7, 4, 5, 2, 3};
    const float magnitude = y < 0 ? -y : y;
    uint32_t rank = 0;
    while (rank < 7 && magnitude > float_of(fp4_thresholds[rank])) rank++;
    return by_magnitude[rank] | (y < 0 ? 8u : 0u);
}
// Nearest value of an ascending table of 256; a tie goes to the even index.
inline uint32_t nearest_code(const uint32_t *table, float y) {
    uint32_t upper = 0;
    while (upper < 256 && y > float_of(table[upper])) upper++;
    if (upper == 0) return 0;
    if (upper == 256) return 255;
    const float middle = (float_of(table[upper - 1]) + float_of(table[upper])) * 0.5f;
    if (y == middle) return upper % 2 ? upper - 1 : upper;
    return y > middle ? upper : upper - 1;
}

template <class F> struct Codebook; // deleted primary: a new codebook format names its table here
template <> struct Codebook<Format<QLORA_FORMAT_NF4>> {
    static constexpr const uint32_t *table = nf4_table;
    static uint32_t code(float y) { return nf4_code(y); }
};
template <> struct Codebook<Format<QLORA_FORMAT_NF4_DQ>> : Codebook<Format<QLORA_FORMAT_NF4>> {};
template <> struct Codebook<Format<QLORA_FORMAT_FP4>> {
    static constexpr const uint32_t *table = fp4_table;
    static uint32_t code(float y) { return fp4_code(y); }
};
template <> struct Codebook<Format<QLORA_FORMAT_FP4_DQ>> : Codebook<Format<QLORA_FORMAT_FP4>> {};
template <> struct Codebook<Format<QLORA_FORMAT_DYN8>> {
    static constexpr const uint32_t *table = dyn8_table;
    static uint32_t code(float y) { return nearest_code(dyn8_table, y); }
};
template <> struct Codebook<Format<QLORA_FORMAT_UDYN8>> {
    static constexpr const uint32_t *table = udyn8_table;
    static uint32_t code(float y) { return nearest_code(udyn8_table, y); }
};

} // namespace ref
} // namespace qlora
