// codes[r][c] = x[r][c] * inverse[r] to nearest even, in rows of padded bytes; 0 in outlier columns and in the padding. An
// invocation takes a word of codes, whose elements may belong to several rows.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : enable
layout(local_size_x = 256) in;

#include "backends/vulkan/common.glsl"
#include "backends/vulkan/exact.glsl"
#include "backends/vulkan/row_scale.glsl"

layout(constant_id = 4) const uint ONE_INVERSE = 0u; // for all rows

layout(binding = 3, std430) readonly buffer Inverse { uint inverse[]; };
layout(binding = 4, std430) buffer Codes { uint code_words[]; };
QLORA_WRITE_WORD(write_codes, code_words, 4u)

void main() {
    uint word = group_index() * 256u + gl_LocalInvocationIndex, codes = 0u, limit = rows * padded;
    if (word * 4u >= limit) return;
    uint r = word * 4u / padded, c = word * 4u - r * padded;
    [[dont_unroll]] for (uint e = 0u; e < 4u && r < rows; e++) {
        bool outlier = OUTLIERS != 0u && c < cols && ((outlier_words[QLORA_BASE(2u) + (c >> 5)] >> (c & 31u)) & 1u) != 0u;
        if (c < cols && !outlier) {
            uint scaled = exact_multiply(element(r, c), inverse[QLORA_BASE(3u) + (ONE_INVERSE != 0u ? 0u : r)]);
            codes |= (uint(int(roundEven(uintBitsToFloat(scaled)))) & 255u) << (e * 8u);
        }
        c += 1u;
        if (c == padded) { c = 0u; r += 1u; }
    }
    write_codes(word, codes, limit);
}
