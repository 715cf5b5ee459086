// Codes of small floats: an invocation takes 32 elements of src[rows][cols], flattened, which are a whole number of words of
// codes. With E8M0 scales they are a block, whose power of two is found here; f32 scales were written before
// (quantize_absmax_vulkan.comp).
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : enable
layout(local_size_x = 64) in;

#include "backends/vulkan/common.glsl"
#include "backends/vulkan/exact.glsl"
#include "backends/narrow.inc"

layout(constant_id = 0) const uint TYPE = 0x100u;        // of src
layout(constant_id = 1) const uint CONTIGUOUS = 1u;      // src.stride is src.cols
layout(constant_id = 2) const uint BLOCK_SHIFT = 5u;
layout(constant_id = 3) const uint POWERS = 0u;          // scales are E8M0
layout(constant_id = 4) const uint STOCHASTIC = 0u;
layout(constant_id = 5) const uint BITS = 8u;
layout(constant_id = 6) const uint MANTISSA = 3u;
layout(constant_id = 7) const uint BIAS = 7u;
layout(constant_id = 8) const uint MAXIMUM = 0x7eu;

layout(binding = 0, std430) readonly buffer Src { uint src_words[]; };
layout(binding = 1, std430) buffer Codes { uint code_words[]; };
layout(binding = 2, std430) buffer Scales { uint scale_words[]; };

QLORA_PUSH
    uint elements, cols, stride, rule, seed_low, seed_high;
};
QLORA_READ(read_src, src_words, 0u, TYPE)
QLORA_WRITE_WORD(write_codes, code_words, 1u)
QLORA_WRITE_WORD(write_scales, scale_words, 2u)

shared uint powers[64];

uint source(uint i) { return read_src_bits(CONTIGUOUS != 0u ? i : i / cols * stride + i % cols); }

// Writes the powers of this workgroup's blocks, four to a word, and gives this invocation's.
int write_powers(uint first) {
    uint absmax = 0u, lane = gl_LocalInvocationIndex;
    [[dont_unroll]] for (uint i = first; i < min(first + 32u, elements); i++) absmax = max(absmax, source(i) & 0x7fffffffu);
    uint power = qlora_e8m0_from_absmax(absmax, MANTISSA, BIAS, MAXIMUM, rule);
    powers[lane] = power;
    barrier();
    if (lane < 16u)
        write_scales(group_index() * 16u + lane, powers[lane * 4u] | (powers[lane * 4u + 1u] << 8) | (powers[lane * 4u + 2u] << 16) | (powers[lane * 4u + 3u] << 24),
                     elements >> 5);
    return int(power) - 127;
}

void main() {
    uint piece = group_index() * 64u + gl_LocalInvocationIndex, first = piece * 32u, inverse = 0u;
    int power = POWERS != 0u ? write_powers(first) : 0;
    if (first >= elements) return;
    if (POWERS == 0u) {
        uint scale = scale_words[QLORA_BASE(2u) + (first >> BLOCK_SHIFT)];
        if (scale != 0u) inverse = exact_divide(0x3f800000u, scale);
    }
    uint word = 0u, filled = 0u, place = piece * BITS, limit = (elements * BITS + 7u) / 8u;
    [[dont_unroll]] for (uint e = 0u; e < 32u; e++) {
        uint i = first + e, code = 0u;
        if (i < elements) {
            uint value = POWERS != 0u ? source(i) : exact_multiply(source(i), inverse);
            uint noise = STOCHASTIC != 0u ? qlora_random(seed_low, seed_high, i, 0u) : 0u;
            code = qlora_narrow_from_f32(value, power, BITS, MANTISSA, BIAS, MAXIMUM, STOCHASTIC != 0u, noise);
        }
        word |= code << filled;
        filled += BITS;
        if (filled >= 32u) {
            write_codes(place, word, limit);
            place += 1u;
            filled -= 32u;
            word = code >> (BITS - filled);
        }
    }
}
