// Decoding of codec AFFINE: w[r][c] = scale[r][group] * (code - zero[r][group]), the group that of the column or the one its
// index names. The product has at most 20 significant bits and is never subnormal, hence exact on every device. Included by
// decode.glsl.
layout(constant_id = 2) const uint BITS = 4u;
layout(constant_id = 3) const uint BLOCK = 8u; // columns of a group, any number
layout(constant_id = 4) const uint INDEXED = 0u;

layout(binding = 2, std430) readonly buffer ZeroPlane { uint zero_words[]; };
layout(binding = 3, std430) readonly buffer IndexPlane { uint index_words[]; };

#include "backends/affine.inc"

// The code that begins at a bit (0..31) of a word; following is the next word, of no meaning where the code ends in the first.
uint affine_code(uint word, uint following, uint bit) {
    uint byte = bit >> 3;
    return qlora_stream_code((word >> (byte * 8u)) & 255u, byte == 3u ? following & 255u : (word >> (byte * 8u + 8u)) & 255u, bit & 7u, BITS);
}

// Defines name(i): code i of the stream at a binding; nothing is read behind it.
#define QLORA_STREAM(name, words, binding)                                                                    \
    uint name(uint i) {                                                                                       \
        uint bit = (i & 31u) * BITS, place = QLORA_BASE(binding) + (i >> 5) * BITS + (bit >> 5);              \
        bit &= 31u;                                                                                           \
        return affine_code(words[place], bit + BITS > 32u ? words[place + 1u] : 0u, bit);                     \
    }
QLORA_STREAM(affine_code_at, code_words, 0u)
QLORA_STREAM(affine_zero_at, zero_words, 2u)

// Codes i to i + 7 of the code plane, i a multiple of 8: as many bytes as a code has bits.
void affine_codes(uint i, out uint codes[8]) {
    uint byte = (i >> 3) * BITS, place = QLORA_BASE(0u) + (byte >> 2), shift = (byte & 3u) * 8u;
    uint low = code_words[place], high = shift + BITS * 8u > 32u ? code_words[place + 1u] : 0u, mask = (1u << BITS) - 1u;
    if (BITS == 3u && shift != 0u) low = (low >> shift) | (high << (32u - shift));
    if (BITS == 2u) low >>= shift;
    [[unroll]] for (uint e = 0u; e < 8u; e++) codes[e] = ((BITS == 8u && e > 3u ? high : low) >> (e * BITS & 31u)) & mask;
}

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
    return affine_value(affine_code_at(r * w_stride + c), scale, zero);
}

// Octets begin at multiples of 8 in their row.
void decode8(uint r, uint c, out uint values[8]) {
    uint codes[8];
    float scale;
    int zero;
    affine_codes(r * w_stride + c, codes);
    [[unroll]] for (uint e = 0u; e < 8u; e++) {
        if (e == 0u || INDEXED != 0u || BLOCK % 8u != 0u) affine_group(r, c + e, scale, zero); // else all eight share one
        values[e] = affine_value(codes[e], scale, zero);
    }
}
