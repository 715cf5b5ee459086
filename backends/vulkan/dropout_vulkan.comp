// y = x m, m = 0 or 1 / (1 - probability) by a random word for each place; or y += that. An invocation takes two neighbouring columns.
#version 450
#extension GL_GOOGLE_include_directive : require
layout(local_size_x = 256) in;

#include "backends/vulkan/common.glsl"
#include "backends/vulkan/exact.glsl"

layout(constant_id = 0) const uint TYPE = 0x100u;
layout(constant_id = 1) const uint ACCUMULATE = 0u;

layout(binding = 0, std430) readonly buffer X { uint x_words[]; };
layout(binding = 1, std430) buffer Y { uint y_words[]; };

QLORA_PUSH
    uint rows, cols, x_stride, y_stride, seed_low, seed_high, threshold, factor;
};
QLORA_READ(read_x, x_words, 0u, TYPE)
QLORA_READ(read_y, y_words, 1u, TYPE)
QLORA_WRITE(write_y, y_words, 1u, TYPE)

uint element(uint r, uint c) {
    bool drops = qlora_random(seed_low, seed_high, r * cols + c, 0u) < threshold;
    uint product = exact_multiply(read_x_bits(r * x_stride + c), drops ? 0u : factor);
    return ACCUMULATE != 0u ? exact_add(read_y_bits(r * y_stride + c), product) : product;
}

void main() {
    uint per_row = (cols + 1u) / 2u, item = group_index() * 256u + gl_LocalInvocationIndex, r = item / per_row, c = (item - r * per_row) * 2u;
    if (r >= rows) return;
    uint left = element(r, c);
    if (c + 1u == cols) write_y_bits(r * y_stride + c, left);
    else write_y_pair_bits(r * y_stride + c, left, element(r, c + 1u));
}
