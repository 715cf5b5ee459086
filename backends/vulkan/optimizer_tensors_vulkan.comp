// What a step decides for each tensor, a workgroup for each. STAGE 0: whether it is skipped, and its scale with all clipping.
// STAGE 1: its factor, from sums of squares. Both report to skipped and factors.
#version 450
#extension GL_GOOGLE_include_directive : require
layout(local_size_x = 256) in;

#include "backends/vulkan/common.glsl"
#include "backends/vulkan/pairs.glsl"
#include "backends/vulkan/row_sum.glsl"

layout(constant_id = 0) const uint STAGE = 0u;
const uint STABLE_ADAMW = 3u, LAMB = 8u, LARS = 9u;
const uint TENSOR_WORDS = 8u, SLOTS = 100u;

layout(binding = 0, std430) buffer Tensors { uint tensors[]; };
layout(binding = 1, std430) readonly buffer Norm { uint norm[]; };
layout(binding = 2, std430) readonly buffer Norms { uint norms[]; };
layout(binding = 3, std430) buffer History { float history[]; };
layout(binding = 4, std430) writeonly buffer Skipped { uint skipped[]; };
layout(binding = 5, std430) writeonly buffer Factors { float factors[]; };
layout(binding = 6, std430) readonly buffer Sums { float sums[]; };

QLORA_PUSH
    uint first_tensor, algorithm, states, percentile, slot, first_step;
    uint skip_step, skip_tensors, reports_skipped, reports_factors;
    float gradient_scale, max_norm, max_unorm, epsilon;
};

shared float threshold;

// The newest norm joins its tensor's history; the threshold is that at the percentile of all, ties in the order of slots.
float percentile_clip(float own) {
    uint lane = gl_LocalInvocationIndex;
    if (lane < SLOTS && (first_step != 0u || lane == slot)) history[QLORA_BASE(3u) + lane] = own;
    row_values[lane] = lane >= SLOTS ? 0.0 : first_step != 0u || lane == slot ? own : history[QLORA_BASE(3u) + lane];
    barrier();
    if (lane < SLOTS) {
        uint rank = 0u;
        for (uint i = 0u; i < SLOTS; i++) rank += row_values[i] < row_values[lane] || (row_values[i] == row_values[lane] && i < lane) ? 1u : 0u;
        if (rank == percentile) threshold = row_values[lane];
    }
    barrier();
    return threshold > 0.0 && own > threshold ? threshold / own : 1.0;
}

float factor_of(float values, float updates, float count, float decay) {
    float p = sqrt(values), u = sqrt(updates);
    if (algorithm == STABLE_ADAMW) return 1.0 / max(1.0, count > 0.0 ? sqrt(updates / count) : 0.0);
    if (algorithm == LAMB) return p > 0.0 && u > 0.0 ? p / u : 1.0;
    if (algorithm == LARS) return p > 0.0 && u + decay * p > 0.0 ? max_unorm * p / (u + decay * p) : 1.0;
    float bound = max_unorm * p + (states == 1u ? epsilon : 0.0);
    return u > bound ? bound / u : 1.0;
}

void main() {
    uint i = first_tensor + group_index(), at = QLORA_BASE(0u) + i * TENSOR_WORDS, lane = gl_LocalInvocationIndex;
    if (STAGE == 0u) {
        uint whole = max_norm > 0.0 || skip_step != 0u ? norm[QLORA_BASE(1u)] : 0u, own = skip_tensors != 0u || percentile != 0u ? norms[QLORA_BASE(2u) + i] : 0u;
        bool skip = (skip_step != 0u && !is_number(whole)) || (skip_tensors != 0u && !is_number(own));
        float scale = gradient_scale;
        if (max_norm > 0.0) scale *= min(1.0, max_norm / (uintBitsToFloat(whole) + 1e-6));
        if (percentile != 0u && !skip && is_number(own)) scale *= percentile_clip(uintBitsToFloat(own));
        if (lane != 0u) return;
        tensors[at] = skip ? 1u : 0u;
        tensors[at + 1u] = floatBitsToUint(scale);
        tensors[at + 2u] = 0x3f800000u;
        if (reports_skipped != 0u) skipped[QLORA_BASE(4u) + i] = skip ? 1u : 0u;
        if (reports_factors != 0u) factors[QLORA_BASE(5u) + i] = 1.0;
        return;
    }
    if (tensors[at] != 0u) return;
    uint first = tensors[at + 5u], end = first + tensors[at + 6u];
    float values = 0.0, updates = 0.0;
    for (uint granule = first + lane; granule < end; granule += 256u) {
        values += sums[QLORA_BASE(6u) + granule * 2u];
        updates += sums[QLORA_BASE(6u) + granule * 2u + 1u];
    }
    values = row_sum(values);
    updates = row_sum(updates);
    if (lane != 0u) return;
    float factor = factor_of(values, updates, uintBitsToFloat(tensors[at + 7u]), uintBitsToFloat(tensors[at + 4u]));
    tensors[at + 2u] = floatBitsToUint(factor);
    if (reports_factors != 0u) factors[QLORA_BASE(5u) + i] = factor;
}
