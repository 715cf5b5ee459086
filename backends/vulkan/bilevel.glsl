// Decoding of codec BILEVEL: w[r][c] = scale * (code - zero), scale and zero of the row and group being such values themselves, plus
// the outlier at (r, c) if there is one. Nothing is ever subnormal. Included by decode.glsl.
layout(constant_id = 2) const uint BITS = 4u;
layout(constant_id = 3) const uint BLOCK = 8u; // columns of a group, any number
layout(constant_id = 4) const uint INDEXED = 0u;
layout(constant_id = 6) const uint NESTED_BLOCK = 16u; // rows that share a grid
layout(constant_id = 7) const uint SPARSE = 0u;        // there are outliers

layout(binding = 2, std430) readonly buffer ZeroPlane { uint zero_words[]; };
layout(binding = 3, std430) readonly buffer GridPlane { uint grid_words[]; };
layout(binding = 9, std430) readonly buffer OutlierOffsets { uint offset_words[]; };
layout(binding = 10, std430) readonly buffer OutlierColumns { uint column_words[]; };
layout(binding = 12, std430) readonly buffer OutlierValues { uint outlier_words[]; };
layout(binding = 13, std430) readonly buffer IndexPlane { uint index_words[]; };

const uint STATISTIC_BITS = 3u;
#include "backends/vulkan/stream.glsl"
QLORA_STREAM(bilevel_scale_at, scale_words, 1u, STATISTIC_BITS)
QLORA_STREAM(bilevel_zero_at, zero_words, 2u, STATISTIC_BITS)
#define QLORA_PRECISE precise
#define QLORA_PRODUCT(a, b) ((a) * (b))
#include "backends/bilevel.inc"

float bilevel_half(uint word, uint shift) { return uintBitsToFloat(qlora_f32_from_f16((word >> shift) & 0xffffu)); }

// Scale and zero of the place of a column in row r.
void bilevel_group(uint r, uint place, out float scale, out float zero) {
    uint groups = (w_stride + BLOCK - 1u) / BLOCK, group = place / BLOCK, i = r * groups + group;
    uint grid = QLORA_BASE(3u) + (r / NESTED_BLOCK * groups + group) * 2u, units = grid_words[grid], zeros = grid_words[grid + 1u];
    scale = qlora_bilevel_value(bilevel_half(units, 0u), bilevel_half(zeros, 0u), bilevel_scale_at(i));
    zero = qlora_bilevel_value(bilevel_half(units, 16u), bilevel_half(zeros, 16u), bilevel_zero_at(i));
}

// The first outlier of row r at or behind column c, and the end of the row's.
void bilevel_outliers(uint r, uint c, out uint first, out uint end) {
    uint room = uint(column_words.length()) - QLORA_BASE(10u), place = QLORA_BASE(9u) + r;
    first = offset_words[place];
    end = min(offset_words[place + 1u], room);
    for (uint high = end; first < high;) {
        uint middle = first + (high - first) / 2u;
        if (column_words[QLORA_BASE(10u) + middle] < c) first = middle + 1u;
        else high = middle;
    }
}
float bilevel_outlier(uint i) { return bilevel_half(outlier_words[QLORA_BASE(12u) + (i >> 1)], (i & 1u) * 16u); }

void decode_begin() {}

uint decode(uint r, uint c) {
    uint place = INDEXED != 0u ? index_words[QLORA_BASE(13u) + c] : c;
    float value = 0.0;
    if (place < w_stride) {
        float scale, zero;
        bilevel_group(r, place, scale, zero);
        value = qlora_bilevel_value(scale, zero, stream_code_at(r * w_stride + place));
    }
    if (SPARSE != 0u) {
        uint i, end;
        bilevel_outliers(r, c, i, end);
        if (i < end && column_words[QLORA_BASE(10u) + i] == c) {
            precise float sum = value + bilevel_outlier(i);
            value = sum;
        }
    }
    return floatBitsToUint(value);
}

// Octets begin at multiples of 8 in their row.
void decode8(uint r, uint c, out uint values[8]) {
    if (INDEXED != 0u) {
        [[dont_unroll]] for (uint e = 0u; e < 8u; e++) values[e] = decode(r, c + e);
        return;
    }
    uint codes[8];
    float scale, zero;
    stream_codes(r * w_stride + c, codes);
    [[unroll]] for (uint e = 0u; e < 8u; e++) {
        if (e == 0u || BLOCK % 8u != 0u) bilevel_group(r, c + e, scale, zero); // else all eight share one
        values[e] = floatBitsToUint(qlora_bilevel_value(scale, zero, codes[e]));
    }
    if (SPARSE == 0u) return;
    uint i, end;
    bilevel_outliers(r, c, i, end);
    for (; i < end; i++) {
        uint column = column_words[QLORA_BASE(10u) + i] - c;
        if (column >= 8u) break;
        [[unroll]] for (uint e = 0u; e < 8u; e++)
            if (e == column) {
                precise float sum = uintBitsToFloat(values[e]) + bilevel_outlier(i);
                values[e] = floatBitsToUint(sum);
            }
    }
}
