// One row of logits: losses[t] = log(sum exp) - logit[target], and in place of the logits their gradient
// grad_scale * (softmax - onehot), times the slope of the soft cap that they pass through. A workgroup per row.
#version 450
#extension GL_GOOGLE_include_directive : require
layout(local_size_x = 256) in;

#include "backends/vulkan/common.glsl"
#include "backends/vulkan/math.glsl"

layout(constant_id = 0) const uint GRADIENT = 0u;
layout(constant_id = 1) const uint CAPPED = 0u;

layout(binding = 0, std430) buffer Logits { float logits[]; };
layout(binding = 1, std430) readonly buffer Targets { int targets[]; };
layout(binding = 2, std430) writeonly buffer Losses { float losses[]; };

QLORA_PUSH
    uint rows, vocabulary, stride, first; // first: the token of row 0
    float grad_scale, soft_cap, inverse_cap;
};

#include "backends/vulkan/row_sum.glsl"

// {the logit under its cap, the slope there}
vec2 capped(float logit) { return CAPPED != 0u ? hyperbolic_tangent(logit * inverse_cap) * vec2(soft_cap, 1.0) : vec2(logit, 1.0); }

void main() {
    uint r = group_index(), lane = gl_LocalInvocationIndex, row = QLORA_BASE(0u) + r * stride;
    if (r >= rows) return;
    int target = targets[QLORA_BASE(1u) + first + r];
    bool present = target >= 0 && uint(target) < vocabulary;
    float maximum = -3.402823466e38, sum = 0.0;
    for (uint i = lane; i < vocabulary; i += 256u) maximum = max(maximum, logits[row + i]);
    maximum = capped(row_maximum(maximum)).x;
    for (uint i = lane; i < vocabulary; i += 256u) sum += exponential(capped(logits[row + i]).x - maximum);
    sum = row_sum(sum);
    if (lane == 0u) losses[QLORA_BASE(2u) + first + r] = present ? maximum + logarithm(sum) - capped(logits[row + uint(target)]).x : 0.0;
    if (GRADIENT == 0u) return;
    barrier(); // the loss has read the logit
    float inverse = 1.0 / sum;
    for (uint i = lane; i < vocabulary; i += 256u) {
        vec2 at = capped(logits[row + i]);
        float slope = grad_scale * (exponential(at.x - maximum) * inverse - (int(i) == target ? 1.0 : 0.0));
        logits[row + i] = present ? slope * at.y : 0.0;
    }
}
