// The searches behind the encoders of interleaved blocks, once for every backend that runs C++ on the host: plain loops
// in a fixed order, one f32 operation at a time, no intrinsics. Compile with contraction off, and files are the same
// whatever the machine (ggml's own differ by up to 31 % of blocks between compiler flags).
//
// Vocabulary: x values of a group, w their weights (how much an error matters), q integer codes, levels the largest code.
#pragma once
#include "backends/formats.h"

#include <cmath>
#include <cstring>

// CUDA defines it as __host__ __device__ inline, and compiles the file that does with -fmad=false.
#ifndef QLORA_SEARCH
#define QLORA_SEARCH inline
#endif

namespace qlora {
namespace search {

typedef uint32_t uint;
#define QLORA_FUNCTION QLORA_SEARCH
#include "backends/numeric.inc"
#include "backends/narrow.inc"
#include "backends/affine.inc"
#undef QLORA_FUNCTION

QLORA_SEARCH uint32_t bits_of(float value) { uint32_t bits; std::memcpy(&bits, &value, 4); return bits; }
QLORA_SEARCH float float_of(uint32_t bits) { float value; std::memcpy(&value, &bits, 4); return value; }
// Scales of blocks near the end of the range can be infinity / infinity, which processors answer with different NaN: files have x86's.
QLORA_SEARCH uint16_t half_of(float value) { return value == value ? uint16_t(qlora_f16_from_f32(bits_of(value))) : uint16_t(0xfe00); }
QLORA_SEARCH float of_half(uint16_t half) { return float_of(qlora_f32_from_f16(half)); }

// What an encoder of one block sees.
struct Source {
    const float *x;          // the block's values
    const float *importance; // as many, or null
    float row_mean_square;   // mean of x^2 over the row; read only with importance
    bool stochastic;
    uint64_t seed, first;    // first: index of x[0] in the flattened matrix
    float tensor_scale;      // of NVFP4; 0: none
    QLORA_SEARCH uint noise(uint64_t i) const { return qlora_random(uint(seed), uint(seed >> 32), uint(first + i), uint((first + i) >> 32)); }
};

// Sum of squares, first to last.
QLORA_SEARCH float sum_of_squares(const float *x, uint64_t count) {
    float sum = 0;
    for (uint64_t i = 0; i < count; i++) sum += x[i] * x[i];
    return sum;
}

constexpr float negligible = 1e-15f; // magnitudes below it make a group of zeros

// To nearest, half to even, by adding 1.5 * 2^23; total: NaN is 0 and what lies beyond the trick's range is clamped to it.
QLORA_SEARCH int nearest(float value) {
    constexpr float limit = 4194303.0f;
    if (!(value <= limit && value >= -limit)) return value > 0 ? int(limit) : value < 0 ? -int(limit) : 0;
    return int(bits_of(value + 12582912.0f) & 0x7fffffu) - 0x400000;
}
QLORA_SEARCH int clamp(int value, int low, int high) { return value < low ? low : value > high ? high : value; }
QLORA_SEARCH int nearest(float value, int low, int high) { return clamp(nearest(value), low, high); }

// The element of largest magnitude, with its sign; the first wins. 0 when none is above negligible.
QLORA_SEARCH float extreme_of(const float *x, int count, float floor = negligible) {
    float extreme = 0, magnitude = 0;
    for (int i = 0; i < count; i++)
        if (std::fabs(x[i]) > magnitude) { extreme = x[i]; magnitude = std::fabs(x[i]); }
    return magnitude < floor ? 0.0f : extreme;
}

// ---- symmetric: x ~ scale * q, q in [-levels, levels - 1], codes hold q + levels --------------------------------------

struct Moments { float xq, qq; }; // sums of w x q and of w q q

// w null means x^2.
QLORA_SEARCH float weight_at(const float *x, const float *w, int i) { return w ? w[i] : x[i] * x[i]; }

QLORA_SEARCH Moments moments(const float *x, const float *w, int count, int levels, float inverse) {
    Moments sum = {0, 0};
    for (int i = 0; i < count; i++) {
        const float q = float(nearest(inverse * x[i], -levels, levels - 1)), weight = weight_at(x, w, i);
        sum.xq += weight * x[i] * q;
        sum.qq += weight * q * q;
    }
    return sum;
}

// Tries 19 grids around the one on which the extreme is -levels and keeps the one that explains most of x; returns the
// least-squares scale on it.
QLORA_SEARCH float symmetric_grid(const float *x, const float *w, int count, int levels, uint8_t *codes) {
    const float extreme = extreme_of(x, count);
    if (extreme == 0) {
        std::memset(codes, 0, size_t(count));
        return 0;
    }
    float inverse = -float(levels) / extreme;
    const Moments start = moments(x, w, count, levels, inverse);
    float scale = start.qq != 0 ? start.xq / start.qq : 0.0f, best = scale * start.xq;
    for (int step = -9; step <= 9; step++) {
        if (step == 0) continue;
        const float trial = -(float(levels) + 0.1f * float(step)) / extreme;
        const Moments sum = moments(x, w, count, levels, trial);
        if (sum.qq > 0 && sum.xq * sum.xq > best * sum.qq) {
            inverse = trial;
            scale = sum.xq / sum.qq;
            best = scale * sum.xq;
        }
    }
    for (int i = 0; i < count; i++) codes[i] = uint8_t(nearest(inverse * x[i], -levels, levels - 1) + levels);
    return scale;
}

// Sweeps over the elements, solving for one code with the others fixed, at most five times; weights are x^2.
QLORA_SEARCH float symmetric_descent(const float *x, int count, int levels, uint8_t *codes) {
    const float extreme = extreme_of(x, count);
    if (extreme == 0) {
        std::memset(codes, 0, size_t(count));
        return 0;
    }
    const float inverse = -float(levels) / extreme;
    Moments sum = moments(x, nullptr, count, levels, inverse);
    for (int i = 0; i < count; i++) codes[i] = uint8_t(nearest(inverse * x[i], -levels, levels - 1) + levels);
    for (int sweep = 0, changed = 1; sweep < 5 && changed; sweep++) {
        changed = 0;
        for (int i = 0; i < count; i++) {
            const float weight = x[i] * x[i], q = float(int(codes[i]) - levels);
            Moments rest = {sum.xq - weight * x[i] * q, sum.qq};
            if (!(rest.xq > 0)) continue;
            rest.qq -= weight * q * q;
            const int code = nearest(x[i] * rest.qq / rest.xq, -levels, levels - 1);
            if (code == int(codes[i]) - levels) continue;
            rest.xq += weight * x[i] * float(code);
            rest.qq += weight * float(code) * float(code);
            if (rest.qq > 0 && rest.xq * rest.xq * sum.qq > sum.xq * sum.xq * rest.qq) {
                codes[i] = uint8_t(code + levels);
                sum = rest;
                changed = 1;
            }
        }
    }
    return sum.qq > 0 ? sum.xq / sum.qq : 0.0f;
}

// ---- affine: x ~ scale * q - minimum, q in [0, levels], minimum >= 0 --------------------------------------------------

struct Affine { float scale, minimum; };
struct Grid { float begin, step; int steps; bool absolute; }; // of trial scales; absolute: errors counted as |d|, else d^2
QLORA_SEARCH Grid importance_grid() { return {-0.9f, 0.05f, 36, false}; }

// Grids of trial scales over the range of x; for each the least-squares scale and minimum. count is at most 32.
QLORA_SEARCH Affine affine_grid(const float *x, const float *w, int count, int levels, const Grid &grid, uint8_t *codes) {
    float low = x[0], high = x[0], sum_w = weight_at(x, w, 0), sum_x = sum_w * x[0];
    for (int i = 1; i < count; i++) {
        if (x[i] < low) low = x[i];
        if (x[i] > high) high = x[i];
        const float weight = weight_at(x, w, i);
        sum_w += weight;
        sum_x += weight * x[i];
    }
    if (low > 0) low = 0;
    if (high <= low) {
        std::memset(codes, 0, size_t(count));
        return {0, -low};
    }
    auto encode = [&](float inverse, uint8_t *out) {
        for (int i = 0; i < count; i++) out[i] = uint8_t(nearest(inverse * (x[i] - low), 0, levels));
    };
    auto error_of = [&](const uint8_t *q, float scale, float offset) {
        float sum = 0;
        for (int i = 0; i < count; i++) {
            const float difference = scale * float(q[i]) + offset - x[i];
            sum += weight_at(x, w, i) * (grid.absolute ? std::fabs(difference) : difference * difference);
        }
        return sum;
    };
    const float inverse = float(levels) / (high - low);
    float scale = 1 / inverse;
    encode(inverse, codes);
    float best = error_of(codes, scale, low);
    for (int step = 0; step <= grid.steps; step++) {
        uint8_t trial[32];
        encode((grid.begin + grid.step * float(step) + float(levels)) / (high - low), trial); // low moves with the best so far
        float sum_q = 0, sum_qq = 0, sum_xq = 0;
        for (int i = 0; i < count; i++) {
            const float weight = weight_at(x, w, i), q = float(trial[i]);
            sum_q += weight * q;
            sum_qq += weight * q * q;
            sum_xq += weight * q * x[i];
        }
        const float determinant = sum_w * sum_qq - sum_q * sum_q;
        if (!(determinant > 0)) continue;
        float slope = (sum_w * sum_xq - sum_x * sum_q) / determinant, offset = (sum_qq * sum_x - sum_q * sum_xq) / determinant;
        if (offset > 0) {
            offset = 0;
            slope = sum_xq / sum_qq;
        }
        const float error = error_of(trial, slope, offset);
        if (error < best) {
            std::memcpy(codes, trial, size_t(count));
            best = error;
            scale = slope;
            low = offset;
        }
    }
    return {scale, -low};
}

// ---- not negative: x ~ scale * q, q in [0, levels]: scales and minima of groups, with importance ----------------------
//
// A group with one important element can have a negative least-squares scale. It counts as 0 here; ggml lets the code wrap
// into the bits of its neighbours, the one case with importance where files differ.

QLORA_SEARCH float positive_descent(const float *x, const float *w, int count, int levels, uint8_t *codes) {
    float high = 0;
    for (int i = 0; i < count; i++)
        if (x[i] > high) high = x[i];
    if (high < negligible) {
        std::memset(codes, 0, size_t(count));
        return 0;
    }
    float inverse = float(levels) / high, best = 0;
    for (int step = -5; step <= 4; step++) { // -5 stands for the grid itself
        if (step == 0) continue;
        const float trial = step == -5 ? inverse : (0.1f * float(step) + float(levels)) / high, scale = 1 / trial;
        float error = 0;
        for (int i = 0; i < count; i++) {
            const float difference = x[i] - scale * float(nearest(trial * x[i], 0, levels));
            error += w[i] * difference * difference;
        }
        if (step == -5 || error < best) {
            best = error;
            inverse = trial;
        }
    }
    Moments sum = {0, 0};
    for (int i = 0; i < count; i++) {
        codes[i] = uint8_t(nearest(inverse * x[i], 0, levels));
        sum.xq += w[i] * x[i] * float(codes[i]);
        sum.qq += w[i] * float(codes[i]) * float(codes[i]);
    }
    for (int sweep = 0, changed = 1; sweep < 5 && changed; sweep++) {
        changed = 0;
        for (int i = 0; i < count; i++) {
            const float q = float(codes[i]);
            Moments rest = {sum.xq - w[i] * x[i] * q, sum.qq - w[i] * q * q};
            if (!(rest.xq > 0 && rest.qq > 0)) continue;
            const int code = nearest(x[i] * rest.qq / rest.xq, 0, levels);
            if (code == codes[i]) continue;
            rest.xq += w[i] * x[i] * float(code);
            rest.qq += w[i] * float(code) * float(code);
            if (rest.xq * rest.xq * sum.qq > sum.xq * sum.xq * rest.qq) {
                codes[i] = uint8_t(code);
                sum = rest;
                changed = 1;
            }
        }
    }
    return sum.qq > 0 ? sum.xq / sum.qq : 0.0f;
}

} // namespace search
} // namespace qlora
