// Codes of the codebook formats as a test sees them: their order, the borders between neighbours, and what a tie is.
#pragma once
#include "backends/formats.h"
#include "tests/support/numbers.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <vector>

namespace test {

struct CodeBook {
    uint32_t bits;
    std::vector<float> values;  // by code
    std::vector<float> borders; // between rank i and i + 1
    bool sign_and_magnitude;    // fp4: borders hold for |x|, bit 3 is the sign
    // The place of a code in the order of the borders.
    int rank(uint32_t code) const {
        static constexpr int magnitude_ranks[8] = {0, 1, 6, 7, 4, 5, 2, 3};
        return sign_and_magnitude ? magnitude_ranks[code & 7] : int(code);
    }
};

inline std::vector<float> from_bit_list(std::initializer_list<uint32_t> bits) {
    std::vector<float> values;
    for (uint32_t word : bits) values.push_back(from_bits(word));
    return values;
}

inline CodeBook code_book(int32_t format) {
    static const std::vector<float> nf4 = from_bit_list({
#include "backends/codebooks/nf4.inc"
    });
    static const std::vector<float> nf4_borders = from_bit_list({
#include "backends/codebooks/nf4_thresholds.inc"
    });
    static const std::vector<float> fp4 = from_bit_list({
#include "backends/codebooks/fp4.inc"
    });
    static const std::vector<float> fp4_borders = from_bit_list({
#include "backends/codebooks/fp4_thresholds.inc"
    });
    static const std::vector<float> dyn8 = from_bit_list({
#include "backends/codebooks/dyn8.inc"
    });
    static const std::vector<float> udyn8 = from_bit_list({
#include "backends/codebooks/udyn8.inc"
    });
    if (format == QLORA_FORMAT_NF4 || format == QLORA_FORMAT_NF4_DQ) return {4, nf4, nf4_borders, false};
    if (format == QLORA_FORMAT_FP4 || format == QLORA_FORMAT_FP4_DQ) return {4, fp4, fp4_borders, true};
    if (format == QLORA_FORMAT_DYN8 || format == QLORA_FORMAT_UDYN8) {
        const std::vector<float> &values = format == QLORA_FORMAT_DYN8 ? dyn8 : udyn8;
        std::vector<float> borders;
        for (size_t i = 0; i + 1 < values.size(); i++) borders.push_back((values[i] + values[i + 1]) * 0.5f);
        return {8, values, borders, false};
    }
    throw std::runtime_error("format " + format_name(format) + " has no codebook");
}

inline uint32_t code_at(const CodeBook &book, const std::vector<uint8_t> &codes, uint64_t i) {
    if (book.bits == 8) return codes[i];
    return i % 2 ? codes[i / 2] & 15u : codes[i / 2] >> 4;
}

// max |x| per block, as the formats define it: below the smallest normal it is zero.
inline std::vector<float> block_absmax(const std::vector<float> &values, uint32_t block) {
    std::vector<float> absmax((values.size() + block - 1) / block);
    for (size_t i = 0; i < values.size(); i++) absmax[i / block] = std::fmax(absmax[i / block], std::fabs(values[i]));
    for (float &value : absmax)
        if (value < from_bits(0x00800000)) value = 0;
    return absmax;
}

struct CodeCount {
    uint64_t equal, ties, wrong, first_wrong;
};

// Compares codes of values; where they are neighbours and the exact x / absmax lies within two units in the last place
// of the border between them (and shift, an uncertainty of values, does not explain more) it is a tie.
inline CodeCount compare_codes(const CodeBook &book, const std::vector<uint8_t> &ours, const std::vector<uint8_t> &golden, const std::vector<float> &values,
                               const std::vector<float> &absmax, uint32_t block, double shift) {
    CodeCount count = {0, 0, 0, 0};
    if (ours.size() != golden.size()) return {0, 0, values.size(), 0};
    for (uint64_t i = 0; i < values.size(); i++) {
        const uint32_t a = code_at(book, ours, i), b = code_at(book, golden, i);
        if (a == b) { count.equal++; continue; }
        const double scale = absmax[i / block];
        const int lower = std::min(book.rank(a), book.rank(b)), upper = std::max(book.rank(a), book.rank(b));
        bool tie = scale > 0 && upper - lower == 1 && !(book.sign_and_magnitude && (a ^ b) & 8);
        if (tie) {
            const double border = book.borders[size_t(lower)];
            double quotient = values[i] / scale;
            if (book.sign_and_magnitude) quotient = std::fabs(quotient);
            const double unit = std::ldexp(1.0, std::ilogb(border) - 23);
            tie = std::fabs(quotient - border) <= 2 * unit + shift / scale * (1 + std::fabs(quotient));
        }
        if (tie) count.ties++;
        else if (count.wrong++ == 0) count.first_wrong = i;
    }
    // An odd count leaves the last low nibble to the code of 0.0; both sides must agree on it.
    if (book.bits == 4 && values.size() % 2 && ((ours.back() ^ golden.back()) & 15)) {
        if (count.wrong++ == 0) count.first_wrong = values.size();
    }
    return count;
}

} // namespace test
