// y[r] = x[r] * rstd[r] * weight + bias, rstd = 1 / sqrt(mean(x^2) + epsilon), of x less its row's mean when centered; instead of or
// added to y. A workgroup per row, two columns at a time. MEANS: the rows' means only, for the gradients.
#version 450
#extension GL_GOOGLE_include_directive : require
layout(local_size_x = 256) in;

#include "backends/vulkan/common.glsl"

layout(constant_id = 0) const uint TYPE = 0x100u;
layout(constant_id = 1) const uint WEIGHT_TYPE = 0x100u;
layout(constant_id = 2) const uint KEEP = 0u; // write rstd
layout(constant_id = 3) const uint CENTERED = 0u;
layout(constant_id = 4) const uint BIAS_TYPE = 0u; // 0: no bias
layout(constant_id = 5) const uint ACCUMULATE = 0u;
layout(constant_id = 6) const uint MEANS = 0u;

layout(binding = 0, std430) readonly buffer X { uint x_words[]; };
layout(binding = 1, std430) readonly buffer Weight { uint weight_words[]; };
layout(binding = 2, std430) buffer Y { uint y_words[]; };
layout(binding = 3, std430) writeonly buffer Rstd { float rstds[]; };
layout(binding = 4, std430) readonly buffer Bias { uint bias_words[]; };
layout(binding = 5, std430) writeonly buffer Centers { float centers[]; };

QLORA_PUSH
    uint rows, cols, x_stride, y_stride;
    float epsilon;
};
QLORA_READ(read_x, x_words, 0u, TYPE)
QLORA_READ(read_weight, weight_words, 1u, WEIGHT_TYPE)
QLORA_READ(read_y, y_words, 2u, TYPE)
QLORA_READ(read_bias, bias_words, 4u, BIAS_TYPE)
QLORA_WRITE(write_y, y_words, 2u, TYPE)

#include "backends/vulkan/center.glsl"
#include "backends/vulkan/row_sum.glsl"

float normed(uint r, uint c, vec2 center, float rstd) {
    float x = read_x(r * x_stride + c), y = (CENTERED != 0u ? centered(x, center) : x) * rstd * read_weight(c);
    if (BIAS_TYPE != 0u) y += read_bias(c);
    return ACCUMULATE != 0u ? read_y(r * y_stride + c) + y : y;
}

void main() {
    uint r = group_index(), lane = gl_LocalInvocationIndex;
    if (r >= rows) return;
    float mean = 0.0, sum = 0.0, rest = 0.0; // rest: what the mean is off by
    if (CENTERED != 0u) {
        for (uint c = lane; c < cols; c += 256u) sum += read_x(r * x_stride + c);
        mean = row_sum(sum) / float(cols);
        sum = 0.0;
    }
    for (uint c = lane * 2u; c < cols; c += 512u) {
        float first = read_x(r * x_stride + c) - mean, second = c + 1u < cols ? read_x(r * x_stride + c + 1u) - mean : 0.0;
        sum += first * first + second * second;
        rest += first + second;
    }
    if (CENTERED != 0u) rest = row_sum(rest) / float(cols);
    vec2 center = vec2(mean, rest);
    if (MEANS != 0u) {
        if (lane < 2u) centers[QLORA_BASE(5u) + r * 2u + lane] = center[lane];
        return;
    }
    float square = row_sum(sum) / float(cols);
    if (CENTERED != 0u) square = max(square - rest * rest, 0.0);
    float rstd = 1.0 / sqrt(square + epsilon);
    if (KEEP != 0u && lane == 0u) rstds[QLORA_BASE(3u) + r] = rstd;
    for (uint c = lane * 2u; c < cols; c += 512u) {
        float first = normed(r, c, center, rstd);
        if (c + 1u < cols) write_y_pair(r * y_stride + c, first, normed(r, c + 1u, center, rstd));
        else write_y(r * y_stride + c, first);
    }
}
