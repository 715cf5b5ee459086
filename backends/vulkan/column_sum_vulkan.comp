// sums[chunk][c] = sum over the chunk's rows of dy[r][c], or of dy[r][c] * x[r][c] * rstd[r], x less its row's mean when centered.
// A workgroup takes 64 columns of a chunk; four lanes share a column.
#version 450
#extension GL_GOOGLE_include_directive : require
layout(local_size_x = 256) in;

#include "backends/vulkan/common.glsl"

layout(constant_id = 0) const uint TYPE = 0x100u;
layout(constant_id = 1) const uint PRODUCT = 0u;
layout(constant_id = 2) const uint ACCUMULATE = 0u;
layout(constant_id = 3) const uint CENTERED = 0u;

layout(binding = 0, std430) readonly buffer Dy { uint dy_words[]; };
layout(binding = 1, std430) readonly buffer X { uint x_words[]; };
layout(binding = 2, std430) readonly buffer Rstd { float rstd[]; };
layout(binding = 3, std430) buffer Sums { float sums[]; };
layout(binding = 4, std430) readonly buffer Centers { float centers[]; };

QLORA_PUSH
    uint rows, cols, dy_stride, x_stride, chunk;
};
QLORA_READ(read_dy, dy_words, 0u, TYPE)
QLORA_READ(read_x, x_words, 1u, TYPE)

#include "backends/vulkan/center.glsl"

float factor(uint r, uint c) {
    float x = read_x(r * x_stride + c);
    uint place = QLORA_BASE(4u) + r * 2u;
    return (CENTERED != 0u ? centered(x, vec2(centers[place], centers[place + 1u])) : x) * rstd[QLORA_BASE(2u) + r];
}

shared float lanes[4][64];

void main() {
    uint groups_n = (cols + 63u) / 64u, group = group_index(), column = gl_LocalInvocationIndex % 64u, lane = gl_LocalInvocationIndex / 64u;
    uint c = group % groups_n * 64u + column, first = group / groups_n * chunk, end = min(first + chunk, rows);
    float sum = 0.0;
    if (c < cols)
        for (uint r = first + lane; r < end; r += 4u) {
            float term = read_dy(r * dy_stride + c);
            if (PRODUCT != 0u) term *= factor(r, c);
            sum += term;
        }
    lanes[lane][column] = sum;
    barrier();
    uint place = QLORA_BASE(3u) + group / groups_n * cols + c;
    if (lane != 0u || c >= cols || (first >= rows && rows != 0u)) return;
    sum = (lanes[0][column] + lanes[1][column]) + (lanes[2][column] + lanes[3][column]);
    sums[place] = ACCUMULATE != 0u ? sums[place] + sum : sum;
}
