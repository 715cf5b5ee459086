// Codes and absmax of src[rows][cols], flattened into blocks: an invocation takes eight elements, a workgroup 2048 or one
// block of 4096. The second stage of double quantization is the same with src = absmax less their mean.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : enable
layout(local_size_x = 256) in;

#include "backends/vulkan/common.glsl"
#include "backends/vulkan/exact.glsl"
#include "backends/vulkan/codebooks.glsl"
#include "backends/vulkan/encode.glsl"

layout(constant_id = 2) const uint TYPE = 0x100u;      // of src
layout(constant_id = 3) const uint BITS = 4u;
layout(constant_id = 4) const uint BLOCK_SHIFT = 6u;
layout(constant_id = 5) const uint SUBTRACT = 0u;      // take the mean at binding 3 from each element
layout(constant_id = 6) const uint CONTIGUOUS = 1u;    // src.stride is src.cols
layout(constant_id = 7) const uint VECTORS = 0u;       // and its octets begin at multiples of 16 bytes

layout(binding = 0, std430) readonly buffer Src { uint src_words[]; };
layout(binding = 0, std430) readonly buffer SrcVectors { uvec4 src_vectors[]; };
layout(binding = 1, std430) buffer Codes { uint code_words[]; };
layout(binding = 2, std430) writeonly buffer Scales { uint scales[]; };
layout(binding = 3, std430) readonly buffer Mean { uint mean_words[]; };

QLORA_PUSH
    uint elements, cols, stride;
};
QLORA_READ(read_src, src_words, 0u, TYPE)
QLORA_WRITE_WORD(write_word, code_words, 1u)

const uint BLOCK = 1u << BLOCK_SHIFT;
const uint ROUNDS = BLOCK == 4096u ? 2u : 1u;      // octets of an invocation
const uint LANES = BLOCK >= 2048u ? 256u : BLOCK / 8u;          // invocations that share a block

shared uint maxima[256];

uint source(uint i) {
    if (i >= elements) return 0u;
    uint place = CONTIGUOUS != 0u ? i : i / cols * stride + i % cols;
    uint bits = read_src_bits(place);
    return SUBTRACT != 0u ? exact_add(bits, mean_words[QLORA_BASE(3u)] ^ 0x80000000u) : bits;
}

void load_octet(uint i, out uint values[8]) {
    if (VECTORS == 0u || i + 8u > elements) {
        [[dont_unroll]] for (uint e = 0u; e < 8u; e++) values[e] = source(i + e);
        return;
    }
    uint place = (QLORA_BASE(0u) + (TYPE == F32 ? i : i >> 1)) >> 2;
    uvec4 low = src_vectors[place], high = TYPE == F32 ? src_vectors[place + 1u] : uvec4(0u);
    [[unroll]] for (uint e = 0u; e < 8u; e++) values[e] = TYPE == F32 ? (e < 4u ? low[e & 3u] : high[e & 3u]) : widen(TYPE, low[e >> 1], e);
}

// Divides an octet by its block's absmax. Ordinary blocks need no care: what a device flushes to zero has the code of zero,
// but for the sign of FP4, which keeps that of the least negative.
void divide_octet(inout uint values[8], uint absmax, uint inverse) {
    bool careful = absmax < 0x21800000u || absmax > 0x5d800000u; // 2^-60, 2^60
    if (TABLE == TABLE_FP4)
        [[unroll]] for (uint e = 0u; e < 8u; e++) careful = careful || (values[e] > 0x80000000u && values[e] < 0xa1800000u);
    if (careful) {
        [[dont_unroll]] for (uint e = 0u; e < 8u; e++) values[e] = exact_multiply(values[e], inverse);
        return;
    }
    [[unroll]] for (uint e = 0u; e < 8u; e++) {
        precise float y = uintBitsToFloat(values[e]) * uintBitsToFloat(inverse);
        values[e] = floatBitsToUint(y);
    }
}

void main() {
    encode_begin();
    uint lane = gl_LocalInvocationIndex, first = group_index() * (2048u * ROUNDS) + lane * 8u;
    uint values[ROUNDS][8], maximum = 0u;
    [[unroll]] for (uint round = 0u; round < ROUNDS; round++) {
        load_octet(first + round * 2048u, values[round]);
        [[unroll]] for (uint e = 0u; e < 8u; e++) maximum = max(maximum, values[round][e] & 0x7fffffffu);
    }
    maxima[lane] = maximum;
    barrier();
    for (uint half_way = LANES / 2u; half_way >= 1u; half_way >>= 1) {
        if ((lane & (LANES - 1u)) < half_way) maxima[lane] = max(maxima[lane], maxima[lane + half_way]);
        barrier();
    }
    uint absmax = maxima[lane & ~(LANES - 1u)];
    if (absmax < 0x00800000u) absmax = 0u; // below the smallest normal f32
    uint inverse = absmax != 0u ? exact_divide(0x3f800000u, absmax) : 0u;
    if (first >= elements) return;
    if ((lane & (LANES - 1u)) == 0u) scales[QLORA_BASE(2u) + (first >> BLOCK_SHIFT)] = absmax;
    uint limit = BITS == 4u ? (elements + 1u) / 2u : elements;
    [[unroll]] for (uint round = 0u; round < ROUNDS; round++) {
        uint octet = (first + round * 2048u) / 8u, low = 0u, high = 0u;
        if (absmax != 0u) {
            divide_octet(values[round], absmax, inverse);
            [[unroll]] for (uint e = 0u; e < 8u; e++) {
                uint code = encode(values[round][e]);
                if (BITS == 4u) low |= code << ((e ^ 1u) * 4u); // element 2j is the high nibble of byte j
                else if (e < 4u) low |= code << (e * 8u);
                else high |= code << ((e - 4u) * 8u);
            }
        }
        if (BITS == 4u) {
            write_word(octet, low, limit);
        } else {
            write_word(octet * 2u, low, limit);
            write_word(octet * 2u + 1u, high, limit);
        }
    }
}
