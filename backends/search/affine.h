// Grids of GPTQ formats, value = scale * (code - zero): the range of a group, its search, and the rounding of one value, one f32
// operation at a time. Weights that arrive in double are rounded to f32 first, so that quantize_gptq with nothing to make
// up for gives the codes of quantize.
#pragma once
#include "backends/search/search.h"

namespace qlora {
namespace search {

struct AffineGrid {
    float scale;    // as f16 holds it, never 0
    uint16_t half;  // the same as bits
    int zero;       // 0..levels
};

// The grid of a range with low <= 0 <= high.
QLORA_SEARCH AffineGrid affine_grid(float low, float high, uint32_t bits, bool symmetric) {
    const int levels = (1 << bits) - 1;
    AffineGrid grid = {0, half_of((high - low) / float(levels)), (levels + 1) / 2};
    const bool beyond = grid.half > 0x7bff; // f16 ends at 65504
    if (beyond) grid.half = 0x7bff;
    if (grid.half == 0) { // a group of zeros
        low = -1;
        grid.half = half_of(2 / float(levels));
    }
    grid.scale = of_half(grid.half);
    const float step = beyond ? high / float(levels) - low / float(levels) : grid.scale; // zero stays where it would be
    if (!symmetric) grid.zero = nearest(-low / step, 0, levels);
    return grid;
}

QLORA_SEARCH int affine_code(float w, const AffineGrid &grid, uint32_t bits) { return clamp(nearest(w / grid.scale) + grid.zero, 0, (1 << bits) - 1); }
// Exact: 11 bits times 9.
QLORA_SEARCH float affine_value(int code, const AffineGrid &grid) { return grid.scale * float(code - grid.zero); }

QLORA_SEARCH double affine_error(const float *w, uint64_t count, const AffineGrid &grid, uint32_t bits) {
    double error = 0;
    for (uint64_t i = 0; i < count; i++) error += std::pow(std::fabs(affine_value(affine_code(w[i], grid, bits), grid) - w[i]), 2.4f);
    return error;
}

// The grid of w[count]; with search, of its range or one of 79 smaller ones.
QLORA_SEARCH AffineGrid affine_fit(const float *w, uint64_t count, uint32_t bits, bool symmetric, bool search) {
    float low = 0, high = 0;
    for (uint64_t i = 0; i < count; i++) {
        low = w[i] < low ? w[i] : low;
        high = w[i] > high ? w[i] : high;
    }
    if (symmetric) {
        high = -low > high ? -low : high;
        if (low < 0) low = -high;
    }
    AffineGrid best = affine_grid(low, high, bits, symmetric);
    if (!search) return best;
    double least = affine_error(w, count, best, bits);
    for (int i = 1; i < 80 && least > 0; i++) {
        const float part = 1 - float(i) / 100;
        const AffineGrid grid = affine_grid(part * low, part * high, bits, symmetric);
        const double error = affine_error(w, count, grid, bits);
        if (error < least) { least = error; best = grid; }
    }
    return best;
}

// The last byte of a stream may have bits that belong to no code: zero, once its codes are put.
QLORA_SEARCH void clear_stream_end(uint8_t *stream, uint64_t count, uint32_t bits) {
    if (count * bits % 8) stream[count * bits / 8] = 0;
}
QLORA_SEARCH int get_code(const uint8_t *stream, uint64_t i, uint32_t bits) {
    const uint64_t bit = i * bits;
    const uint32_t shift = uint32_t(bit % 8);
    stream += bit / 8;
    return int(qlora_stream_code(stream[0], shift + bits > 8 ? stream[1] : 0u, shift, bits));
}
// Element i of a little-endian stream of codes.
QLORA_SEARCH void put_code(uint8_t *stream, uint64_t i, uint32_t bits, int code) {
    const uint64_t bit = i * bits;
    const uint32_t shift = uint32_t(bit % 8), mask = ((1u << bits) - 1u) << shift, value = uint32_t(code) << shift;
    stream += bit / 8;
    stream[0] = uint8_t((stream[0] & ~mask) | value);
    if (shift + bits > 8) stream[1] = uint8_t((stream[1] & ~(mask >> 8)) | value >> 8);
}

} // namespace search
} // namespace qlora
