// With g = dy * weight: dx = rstd * (g - x * rstd^2 * mean(g x)), instead of or added to dx. A workgroup per row. Centered, x is x
// less its mean, and g outside the sum is g less its mean.
#version 450
#extension GL_GOOGLE_include_directive : require
layout(local_size_x = 256) in;

#include "backends/vulkan/common.glsl"

layout(constant_id = 0) const uint TYPE = 0x100u;
layout(constant_id = 1) const uint WEIGHT_TYPE = 0x100u;
layout(constant_id = 2) const uint ACCUMULATE = 0u;
layout(constant_id = 3) const uint CENTERED = 0u;

layout(binding = 0, std430) readonly buffer X { uint x_words[]; };
layout(binding = 1, std430) readonly buffer Weight { uint weight_words[]; };
layout(binding = 2, std430) readonly buffer Dy { uint dy_words[]; };
layout(binding = 3, std430) buffer Dx { uint dx_words[]; };
layout(binding = 4, std430) readonly buffer Rstd { float rstds[]; };
layout(binding = 5, std430) readonly buffer Centers { float centers[]; };

QLORA_PUSH
    uint rows, cols, x_stride, dy_stride, dx_stride;
};
QLORA_READ(read_x, x_words, 0u, TYPE)
QLORA_READ(read_weight, weight_words, 1u, WEIGHT_TYPE)
QLORA_READ(read_dy, dy_words, 2u, TYPE)
QLORA_READ(read_dx, dx_words, 3u, TYPE)
QLORA_WRITE(write_dx, dx_words, 3u, TYPE)

#include "backends/vulkan/center.glsl"
#include "backends/vulkan/row_sum.glsl"

float gradient(uint r, uint c, float slope, float rstd, vec2 center, float mean_g) {
    float g = read_dy(r * dy_stride + c) * read_weight(c), x = read_x(r * x_stride + c);
    float dx = rstd * (CENTERED != 0u ? g - mean_g - centered(x, center) * slope : g - x * slope);
    return ACCUMULATE != 0u ? read_dx(r * dx_stride + c) + dx : dx;
}

void main() {
    uint r = group_index(), lane = gl_LocalInvocationIndex;
    if (r >= rows) return;
    float sum = 0.0, sum_g = 0.0, rstd = rstds[QLORA_BASE(4u) + r];
    uint place = QLORA_BASE(5u) + r * 2u;
    vec2 center = CENTERED != 0u ? vec2(centers[place], centers[place + 1u]) : vec2(0.0);
    for (uint c = lane; c < cols; c += 256u) {
        float g = read_dy(r * dy_stride + c) * read_weight(c), x = read_x(r * x_stride + c);
        sum += g * (CENTERED != 0u ? centered(x, center) : x);
        sum_g += g;
    }
    float slope = row_sum(sum) / float(cols) * rstd * rstd, mean_g = CENTERED != 0u ? row_sum(sum_g) / float(cols) : 0.0;
    for (uint c = lane * 2u; c < cols; c += 512u) {
        float first = gradient(r, c, slope, rstd, center, mean_g);
        if (c + 1u < cols) write_dx_pair(r * dx_stride + c, first, gradient(r, c + 1u, slope, rstd, center, mean_g));
        else write_dx(r * dx_stride + c, first);
    }
}
