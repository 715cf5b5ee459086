// dst[r][c] = W[r][c], or W[ids[r]][c] when gathering, which may be scaled and added to dst: one decode, one rounding to dst's type.
// Also the conversion between plain float types, which is a decode of codec FLOAT.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : enable
#define QLORA_EXACT
layout(local_size_x = 256) in;

#include "backends/vulkan/common.glsl"
#include "backends/vulkan/exact.glsl"
#include "backends/vulkan/codebooks.glsl"

QLORA_PUSH
    uint rows, cols;              // of dst
    uint w_rows, w_stride, stride, w_factor;
    uint scale; // as bits
};

#include "backends/vulkan/decode.glsl"

layout(constant_id = 8) const uint TYPE = 0x100u;   // of dst
layout(constant_id = 9) const uint GATHER = 0u;
layout(constant_id = 10) const uint OCTETS = 0u;    // an invocation takes eight elements; otherwise two
layout(constant_id = 11) const uint VECTORS = 0u;   // octets of dst begin at multiples of 16 bytes
layout(constant_id = 12) const uint SCALED = 0u;
layout(constant_id = 13) const uint ACCUMULATE = 0u; // not with VECTORS

layout(binding = 4, std430) buffer Dst { uint dst_words[]; };
layout(binding = 4, std430) buffer DstVectors { uvec4 dst_vectors[]; };
layout(binding = 5, std430) readonly buffer Ids { int ids[]; };
QLORA_READ(read_dst, dst_words, 4u, TYPE)
QLORA_WRITE(write_dst, dst_words, 4u, TYPE)

// What a decoded value makes of element i.
uint joined(uint i, uint value) {
    if (SCALED != 0u) value = exact_multiply(value, scale);
    return ACCUMULATE != 0u ? exact_add(read_dst_bits(i), value) : value;
}

void write_octet(uint i, uint values[8]) {
    if (VECTORS == 0u) {
        [[unroll]] for (uint e = 0u; e < 8u; e += 2u) write_dst_pair_bits(i + e, values[e], values[e + 1u]);
        return;
    }
    uint place = (QLORA_BASE(4u) + (TYPE == F32 ? i : i >> 1)) >> 2;
    if (TYPE == F32) {
        dst_vectors[place] = uvec4(values[0], values[1], values[2], values[3]);
        dst_vectors[place + 1u] = uvec4(values[4], values[5], values[6], values[7]);
        return;
    }
    uvec4 packed;
    [[unroll]] for (uint e = 0u; e < 4u; e++) packed[e] = narrow(TYPE, values[2u * e]) | (narrow(TYPE, values[2u * e + 1u]) << 16);
    dst_vectors[place] = packed;
}

void main() {
    decode_begin();
    uint each = OCTETS != 0u ? 8u : 2u, per_row = (cols + each - 1u) / each, item = group_index() * 256u + gl_LocalInvocationIndex;
    uint r = item / per_row, c = (item - r * per_row) * each;
    if (r >= rows) return;
    uint source_row = r;
    bool present = true;
    if (GATHER != 0u) {
        int id = ids[QLORA_BASE(5u) + r];
        present = id >= 0 && uint(id) < w_rows;
        source_row = present ? uint(id) : 0u;
    }
    uint out_i = r * stride + c;
    if (OCTETS != 0u) {
        uint values[8] = uint[8](0u, 0u, 0u, 0u, 0u, 0u, 0u, 0u);
        if (present) decode8(source_row, c, values);
        if (SCALED != 0u || ACCUMULATE != 0u)
            [[dont_unroll]] for (uint e = 0u; e < 8u; e++) values[e] = joined(out_i + e, values[e]);
        write_octet(out_i, values);
        return;
    }
    uint first = joined(out_i, present ? decode(source_row, c) : 0u);
    if (c + 1u == cols) write_dst_bits(out_i, first);
    else write_dst_pair_bits(out_i, first, joined(out_i + 1u, present ? decode(source_row, c + 1u) : 0u));
}
