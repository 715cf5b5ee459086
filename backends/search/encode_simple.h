// Encoders of blocks of 32: Q4_0, Q4_1, Q5_0, Q5_1 in closed form, or by search when columns have an importance.
// Codes are made with the scale before its rounding to f16, as ggml does.
#pragma once
#include "backends/search/search.h"

namespace qlora {
namespace search {

template <class F> struct Encode; // Encode<F>::block(source, bytes) for every row that has a search or a closed form here

// Weights of errors: importance times the value's own size against the row's.
QLORA_SEARCH void weights_of(const Source &source, float mean_square, int begin, int count, float *w) {
    for (int i = 0; i < count; i++) {
        const float x = source.x[begin + i];
        w[i] = source.importance[begin + i] * std::sqrt(mean_square + x * x);
    }
}

QLORA_SEARCH void pack_nibbles(const uint8_t *codes, uint8_t *bytes) {
    for (int i = 0; i < 16; i++) bytes[i] = uint8_t((codes[i] & 15u) | (codes[i + 16] & 15u) << 4);
}
QLORA_SEARCH void pack_fifth_bits(const uint8_t *codes, uint8_t *bytes) {
    std::memset(bytes, 0, 4);
    for (int i = 0; i < 32; i++) bytes[i / 8] = uint8_t(bytes[i / 8] | ((codes[i] >> 4) & 1u) << (i % 8));
}

// Truncation for values that lie in [0, top + 1) but for rounding. A subnormal scale has an infinite inverse: then all is 0.
QLORA_SEARCH uint8_t truncate(float value, int top) {
    if (!(value >= 0 && value < 2147483648.0f)) return 0;
    return uint8_t(value < float(top) ? int(value) : top);
}

// x ~ (code - levels) * scale. The extreme is code 0, whatever its sign.
QLORA_SEARCH float encode_offset(const Source &source, int levels, uint8_t *codes) {
    if (source.importance) {
        float w[32];
        weights_of(source, source.row_mean_square, 0, 32, w);
        return symmetric_grid(source.x, w, 32, levels, codes);
    }
    const float scale = extreme_of(source.x, 32, 0.0f) / -float(levels), inverse = scale != 0 ? 1.0f / scale : 0.0f;
    for (int i = 0; i < 32; i++) codes[i] = truncate(source.x[i] * inverse + (float(levels) + 0.5f), 2 * levels - 1);
    return scale;
}

// x ~ code * scale - minimum.
QLORA_SEARCH Affine encode_affine(const Source &source, int levels, uint8_t *codes) {
    if (source.importance) {
        float w[32];
        weights_of(source, source.row_mean_square, 0, 32, w);
        return affine_grid(source.x, w, 32, levels, importance_grid(), codes);
    }
    float low = source.x[0], high = source.x[0];
    for (int i = 1; i < 32; i++) {
        if (source.x[i] < low) low = source.x[i];
        if (source.x[i] > high) high = source.x[i];
    }
    const float scale = (high - low) / float(levels), inverse = scale != 0 ? 1.0f / scale : 0.0f;
    for (int i = 0; i < 32; i++) codes[i] = truncate((source.x[i] - low) * inverse + 0.5f, levels);
    return {scale, -low};
}

template <> struct Encode<Format<QLORA_FORMAT_Q4_0>> {
    static QLORA_SEARCH void block(const Source &source, BlockQ4_0 &out) {
        uint8_t codes[32];
        out.scale = half_of(encode_offset(source, 8, codes));
        pack_nibbles(codes, out.codes);
    }
};
template <> struct Encode<Format<QLORA_FORMAT_Q5_0>> {
    static QLORA_SEARCH void block(const Source &source, BlockQ5_0 &out) {
        uint8_t codes[32];
        out.scale = half_of(encode_offset(source, 16, codes));
        pack_nibbles(codes, out.codes);
        pack_fifth_bits(codes, out.high);
    }
};
template <> struct Encode<Format<QLORA_FORMAT_Q4_1>> {
    static QLORA_SEARCH void block(const Source &source, BlockQ4_1 &out) {
        uint8_t codes[32];
        const Affine fit = encode_affine(source, 15, codes);
        out.scale = half_of(fit.scale);
        out.minimum = half_of(-fit.minimum);
        pack_nibbles(codes, out.codes);
    }
};
template <> struct Encode<Format<QLORA_FORMAT_Q5_1>> {
    static QLORA_SEARCH void block(const Source &source, BlockQ5_1 &out) {
        uint8_t codes[32];
        const Affine fit = encode_affine(source, 31, codes);
        out.scale = half_of(fit.scale);
        out.minimum = half_of(-fit.minimum);
        pack_nibbles(codes, out.codes);
        pack_fifth_bits(codes, out.high);
    }
};

} // namespace search
} // namespace qlora
