// y[r] = x[r] * rstd[r] * weight, rstd = 1 / sqrt(mean(x^2) + epsilon). A workgroup per row, two columns at a time.
#version 450
#extension GL_GOOGLE_include_directive : require
layout(local_size_x = 256) in;

#include "backends/vulkan/common.glsl"

layout(constant_id = 0) const uint TYPE = 0x100u;
layout(constant_id = 1) const uint WEIGHT_TYPE = 0x100u;
layout(constant_id = 2) const uint KEEP = 0u; // write rstd

layout(binding = 0, std430) readonly buffer X { uint x_words[]; };
layout(binding = 1, std430) readonly buffer Weight { uint weight_words[]; };
layout(binding = 2, std430) buffer Y { uint y_words[]; };
layout(binding = 3, std430) writeonly buffer Rstd { float rstds[]; };

QLORA_PUSH
    uint rows, cols, x_stride, y_stride;
    float epsilon;
};
QLORA_READ(read_x, x_words, 0u, TYPE)
QLORA_READ(read_weight, weight_words, 1u, WEIGHT_TYPE)
QLORA_WRITE(write_y, y_words, 2u, TYPE)

#include "backends/vulkan/row_sum.glsl"

void main() {
    uint r = group_index(), lane = gl_LocalInvocationIndex;
    if (r >= rows) return;
    float sum = 0.0;
    for (uint c = lane * 2u; c < cols; c += 512u) {
        float first = read_x(r * x_stride + c), second = c + 1u < cols ? read_x(r * x_stride + c + 1u) : 0.0;
        sum += first * first + second * second;
    }
    float rstd = 1.0 / sqrt(row_sum(sum) / float(cols) + epsilon);
    if (KEEP != 0u && lane == 0u) rstds[QLORA_BASE(3u) + r] = rstd;
    for (uint c = lane * 2u; c < cols; c += 512u) {
        float first = read_x(r * x_stride + c) * rstd * read_weight(c);
        if (c + 1u < cols) write_y_pair(r * y_stride + c, first, read_x(r * x_stride + c + 1u) * rstd * read_weight(c + 1u));
        else write_y(r * y_stride + c, first);
    }
}
