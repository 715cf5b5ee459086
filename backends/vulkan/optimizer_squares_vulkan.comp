// Sums of squares over a granule of what a factor is made of: values, and what stands for their updates.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : enable
layout(local_size_x = 256) in;

#include "backends/vulkan/common.glsl"
#include "backends/vulkan/codebooks.glsl"
#include "backends/vulkan/pairs.glsl"
#include "backends/vulkan/optimizer.glsl"
#include "backends/vulkan/row_sum.glsl"

layout(binding = 10, std430) writeonly buffer Sums { float sums[]; }; // two for each granule

void main() {
    tables_begin();
    uint first;
    Piece piece = find_piece(first);
    if (first >= piece.count || skipped != 0u) return;
    factor = 1.0;
    float values = 0.0, updates = 0.0;
    for (uint i = first + gl_LocalInvocationIndex; i < min(first + GRANULE, piece.count); i += 256u) {
        uint raw_bits = gradient_bits(piece, i);
        float p = uintBitsToFloat(value_bits(piece, i)), raw = uintBitsToFloat(raw_bits), s[3] = float[3](0.0, 0.0, 0.0);
        values += p * p;
        if ((skip_zeros != 0u && (raw_bits & 0x7fffffffu) == 0u) || (SMALL != 0u && !is_number(raw_bits))) continue;
        for (uint k = 0u; k < states; k++) s[k] = state_value(piece, k, i);
        float g = gradient_of(piece, raw, p, theirs == 0u);
        advance(g, p, s);
        float u = algorithm == LARS ? g : algorithm == STABLE_ADAMW ? g / sqrt(max(s[1], epsilon * epsilon)) : direction(g, g, p, s, 0.0);
        updates += u * u;
    }
    values = row_sum(values);
    updates = row_sum(updates);
    if (gl_LocalInvocationIndex != 0u) return;
    sums[QLORA_BASE(10u) + piece.granule * 2u] = values;
    sums[QLORA_BASE(10u) + piece.granule * 2u + 1u] = updates;
}
