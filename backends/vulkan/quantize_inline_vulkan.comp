// ggml blocks of 32 with their f16 scale inside. Two blocks are a whole number of words, so an invocation takes two.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : enable
layout(local_size_x = 64) in;

#include "backends/vulkan/common.glsl"
#include "backends/vulkan/exact.glsl"

const uint CODEC_OFFSET4 = 3u, CODEC_SIGNED8 = 4u; // as in decode.glsl
layout(constant_id = 0) const uint CODEC = 3u;
layout(constant_id = 1) const uint TYPE = 0x100u; // of src

layout(binding = 0, std430) readonly buffer Src { uint src_words[]; };
layout(binding = 1, std430) buffer Codes { uint code_words[]; };

QLORA_PUSH
    uint blocks, cols, stride;
};
QLORA_READ(read_src, src_words, 0u, TYPE)

const uint HALVES = CODEC == CODEC_OFFSET4 ? 9u : 17u; // of a block

// Code of x * inverse for Q4_0: rounded by adding 8.5 and truncating. An infinite inverse makes all codes 0.
uint encode_offset4(uint x, uint inverse) {
    if ((inverse & 0x7fffffffu) == 0x7f800000u) return 0u;
    precise float moved = uintBitsToFloat(exact_multiply(x, inverse)) + 8.5;
    return uint(min(int(moved), 15)) & 15u;
}
// Half away from zero, for Q8_0. Adding 0.5 could round up what lies just below a half.
uint encode_signed8(uint x, uint inverse) {
    float y = uintBitsToFloat(exact_multiply(x, inverse)), magnitude = abs(y), whole = floor(magnitude);
    if (magnitude - whole >= 0.5) whole += 1.0;
    return uint(int(y < 0.0 ? -whole : whole)) & 255u;
}

void encode_block(uint block, out uint halves[17]) {
    uint i = block * 32u, place = i / cols * stride + i % cols, values[32], extreme = 0u;
    [[unroll]] for (uint j = 0u; j < 32u; j++) {
        values[j] = read_src_bits(place + j);
        if ((values[j] & 0x7fffffffu) > (extreme & 0x7fffffffu)) extreme = values[j]; // the first of the largest wins
    }
    uint scale = CODEC == CODEC_OFFSET4 ? exact_divide(extreme, 0xc1000000u) : exact_divide(extreme & 0x7fffffffu, 0x42fe0000u); // / -8, / 127
    uint inverse = (scale & 0x7fffffffu) != 0u ? exact_divide(0x3f800000u, scale) : 0u;
    if (CODEC == CODEC_SIGNED8 && inverse == 0x7f800000u) inverse = 0u; // a scale whose reciprocal overflows counts as zero
    halves[0] = qlora_f16_from_f32(scale);
    if (CODEC == CODEC_OFFSET4) {
        [[dont_unroll]] for (uint h = 0u; h < 8u; h++) {
            uint low = encode_offset4(values[2u * h], inverse) | (encode_offset4(values[2u * h + 16u], inverse) << 4);
            uint high = encode_offset4(values[2u * h + 1u], inverse) | (encode_offset4(values[2u * h + 17u], inverse) << 4);
            halves[1u + h] = low | (high << 8);
        }
    } else {
        [[dont_unroll]] for (uint h = 0u; h < 16u; h++) halves[1u + h] = encode_signed8(values[2u * h], inverse) | (encode_signed8(values[2u * h + 1u], inverse) << 8);
    }
}

void main() {
    uint block = (group_index() * 64u + gl_LocalInvocationIndex) * 2u;
    if (block >= blocks) return;
    uint halves[34], one[17];
    bool second = block + 1u < blocks;
    encode_block(block, one);
    [[unroll]] for (uint h = 0u; h < HALVES; h++) halves[h] = one[h];
    if (second) {
        encode_block(block + 1u, one);
        [[unroll]] for (uint h = 0u; h < HALVES; h++) halves[HALVES + h] = one[h];
    }
    uint place = QLORA_BASE(1u) + block / 2u * HALVES;
    for (uint word = 0u; word < HALVES; word++) {
        if (second || word * 2u + 1u < HALVES) code_words[place + word] = halves[word * 2u] | (halves[word * 2u + 1u] << 16);
        else if (word * 2u < HALVES) code_words[place + word] = (code_words[place + word] & 0xffff0000u) | halves[word * 2u];
    }
}
