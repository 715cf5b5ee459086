// Decoding of codec AFFINE: w[r][c] = scale[r][group] * (code - zero[r][group]), the group that of the column or the one its
// index names. The product has at most 20 significant bits and is never subnormal, hence exact on every device. Included by
// decode.glsl.
layout(constant_id = 2) const uint BITS = 4u;
layout(constant_id = 3) const uint BLOCK = 8u; // columns of a group, any number
layout(constant_id = 4) const uint INDEXED = 0u;

layout(binding = 2, std430) readonly buffer ZeroPlane { uint zero_words[]; };
layout(binding = 3, std430) readonly buffer IndexPlane { uint index_words[]; };

#include "backends/vulkan/stream.glsl"
QLORA_STREAM(affine_zero_at, zero_words, 2u, BITS)

// Scale and zero of a column; 0 and 0 where its index is no group.
void affine_group(uint r, uint c, out float scale, out int zero) {
    uint groups = (w_stride + BLOCK - 1u) / BLOCK, group = INDEXED != 0u ? index_words[QLORA_BASE(3u) + c] : c / BLOCK, i = r * groups + group;
    scale = 0.0;
    zero = 0;
    if (group >= groups) return;
    scale = uintBitsToFloat(qlora_f32_from_f16((scale_words[QLORA_BASE(1u) + (i >> 1)] >> ((i & 1u) * 16u)) & 0xffffu));
    zero = int(affine_zero_at(i));
}

uint affine_value(uint code, float scale, int zero) {
    precise float value = scale * float(int(code) - zero);
    return floatBitsToUint(value);
}

void decode_begin() {}

uint decode(uint r, uint c) {
    float scale;
    int zero;
    affine_group(r, c, scale, zero);
    return affine_value(stream_code_at(r * w_stride + c), scale, zero);
}

// Octets begin at multiples of 8 in their row.
void decode8(uint r, uint c, out uint values[8]) {
    uint codes[8];
    float scale;
    int zero;
    stream_codes(r * w_stride + c, codes);
    [[unroll]] for (uint e = 0u; e < 8u; e++) {
        if (e == 0u || INDEXED != 0u || BLOCK % 8u != 0u) affine_group(r, c + e, scale, zero); // else all eight share one
        values[e] = affine_value(codes[e], scale, zero);
    }
}
