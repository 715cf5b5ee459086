// Tables for 8-bit states by look-ups of bytes and 16-bit words in registers, many at a time.
#pragma once
#include "backends/cpu/codebooks_cpu.h"

namespace qlora {
namespace cpu {

// 256 words of 32 bits, byte by byte.
struct BytePlanes {
    alignas(64) uint8_t plane[4][256];
    constexpr explicit BytePlanes(const uint32_t (&words)[256]) : plane() {
        for (int byte = 0; byte < 4; byte++)
            for (int i = 0; i < 256; i++) plane[byte][i] = uint8_t(words[i] >> 8 * byte);
    }
};
constexpr BytePlanes dyn8_values(dyn8_table.value), udyn8_values(udyn8_table.value), dyn8_borders(dyn8_lines.border), udyn8_borders(udyn8_lines.border);

// The rank of a y in [2^-23, 1], or the one below it, from the upper 16 bits of y: a line per octave, and where a power of ten lies in
// it a second one, of the decade above; the lower of the two counts. In units of 1/256 rank and modulo 2^16, so that the exponent
// in those bits needs no masking: its share of slope * bits is taken off the height.
struct RankWords {
    static constexpr int first_exponent = 104, exponents = 24, cells = 128; // cells of an octave
    alignas(64) uint16_t slope[2][32], height[2][32];                       // [line] by exponent & 31
    bool right; // every rank holds, also for a y off by some units in its last place

    constexpr RankWords(const RankLines &lines, uint32_t last_rank) : slope(), height(), right(true) {
        double power = 1.0 / (1 << 23), ten = 1e-6; // of the octave; the next power of ten
        int decade = 0;
        uint32_t start = 0, end = 0; // ranks of a cell's first and last y
        for (int octave = 0; octave < exponents; octave++, power *= 2) {
            const uint32_t exponent = uint32_t(first_exponent + octave);
            const bool top = octave == exponents - 1, edged = !top && ten >= power && ten < 2 * power;
            const int edge = edged ? int((ten / power - 1) * cells) : cells;
            uint32_t starts[cells] = {}, ends[cells] = {};
            for (uint32_t m = 0; m < cells; m++) {
                const uint32_t bits = exponent << 23 | m << 16, slack = 4;
                while (start < last_rank && lines.border[start] < bits - slack) start++;
                while (end <= last_rank && lines.border[end] < bits + 0xffff + slack) end++;
                starts[m] = start;
                ends[m] = end;
            }
            uint32_t line_height[2] = {}, line_slope[2] = {};
            for (int line = 0; line < 2; line++) {
                const bool upper = line == 1 && edged;
                line_slope[line] = top ? 0 : uint32_t(double(lines.slope[upper ? decade + 1 : decade]) * power / cells * 256 + 0.5);
                int32_t most = 0xffff;
                for (int m = upper ? edge : 0; m < cells && (upper || m <= edge) && (!top || m == 0); m++) {
                    const int32_t room = int32_t((starts[m] + 1) * 256 - 1) - m * int32_t(line_slope[line]);
                    if (room < most) most = room;
                }
                right = right && most >= 0;
                line_height[line] = uint32_t(most);
                slope[line][exponent & 31] = uint16_t(line_slope[line]);
                height[line][exponent & 31] = uint16_t(uint32_t(most) - exponent * cells * line_slope[line]);
            }
            for (uint32_t m = 0; m < cells && (!top || m == 0); m++) {
                const uint32_t a = line_height[0] + m * line_slope[0], b = line_height[1] + m * line_slope[1], rank = (a < b ? a : b) >> 8;
                right = right && a < 0x10000 && b < 0x10000 && rank <= starts[m] && (top || rank + 1 >= ends[m]);
            }
            if (edged) decade++, ten *= 10;
        }
    }
};
constexpr RankWords dyn8_words = {dyn8_lines, 127}, udyn8_words = {udyn8_lines, 254};
static_assert(dyn8_words.right && udyn8_words.right, "ranks of 8-bit states by words");

} // namespace cpu
} // namespace qlora
