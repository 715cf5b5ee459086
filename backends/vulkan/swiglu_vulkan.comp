// y = activation(gate) * up; or, given dy, dgate and dup. An invocation takes two neighbouring columns.
#version 450
#extension GL_GOOGLE_include_directive : require
layout(local_size_x = 256) in;

#include "backends/vulkan/common.glsl"
#include "backends/vulkan/math.glsl"

layout(constant_id = 0) const uint TYPE = 0x100u;
layout(constant_id = 1) const uint GRADIENT = 0u;
layout(constant_id = 2) const uint ACTIVATION = 0u; // QLORA_ACTIVATION_*
layout(constant_id = 3) const uint GATED = 1u;      // up and dup are there
const uint SILU = 0u, GELU = 1u, GELU_TANH = 2u;

layout(binding = 0, std430) readonly buffer Gate { uint gate_words[]; };
layout(binding = 1, std430) readonly buffer Up { uint up_words[]; };
layout(binding = 2, std430) readonly buffer Dy { uint dy_words[]; };
layout(binding = 3, std430) buffer First { uint first_words[]; };   // y or dgate
layout(binding = 4, std430) buffer Second { uint second_words[]; }; // dup

QLORA_PUSH
    uint rows, cols, gate_stride, up_stride, dy_stride, first_stride, second_stride;
};
QLORA_READ(read_gate, gate_words, 0u, TYPE)
QLORA_READ(read_up, up_words, 1u, TYPE)
QLORA_READ(read_dy, dy_words, 2u, TYPE)
QLORA_WRITE(write_first, first_words, 3u, TYPE)
QLORA_WRITE(write_second, second_words, 4u, TYPE)

// {activation, its slope} at x.
vec2 activate(float x) {
    if (ACTIVATION == SILU) {
        float s = sigmoid(x);
        return vec2(x * s, s * (1.0 + x * (1.0 - s)));
    }
    if (ACTIVATION == GELU) {
        vec2 share = normal_distribution(x);
        return vec2(x * share.x, share.x + x * share.y);
    }
    if (ACTIVATION == GELU_TANH) { // (1 + tanh(u / 2)) / 2 = sigmoid(u), 0 or 1 where x is beyond 11
        float near = x > 11.0 ? 11.0 : x < -11.0 ? -11.0 : x, bend = 0.044715 * near * near, u = 1.59576912 * near * (1.0 + bend);
        float s = sigmoid(u);
        return vec2(x * s, s + 1.59576912 * near * (1.0 + 3.0 * bend) * (s * sigmoid(-u)));
    }
    return x > 0.0 ? vec2(x, 1.0) : vec2(0.0);
}

// {y, 0} or {dgate, dup} of one element.
vec2 element(uint r, uint c) {
    float up = GATED != 0u ? read_up(r * up_stride + c) : 1.0;
    vec2 at = activate(read_gate(r * gate_stride + c));
    if (GRADIENT == 0u) return vec2(at.x * up, 0.0);
    float dy = read_dy(r * dy_stride + c);
    return vec2(dy * up * at.y, dy * at.x);
}

void main() {
    uint per_row = (cols + 1u) / 2u, item = group_index() * 256u + gl_LocalInvocationIndex, r = item / per_row, c = (item - r * per_row) * 2u;
    if (r >= rows) return;
    vec2 left = element(r, c);
    if (c + 1u == cols) {
        write_first(r * first_stride + c, left.x);
        if (GRADIENT != 0u && GATED != 0u) write_second(r * second_stride + c, left.y);
        return;
    }
    vec2 right = element(r, c + 1u);
    write_first_pair(r * first_stride + c, left.x, right.x);
    if (GRADIENT != 0u && GATED != 0u) write_second_pair(r * second_stride + c, left.y, right.y);
}
