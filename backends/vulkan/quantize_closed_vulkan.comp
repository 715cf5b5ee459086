// Interleaved blocks whose codes follow from their values without a search (backends/search/encode_simple.h and E2M1 of
// encode_four.h): Q4_1, Q5_0, Q5_1, MXFP4, NVFP4. An invocation takes as many blocks as are a whole number of words.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : enable
layout(local_size_x = 64) in;

#include "backends/vulkan/common.glsl"
#include "backends/vulkan/exact.glsl"
#include "backends/narrow.inc"

layout(constant_id = 0) const uint FORMAT = QLORA_FORMAT_Q4_1;
layout(constant_id = 1) const uint TYPE = 0x100u; // of src
layout(constant_id = 2) const uint BLOCK = 32u;
layout(constant_id = 3) const uint BLOCK_BYTES = 20u;
layout(constant_id = 4) const uint BITS = 4u;
layout(constant_id = 5) const uint STOCHASTIC = 0u;

layout(binding = 0, std430) readonly buffer Src { uint src_words[]; };
layout(binding = 1, std430) buffer Codes { uint code_words[]; };

QLORA_PUSH
    uint blocks, cols, stride, each, seed_low, seed_high; // each: blocks of an invocation
    uint tensor_scale; // of NVFP4, as bits; 0: none
};
QLORA_READ(read_src, src_words, 0u, TYPE)
QLORA_WRITE_WORD(write_codes, code_words, 1u)

const uint TOP = (1u << BITS) - 1u; // the largest code

uint source_place, source_index; // of the block's first element: in src, and flattened

uint source(uint i) { return read_src_bits(source_place + i); }
uint noise_of(uint i) { return STOCHASTIC != 0u ? qlora_random(seed_low, seed_high, source_index + i, 0u) : 0u; }

// The words under way: bits are appended lowest first.
uint pending, pending_bits, out_place, out_limit;
void append(uint value, uint bits) {
    pending |= value << pending_bits;
    if (pending_bits + bits >= 32u) {
        write_codes(out_place, pending, out_limit);
        out_place += 1u;
        pending = pending_bits == 0u ? 0u : value >> (32u - pending_bits);
    }
    pending_bits = (pending_bits + bits) & 31u;
}

// a < b for floats that are no NaN, subnormals included; -0 is not below 0.
bool less(uint a, uint b) {
    if (((a | b) & 0x7fffffffu) == 0u) return false;
    return (a ^ ((a >> 31) != 0u ? 0xffffffffu : 0x80000000u)) < (b ^ ((b >> 31) != 0u ? 0xffffffffu : 0x80000000u));
}

// Truncated into 0..TOP; what is negative, NaN or beyond all integers is 0.
uint truncate_code(uint product, float plus) {
    precise float value = uintBitsToFloat(product) + plus;
    uint bits = floatBitsToUint(value);
    if (bits >= 0x4f000000u) return 0u;
    return value < float(TOP) ? uint(int(value)) : TOP;
}

// Q5_0: x ~ (code - 16) * scale, where the extreme is code 0. Q4_1, Q5_1: x ~ code * scale + minimum.
void encode_levels() {
    const bool offset = FORMAT == QLORA_FORMAT_Q5_0;
    uint low = source(0u), high = low, extreme = 0u;
    [[dont_unroll]] for (uint i = 0u; i < 32u; i++) {
        uint x = source(i);
        if (less(x, low)) low = x;
        if (less(high, x)) high = x;
        if ((x & 0x7fffffffu) > (extreme & 0x7fffffffu)) extreme = x; // the first of the largest wins
    }
    uint scale = offset ? exact_divide(extreme, 0xc1800000u) : exact_divide(exact_add(high, low ^ 0x80000000u), floatBitsToUint(float(TOP)));
    uint inverse = (scale & 0x7fffffffu) != 0u ? exact_divide(0x3f800000u, scale) : 0u;
    uint nibbles[4] = uint[4](0u, 0u, 0u, 0u), fifth = 0u;
    [[dont_unroll]] for (uint i = 0u; i < 32u; i++) {
        uint x = source(i);
        uint code = truncate_code(exact_multiply(offset ? x : exact_add(x, low ^ 0x80000000u), inverse), offset ? 16.5 : 0.5);
        nibbles[(i & 15u) >> 2] |= (code & 15u) << ((i & 3u) * 8u + (i >> 4) * 4u);
        fifth |= (code >> 4) << i;
    }
    append(qlora_f16_from_f32(scale), 16u);
    if (!offset) append(qlora_f16_from_f32(low), 16u);
    if (BITS == 5u) append(fifth, 32u);
    [[dont_unroll]] for (uint n = 0u; n < 4u; n++) append(nibbles[n], 32u);
}

// floor(log2(value)) where the logarithm is first rounded to f32 (floor_log2_rounded() of encode_four.h).
int floor_log2_rounded(uint bits) {
    int exponent = int(bits >> 23) - 127, power = exponent + 1;
    if (exponent == -127) return -127;
    uint k = 0x800000u - (bits & 0x7fffffu), size = uint(abs(power));
    int width = findMSB(size); // -1 for 0
    if (power > 0 && (size & (size - 1u)) == 0u) width -= 1;
    return width >= 0 && k <= ((709u << uint(width)) >> 10) ? power : exponent;
}

// The nearest E2M1 code of magnitude / 2^(power - 127), the smaller one at ties: by integers, since all may be subnormal.
uint nearest_of_power(uint magnitude, uint power) {
    if (magnitude == 0u) return 0u;
    int exponent;
    uint mantissa = exact_mantissa(magnitude, exponent), code = 0u;
    int shift = int(power) - 129 - exponent; // four times the quotient is mantissa / 2^shift
    if (shift > 26) return 0u;
    if (shift < 0) return 7u;
    // Four times the middles between 0 0.5 1 1.5 2 3 4 6.
    const uint middles[7] = uint[7](1u, 3u, 5u, 7u, 10u, 14u, 20u);
    [[unroll]] for (uint m = 0u; m < 7u; m++) code += mantissa > (middles[m] << uint(shift)) ? 1u : 0u;
    return power >= 253u ? min(code, 5u) : code; // 4 * 2^126 is beyond f32, and so never the nearest
}

void encode_mxfp4() {
    uint absmax = 0u;
    [[dont_unroll]] for (uint i = 0u; i < 32u; i++) absmax = max(absmax, source(i) & 0x7fffffffu);
    uint power = absmax != 0u ? uint(max(floor_log2_rounded(absmax) + 125, 0)) : 0u, nibbles[4] = uint[4](0u, 0u, 0u, 0u);
    [[dont_unroll]] for (uint i = 0u; i < 32u; i++) {
        uint x = source(i), code = STOCHASTIC != 0u ? qlora_narrow_from_f32(x, int(power) - 127, 4u, 1u, 1u, 7u, true, noise_of(i)) : nearest_of_power(x & 0x7fffffffu, power);
        if (STOCHASTIC == 0u && code != 0u) code |= (x >> 31) << 3;
        nibbles[(i & 15u) >> 2] |= code << ((i & 3u) * 8u + (i >> 4) * 4u);
    }
    append(power, 8u);
    [[dont_unroll]] for (uint n = 0u; n < 4u; n++) append(nibbles[n], 32u);
}

// f32 to E4M3 without sign, half way up; saturates.
uint ue4m3_of(uint bits) {
    bits = min(bits, 0x43e00000u); // 448
    if (bits < (121u << 23)) {
        precise float steps = uintBitsToFloat(bits) * 512.0 + 0.5;
        return min(uint(int(steps)), 7u);
    }
    return min(((bits + (1u << 19)) >> 20) - (120u << 3), 0x7eu);
}

void encode_nvfp4() {
    uint scales = 0u;
    [[dont_unroll]] for (uint g = 0u; g < 4u; g++) {
        uint absmax = 0u;
        [[dont_unroll]] for (uint i = 0u; i < 16u; i++) absmax = max(absmax, source(g * 16u + i) & 0x7fffffffu);
        uint wanted = exact_divide(absmax, 0x40c00000u); // / 6
        if (tensor_scale == 0u) scales |= ue4m3_of(wanted) << (g * 8u);
        else scales |= qlora_narrow_from_f32(clamp(exact_divide(wanted, tensor_scale), 0x3c800000u, 0x43e00000u), 0, 8u, 3u, 7u, 0x7eu, false, 0u) << (g * 8u); // 2^-6 .. 448
    }
    append(scales, 32u);
    uint word = 0u;
    [[dont_unroll]] for (uint n = 0u; n < 64u; n++) { // nibbles in the order of bytes: element 0, 8, 1, 9, ... of each group
        uint g = n >> 4, i = g * 16u + ((n >> 1) & 7u) + (n & 1u) * 8u, x = source(i);
        uint scale = qlora_f32_from_narrow((scales >> (g * 8u)) & 255u, 8u, 3u, 7u, 0), code = 0u;
        if (tensor_scale != 0u) {
            code = qlora_narrow_from_f32(exact_divide(x, exact_multiply(scale, tensor_scale)), 0, 4u, 1u, 1u, 7u, STOCHASTIC != 0u, noise_of(i));
        } else if (STOCHASTIC != 0u && scale != 0u) {
            code = qlora_narrow_from_f32(exact_divide(x, scale), 0, 4u, 1u, 1u, 7u, true, noise_of(i));
        } else {
            // Differences are rounded as in ref, where a value far beyond the range is as near to 0 as to 6.
            float magnitude = uintBitsToFloat(x & 0x7fffffffu), best = magnitude;
            [[unroll]] for (uint m = 1u; m < 8u; m++) {
                precise float error = abs(float((0xc8643210u >> (m * 4u)) & 15u) * (uintBitsToFloat(scale) * 0.5) - magnitude);
                if (error < best) { best = error; code = m; }
            }
            if (code != 0u) code |= (x >> 31) << 3;
        }
        word |= code << ((n & 7u) * 4u);
        if ((n & 7u) == 7u) { append(word, 32u); word = 0u; }
    }
}

void main() {
    uint first = (group_index() * 64u + gl_LocalInvocationIndex) * each;
    if (first >= blocks) return;
    pending = 0u;
    pending_bits = 0u;
    out_place = first * BLOCK_BYTES / 4u;
    out_limit = blocks * BLOCK_BYTES;
    [[dont_unroll]] for (uint block = first; block < min(first + each, blocks); block++) {
        source_index = block * BLOCK;
        source_place = source_index / cols * stride + source_index % cols;
        if (FORMAT == QLORA_FORMAT_MXFP4) encode_mxfp4();
        else if (FORMAT == QLORA_FORMAT_NVFP4) encode_nvfp4();
        else encode_levels();
    }
    if (pending_bits != 0u) write_codes(out_place, pending, out_limit);
}
