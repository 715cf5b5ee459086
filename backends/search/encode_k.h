// Encoders of the K types: super-blocks of 256 values in groups of 16 or 32. First every group is searched on its own, then
// the groups' scales (and minima) are quantized, then all codes are made again with the scales as they will be read.
#pragma once
#include "backends/search/encode_simple.h"

namespace qlora {
namespace search {

constexpr int super = 256;

// Codes of one group once its scale and minimum are settled; a group whose scale is 0 keeps what its search found, which
// is multiplied by 0.
QLORA_SEARCH void recode(const float *x, int count, float scale, float minimum, int low, int high, uint8_t *codes) {
    if (scale == 0) return;
    for (int i = 0; i < count; i++) codes[i] = uint8_t(nearest((x[i] + minimum) / scale, low, high) - low);
}
QLORA_SEARCH void recode(const float *x, int count, float scale, int low, int high, uint8_t *codes) {
    if (scale == 0) return;
    for (int i = 0; i < count; i++) codes[i] = uint8_t(nearest(x[i] / scale, low, high) - low);
}

QLORA_SEARCH float sum_of(const float *values, int count) {
    float sum = 0;
    for (int i = 0; i < count; i++) sum += values[i];
    return sum;
}

// Two bits of each code, 32 elements to a shift, 128 to a run of 32 bytes.
QLORA_SEARCH void pack_crumbs(const uint8_t *codes, uint8_t *bytes) {
    for (int i = 0; i < super / 4; i++) {
        const uint8_t *first = codes + i / 32 * 128 + i % 32;
        bytes[i] = uint8_t((first[0] & 3u) | (first[32] & 3u) << 2 | (first[64] & 3u) << 4 | (first[96] & 3u) << 6);
    }
}

// ---- affine: Q2_K, Q4_K, Q5_K ----------------------------------------------------------------------------------------

struct AffineGroups {
    float scales[16], minima[16];
    uint8_t scale_codes[16], minimum_codes[16];
    uint16_t scale, minimum; // f16, of the whole
};

// Searches the groups and quantizes their scales and minima to at most `top`. codes are the search's.
template <int Group> QLORA_SEARCH void search_affine(const Source &source, int levels, const Grid &plain_grid, int top, AffineGroups &out, uint8_t *codes) {
    constexpr int groups = super / Group;
    float weight_sums[groups];
    float mean_square = sum_of_squares(source.x, super) / super;
    if (Group == 32) mean_square *= 2;
    for (int g = 0; g < groups; g++) {
        const float *x = source.x + g * Group;
        float w[Group];
        if (source.importance) weights_of(source, mean_square, g * Group, Group, w);
        else {
            const float root = Group == 32 ? std::sqrt(sum_of_squares(x, Group) / Group) : 0.0f;
            for (int i = 0; i < Group; i++) w[i] = root + std::fabs(x[i]);
        }
        weight_sums[g] = sum_of(w, Group);
        const Affine fit = affine_grid(x, w, Group, levels, source.importance ? importance_grid() : plain_grid, codes + g * Group);
        out.scales[g] = fit.scale;
        out.minima[g] = fit.minimum;
    }
    if (source.importance) {
        out.scale = half_of(positive_descent(out.scales, weight_sums, groups, top, out.scale_codes));
        out.minimum = half_of(positive_descent(out.minima, weight_sums, groups, top, out.minimum_codes));
        return;
    }
    auto settle = [&](const float *values, uint8_t *of_groups) {
        float high = 0;
        for (int g = 0; g < groups; g++)
            if (values[g] > high) high = values[g];
        const float inverse = high > 0 ? float(top) / high : 0.0f;
        for (int g = 0; g < groups; g++) of_groups[g] = uint8_t(nearest(inverse * values[g], 0, top));
        return half_of(high / float(top));
    };
    out.scale = settle(out.scales, out.scale_codes);
    out.minimum = settle(out.minima, out.minimum_codes);
}

template <int Group> QLORA_SEARCH void recode_affine(const Source &source, int levels, const AffineGroups &groups, uint8_t *codes) {
    for (int g = 0; g < super / Group; g++)
        recode(source.x + g * Group, Group, of_half(groups.scale) * float(groups.scale_codes[g]), of_half(groups.minimum) * float(groups.minimum_codes[g]),
               0, levels, codes + g * Group);
}

template <> struct Encode<Format<QLORA_FORMAT_Q2_K>> {
    static QLORA_SEARCH void block(const Source &source, BlockQ2_K &out) {
        uint8_t codes[super];
        AffineGroups groups;
        search_affine<16>(source, 3, {-0.5f, 0.1f, 15, true}, 15, groups, codes);
        recode_affine<16>(source, 3, groups, codes);
        out.scale = groups.scale;
        out.minimum = groups.minimum;
        for (int g = 0; g < 16; g++) out.scales[g] = uint8_t(groups.scale_codes[g] | groups.minimum_codes[g] << 4);
        pack_crumbs(codes, out.codes);
    }
};

// Eight 6-bit scales and minima in 12 bytes: the low four pairs whole, the high two bits of the others above them.
QLORA_SEARCH void pack_pairs(const AffineGroups &groups, uint8_t *bytes) {
    for (int g = 0; g < 4; g++) {
        const uint32_t scale = groups.scale_codes[g + 4], minimum = groups.minimum_codes[g + 4];
        bytes[g] = uint8_t(groups.scale_codes[g] | scale >> 4 << 6);
        bytes[g + 4] = uint8_t(groups.minimum_codes[g] | minimum >> 4 << 6);
        bytes[g + 8] = uint8_t((scale & 15u) | (minimum & 15u) << 4);
    }
}
// Low nibbles: 64 elements to a run of 32 bytes.
QLORA_SEARCH void pack_low_nibbles(const uint8_t *codes, uint8_t *bytes) {
    for (int i = 0; i < super / 2; i++) {
        const uint8_t *first = codes + i / 32 * 64 + i % 32;
        bytes[i] = uint8_t((first[0] & 15u) | (first[32] & 15u) << 4);
    }
}

template <> struct Encode<Format<QLORA_FORMAT_Q4_K>> {
    static QLORA_SEARCH void block(const Source &source, BlockQ4_K &out) {
        uint8_t codes[super];
        AffineGroups groups;
        search_affine<32>(source, 15, {-1.0f, 0.1f, 20, false}, 63, groups, codes);
        recode_affine<32>(source, 15, groups, codes);
        out.scale = groups.scale;
        out.minimum = groups.minimum;
        pack_pairs(groups, out.scales);
        pack_low_nibbles(codes, out.codes);
    }
};
template <> struct Encode<Format<QLORA_FORMAT_Q5_K>> {
    static QLORA_SEARCH void block(const Source &source, BlockQ5_K &out) {
        uint8_t codes[super];
        AffineGroups groups;
        search_affine<32>(source, 31, {-0.5f, 0.1f, 15, false}, 63, groups, codes);
        recode_affine<32>(source, 31, groups, codes);
        out.scale = groups.scale;
        out.minimum = groups.minimum;
        pack_pairs(groups, out.scales);
        pack_low_nibbles(codes, out.codes);
        std::memset(out.high, 0, sizeof out.high);
        for (int i = 0; i < super; i++) out.high[i % 32] = uint8_t(out.high[i % 32] | codes[i] >> 4 << (i / 32));
    }
};

// ---- symmetric: Q3_K, Q6_K -------------------------------------------------------------------------------------------

template <> struct Encode<Format<QLORA_FORMAT_Q3_K>> {
    static QLORA_SEARCH void block(const Source &source, BlockQ3_K &out) {
        uint8_t codes[super], scale_codes[16] = {};
        float scales[16], weight_sums[16];
        const float mean_square = 2 * sum_of_squares(source.x, super) / super;
        for (int g = 0; g < 16; g++) {
            const float *x = source.x + g * 16;
            if (!source.importance) {
                scales[g] = symmetric_descent(x, 16, 4, codes + g * 16);
                continue;
            }
            float w[16];
            weights_of(source, mean_square, g * 16, 16, w);
            weight_sums[g] = sum_of(w, 16);
            scales[g] = symmetric_grid(x, w, 16, 4, codes + g * 16);
        }
        if (source.importance) out.scale = half_of(symmetric_grid(scales, weight_sums, 16, 32, scale_codes));
        else {
            const float extreme = extreme_of(scales, 16, 0.0f), inverse = extreme != 0 ? -32.0f / extreme : 0.0f;
            for (int g = 0; g < 16 && extreme != 0; g++) scale_codes[g] = uint8_t(nearest(inverse * scales[g], -32, 31) + 32);
            out.scale = half_of(extreme != 0 ? 1 / inverse : 0.0f);
        }
        for (int g = 0; g < 16; g++)
            recode(source.x + g * 16, 16, of_half(out.scale) * float(int(scale_codes[g]) - 32), -4, 3, codes + g * 16);
        for (int g = 0; g < 8; g++) out.scales[g] = uint8_t((scale_codes[g] & 15u) | (scale_codes[g + 8] & 15u) << 4);
        for (int g = 0; g < 4; g++) {
            out.scales[g + 8] = 0;
            for (int k = 0; k < 4; k++) out.scales[g + 8] = uint8_t(out.scales[g + 8] | scale_codes[g + 4 * k] >> 4 << (2 * k));
        }
        std::memset(out.high, 0, sizeof out.high);
        for (int i = 0; i < super; i++) out.high[i % 32] = uint8_t(out.high[i % 32] | codes[i] >> 2 << (i / 32));
        pack_crumbs(codes, out.codes);
    }
};

template <> struct Encode<Format<QLORA_FORMAT_Q6_K>> {
    static QLORA_SEARCH void block(const Source &source, BlockQ6_K &out) {
        uint8_t codes[super];
        float scales[16];
        for (int g = 0; g < 16; g++) {
            const float *w = source.importance ? source.importance + g * 16 : nullptr;
            scales[g] = symmetric_grid(source.x + g * 16, w, 16, 32, codes + g * 16);
        }
        const float extreme = extreme_of(scales, 16);
        if (extreme == 0) {
            std::memset(static_cast<void *>(&out), 0, sizeof out);
            return;
        }
        const float inverse = -128.0f / extreme;
        out.scale = half_of(1 / inverse);
        for (int g = 0; g < 16; g++) {
            const int scale = nearest(inverse * scales[g]);
            out.scales[g] = int8_t(scale > 127 ? 127 : scale);
            recode(source.x + g * 16, 16, of_half(out.scale) * float(out.scales[g]), -32, 31, codes + g * 16);
        }
        uint8_t high[super];
        for (int i = 0; i < super; i++) high[i] = uint8_t(codes[i] >> 4);
        pack_crumbs(high, out.high);
        for (int i = 0; i < super / 2; i++) {
            const uint8_t *first = codes + i / 64 * 128 + i % 64;
            out.codes[i] = uint8_t((first[0] & 15u) | (first[64] & 15u) << 4);
        }
    }
};

} // namespace search
} // namespace qlora
