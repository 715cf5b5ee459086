// AdamW over one tensor, as qlora_optimizer_step() says.
#version 450
#extension GL_GOOGLE_include_directive : require
layout(local_size_x = 256) in;

#include "backends/vulkan/common.glsl"

layout(constant_id = 0) const uint CLIP = 0u;

layout(binding = 0, std430) buffer Value { float p[]; };
layout(binding = 1, std430) readonly buffer Gradient { float gradient[]; };
layout(binding = 2, std430) buffer State1 { float m[]; };
layout(binding = 3, std430) buffer State2 { float v[]; };
layout(binding = 4, std430) readonly buffer Norm { float norm[]; };

QLORA_PUSH
    uint count;
    float gradient_scale, max_norm, beta1, beta2, rest1, rest2; // rest = 1 - beta
    float rate, decay, correction, epsilon;                     // lr / (1 - beta1^step), lr * weight_decay, sqrt(1 - beta2^step)
};

void main() {
    uint i = group_index() * 256u + gl_LocalInvocationIndex;
    if (i >= count) return;
    float scale = gradient_scale;
    if (CLIP != 0u) scale *= min(1.0, max_norm / (norm[QLORA_BASE(4u)] + 1e-6));
    float g = gradient[QLORA_BASE(1u) + i] * scale;
    float m1 = beta1 * m[QLORA_BASE(2u) + i] + rest1 * g, v1 = beta2 * v[QLORA_BASE(3u) + i] + rest2 * g * g;
    m[QLORA_BASE(2u) + i] = m1;
    v[QLORA_BASE(3u) + i] = v1;
    float old = p[QLORA_BASE(0u) + i];
    p[QLORA_BASE(0u) + i] = (old - decay * old) - rate * m1 / (sqrt(v1) / correction + epsilon);
}
