// The frozen tables as f32 bit patterns, and which of them a codebook format uses.
#pragma once
#include "backends/formats.h"

namespace qlora {
namespace cpu {

struct Table16 { alignas(64) uint32_t value[16]; };
struct Table256 { alignas(64) uint32_t value[256]; };

constexpr Table16 nf4_table = {{
#include "backends/codebooks/nf4.inc"
}};
constexpr Table16 nf4_thresholds = {{
#include "backends/codebooks/nf4_thresholds.inc"
}};
constexpr Table16 fp4_table = {{
#include "backends/codebooks/fp4.inc"
}};
constexpr Table16 fp4_thresholds = {{
#include "backends/codebooks/fp4_thresholds.inc"
}};
constexpr Table16 fp4_codes = {{0, 1, 6, 7, 4, 5, 2, 3}}; // by rank of the magnitude
constexpr Table256 dyn8_table = {{
#include "backends/codebooks/dyn8.inc"
}};
constexpr Table256 udyn8_table = {{
#include "backends/codebooks/udyn8.inc"
}};

// The values from zero up of a table of 256, by cells of |y| that share exponent and seven bits of mantissa, from 2^-23 to 1: the
// rank below the one border that may lie in a cell << 16 | the last low half of that rank. Ties go to the even code.
constexpr int32_t state_first_cell = 0x3400, state_cells = 0x3f80 - 0x3400 + 1;
struct CellTable {
    alignas(64) uint32_t value[state_cells];
    constexpr CellTable(const Table256 &table, uint32_t zero) : value() {
        uint32_t rank = 0;
        for (int32_t cell = 0; cell < state_cells; cell++) {
            const uint32_t first = uint32_t(state_first_cell + cell) << 16;
            while (zero + rank < 255 && last_of(table, zero + rank) < first) rank++;
            const bool inside = zero + rank < 255 && last_of(table, zero + rank) < first + 0xffff;
            value[cell] = rank << 16 | (inside ? last_of(table, zero + rank) & 0xffff : 0xffff);
        }
    }
    // Bits of the largest y whose code is at most `code`.
    static constexpr uint32_t last_of(const Table256 &table, uint32_t code) {
        const uint32_t middle = middle_of(table.value[code], table.value[code + 1]);
        return code % 2 ? middle - 1 : middle;
    }
    // (a + b) / 2 of floats 0 <= a < b, rounded to nearest even, by integers.
    static constexpr uint32_t middle_of(uint32_t a, uint32_t b) {
        const uint32_t shift = (b >> 23) - (a >> 23), one = 1u << 23;
        if (a == 0) return b - one;
        const uint64_t high = uint64_t((b & (one - 1)) | one) << 24, low = (uint64_t((a & (one - 1)) | one) << 24) >> (shift < 40 ? shift : 40);
        uint64_t sum = high + low;                            // b's exponent + 1 for the halved sum of 2^48 and more
        uint32_t exponent = (b >> 23) - 1, drop = 24;
        if (sum >> 48) exponent++, drop++;
        uint64_t kept = sum >> drop, rest = sum & ((uint64_t(1) << drop) - 1), half = uint64_t(1) << (drop - 1);
        if (rest > half || (rest == half && (kept & 1))) kept++;
        return (exponent << 23) + uint32_t(kept - one);
    }
};
constexpr CellTable dyn8_cells = {dyn8_table, 127}, udyn8_cells = {udyn8_table, 0};

// The same without a table of cells, for machines whose look-ups in registers are faster than those in memory: the values lie
// evenly within each decade from 1e-7 to 1, so that a line per decade says the rank or the one below it; its border decides.
struct RankLines {
    alignas(64) uint32_t border[256]; // bits of the largest |y| of each rank
    alignas(64) float edge[32];       // by exponent & 31: the power of ten in this octave, or above all
    alignas(64) int32_t decade[32];   // the decade below it
    alignas(64) float slope[16], height[16]; // by decade
    constexpr RankLines(const Table256 &table, uint32_t zero, uint32_t first) : border(), edge(), decade(), slope(), height() {
        for (uint32_t rank = 0; rank < 256; rank++) border[rank] = zero + rank < 255 ? CellTable::last_of(table, zero + rank) : 0x7f800000u;
        double power = 1;
        for (int octave = 31; octave >= 0; octave--) { // exponents 0, -1, ... are 127 & 31 = 31, 30, ...
            double ten = 1e-6;
            edge[octave] = 2;
            for (int i = 0; i < 6; i++, ten *= 10) {
                if (ten < power) decade[octave] = i + 1;
                else if (ten < 2 * power) edge[octave] = float(ten);
            }
            power /= 2;
        }
        double ten = 1e6;
        uint32_t values = first, before = 1; // in this decade; below it
        for (int i = 0; i < 7; i++, ten /= 10, before += values, values *= 2) {
            slope[i] = float(values * ten / 0.9);
            height[i] = float(before - values / 9.0 - 0.25);
        }
    }
};
constexpr RankLines dyn8_lines = {dyn8_table, 127, 1}, udyn8_lines = {udyn8_table, 0, 2};

template <class F> struct Codebook; // no general one: a new codebook format names its table here
template <> struct Codebook<Format<QLORA_FORMAT_NF4>> {
    static constexpr const Table16 &table = nf4_table;
    static constexpr bool magnitude = false; // thresholds apply to the value
};
template <> struct Codebook<Format<QLORA_FORMAT_NF4_DQ>> : Codebook<Format<QLORA_FORMAT_NF4>> {};
template <> struct Codebook<Format<QLORA_FORMAT_FP4>> {
    static constexpr const Table16 &table = fp4_table;
    static constexpr bool magnitude = true; // thresholds apply to the magnitude, the sign is bit 3
};
template <> struct Codebook<Format<QLORA_FORMAT_FP4_DQ>> : Codebook<Format<QLORA_FORMAT_FP4>> {};
template <> struct Codebook<Format<QLORA_FORMAT_DYN8>> { static constexpr const Table256 &table = dyn8_table; };
template <> struct Codebook<Format<QLORA_FORMAT_UDYN8>> { static constexpr const Table256 &table = udyn8_table; };

} // namespace cpu
} // namespace qlora
