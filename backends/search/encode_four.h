// Encoders of four-bit codes that stand for uneven levels: IQ4_NL and IQ4_XS (a fixed table), MXFP4 and NVFP4 (E2M1).
#pragma once
#include "backends/search/encode_k.h"

namespace qlora {
namespace search {

// ---- IQ4 -------------------------------------------------------------------------------------------------------------

// The table by arithmetic, as in blocks.inc: device code has no tables of the host.
QLORA_SEARCH float iq4_level(int code) {
    const uint32_t words[4] = {0x3f2d1801u, 0x766a5d4fu, 0xa6998d81u, 0xf1d9c5b5u};
    return float(int(words[code / 4] >> (code % 4 * 8) & 255u) - 128);
}

// The nearest level; half way goes up.
QLORA_SEARCH uint8_t iq4_nearest(float value) {
    int upper = 0;
    while (upper < 16 && !(value < iq4_level(upper))) upper++;
    if (upper == 0) return 0;
    if (upper == 16) return 15;
    return uint8_t(value - iq4_level(upper - 1) < iq4_level(upper) - value ? upper - 1 : upper);
}

// The least-squares scale on the best of 15 grids; codes are for the caller to make, with the scale as stored or not.
QLORA_SEARCH float iq4_grid(const float *x, const float *w) {
    const float extreme = extreme_of(x, 32);
    if (extreme == 0) return 0;
    float scale = 0, best = 0;
    auto attempt = [&](float inverse, bool first) {
        float sum_xq = 0, sum_qq = 0;
        for (int i = 0; i < 32; i++) {
            const float q = iq4_level(iq4_nearest(inverse * x[i])), weight = weight_at(x, w, i);
            sum_xq += weight * q * x[i];
            sum_qq += weight * q * q;
        }
        if (first || (sum_qq > 0 && sum_xq * sum_xq > best * sum_qq)) {
            scale = sum_xq / sum_qq;
            best = scale * sum_xq;
        }
    };
    attempt(1 / (-extreme / iq4_level(0)), true);
    for (int step = -7; step <= 7; step++) attempt((float(step) + iq4_level(0)) / extreme, false);
    return scale;
}

template <> struct Encode<Format<QLORA_FORMAT_IQ4_NL>> {
    static QLORA_SEARCH void block(const Source &source, BlockIQ4_NL &out) {
        float w[32];
        if (source.importance) weights_of(source, sum_of_squares(source.x, 32) * (2.0f / 32), 0, 32, w);
        const float scale = iq4_grid(source.x, source.importance ? w : nullptr), inverse = scale != 0 ? 1 / scale : 0.0f;
        uint8_t codes[32];
        for (int i = 0; i < 32; i++) codes[i] = iq4_nearest(inverse * source.x[i]);
        out.scale = half_of(scale);
        pack_nibbles(codes, out.codes);
    }
};

template <> struct Encode<Format<QLORA_FORMAT_IQ4_XS>> {
    static QLORA_SEARCH void block(const Source &source, BlockIQ4_XS &out) {
        const float mean_square = sum_of_squares(source.x, super) * (2.0f / super);
        float scales[8];
        for (int g = 0; g < 8; g++) {
            float w[32];
            if (source.importance) weights_of(source, mean_square, g * 32, 32, w);
            scales[g] = iq4_grid(source.x + g * 32, source.importance ? w : nullptr);
        }
        const float scale = -extreme_of(scales, 8, 0.0f) / 32, inverse = scale != 0 ? 1 / scale : 0.0f;
        out.scale = half_of(scale);
        std::memset(out.scales_low, 0, sizeof out.scales_low);
        out.scales_high = 0;
        for (int g = 0; g < 8; g++) {
            const int level = nearest(inverse * scales[g], -32, 31);
            const float group_scale = scale * float(level), group_inverse = group_scale != 0 ? 1 / group_scale : 0.0f;
            uint8_t codes[32];
            for (int i = 0; i < 32; i++) codes[i] = iq4_nearest(group_inverse * source.x[g * 32 + i]);
            pack_nibbles(codes, out.codes + g * 16);
            const uint32_t code = uint32_t(level + 32);
            out.scales_low[g / 2] = uint8_t(out.scales_low[g / 2] | (code & 15u) << (g % 2 * 4));
            out.scales_high = uint16_t(out.scales_high | code >> 4 << (2 * g));
        }
    }
};

// ---- E2M1 ------------------------------------------------------------------------------------------------------------

// Twice the value: 0 1 2 3 4 6 8 12, and negatives.
QLORA_SEARCH float e2m1_doubled(uint32_t code) {
    const int magnitude = int(0xc8643210u >> (code % 8 * 4) & 15u);
    return float(code & 8u ? -magnitude : magnitude);
}

// The nearest of the sixteen; the lower code wins ties.
QLORA_SEARCH uint8_t e2m1_nearest(float value, float scale) {
    uint8_t code = 0;
    float best = std::fabs(e2m1_doubled(0) * scale - value);
    for (uint8_t i = 1; i < 16; i++) {
        const float error = std::fabs(e2m1_doubled(i) * scale - value);
        if (error < best) {
            best = error;
            code = i;
        }
    }
    return code;
}

QLORA_SEARCH float absmax_of(const float *x, int count) {
    float absmax = 0;
    for (int i = 0; i < count; i++) absmax = std::fmax(absmax, std::fabs(x[i]));
    return absmax;
}

// floor(log2(value)) where the logarithm is first rounded to f32, as files in the field have it: just below a power of two
// it rounds up to it. By integers, so that no mathematics library has a say. value > 0.
QLORA_SEARCH int floor_log2_rounded(float value) {
    const uint32_t bits = bits_of(value);
    const int exponent = int(bits >> 23) - 127, power = exponent + 1;
    if (exponent == -127) return -127; // subnormal: whoever asks clamps
    // value = 2^power (1 - k 2^-24): log2 rounds to power when k / ln 2 is at most half a unit (2^width) below power.
    const uint32_t k = 0x800000u - (bits & 0x7fffffu), size = uint32_t(power < 0 ? -power : power);
    int width = -1;
    while (size >> (width + 1)) width++;
    if (power > 0 && (size & (size - 1)) == 0) width--; // units are half as wide below a power of two
    return width >= 0 && k <= (709u << width) >> 10 ? power : exponent;
}

template <> struct Encode<Format<QLORA_FORMAT_MXFP4>> {
    static QLORA_SEARCH void block(const Source &source, BlockMXFP4 &out) {
        const float absmax = absmax_of(source.x, 32);
        const int power = absmax > 0 ? floor_log2_rounded(absmax) + 125 : 0;
        out.power = uint8_t(power < 0 ? 0 : power); // tiny blocks take the smallest scale
        const float scale = float_of(out.power < 2 ? 0x200000u << out.power : uint32_t(out.power - 1) << 23);
        uint8_t codes[32];
        for (int i = 0; i < 32; i++)
            codes[i] = uint8_t(source.stochastic ? qlora_narrow_from_f32(bits_of(source.x[i]), out.power - 127, 4, 1, 1, 7, true, source.noise(uint64_t(i)))
                                                 : e2m1_nearest(source.x[i], scale));
        pack_nibbles(codes, out.codes);
    }
};

// f32 to E4M3 without sign, half way up; above 448 it saturates. Below the smallest normal value in steps of 2^-9, of which
// at most 7.
QLORA_SEARCH uint8_t ue4m3_of(float value) {
    if (!(value > 0)) return 0;
    const uint32_t bits = bits_of(value < 448 ? value : 448.0f);
    if (bits < 121u << 23) {
        const int steps = int(value * 512 + 0.5f);
        return uint8_t(steps > 7 ? 7 : steps);
    }
    const uint32_t code = ((bits + (1u << 19)) >> 20) - (120u << 3);
    return uint8_t(code > 0x7e ? 0x7e : code);
}
QLORA_SEARCH float of_ue4m3(uint8_t code) { return float_of(qlora_f32_from_narrow(code, 8, 3, 7, 0)); }

// A group under a scale per tensor, with its E4M3 scale and E2M1 elements to nearest even.
QLORA_SEARCH uint8_t encode_under_tensor_scale(const Source &source, int first, uint8_t *codes) {
    const float *x = source.x + first;
    float wanted = absmax_of(x, 16) / 6;
    wanted = wanted / source.tensor_scale;
    wanted = wanted < 0.015625f ? 0.015625f : wanted > 448.0f ? 448.0f : wanted;
    const uint8_t scale = uint8_t(qlora_narrow_from_f32(bits_of(wanted), 0, 8, 3, 7, 0x7e, false, 0));
    const float step = of_ue4m3(scale) * source.tensor_scale;
    for (int i = 0; i < 16; i++)
        codes[i] = uint8_t(qlora_narrow_from_f32(bits_of(x[i] / step), 0, 4, 1, 1, 7, source.stochastic, source.stochastic ? source.noise(uint64_t(first + i)) : 0));
    return scale;
}

template <> struct Encode<Format<QLORA_FORMAT_NVFP4>> {
    static QLORA_SEARCH void block(const Source &source, BlockNVFP4 &out) {
        for (int g = 0; g < 4; g++) {
            const float *x = source.x + g * 16;
            if (source.tensor_scale != 0) {
                uint8_t codes[16];
                out.scales[g] = encode_under_tensor_scale(source, g * 16, codes);
                for (int i = 0; i < 8; i++) out.codes[g * 8 + i] = uint8_t(codes[i] | codes[i + 8] << 4);
                continue;
            }
            out.scales[g] = ue4m3_of(absmax_of(x, 16) / 6);
            const float scale = of_ue4m3(out.scales[g]), half = scale * 0.5f;
            uint8_t codes[16];
            for (int i = 0; i < 16; i++) {
                if (!source.stochastic || scale == 0) codes[i] = e2m1_nearest(x[i], half);
                else codes[i] = uint8_t(qlora_narrow_from_f32(bits_of(x[i] / scale), 0, 4, 1, 1, 7, true, source.noise(uint64_t(g * 16 + i))));
            }
            for (int i = 0; i < 8; i++) out.codes[g * 8 + i] = uint8_t(codes[i] | codes[i + 8] << 4);
        }
    }
};

} // namespace search
} // namespace qlora
