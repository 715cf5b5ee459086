// y[m][n] = sum_k x[m][k] w[n][k] for up to eight m: a workgroup streams ROWS rows of w once and meets every x with them.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : enable
layout(local_size_x = 64) in;

#include "backends/vulkan/common.glsl"
#include "backends/vulkan/codebooks.glsl"
#include "backends/vulkan/product_push.glsl"
#include "backends/vulkan/decode.glsl"
#include "backends/vulkan/product.glsl"

layout(constant_id = 17) const uint TOKENS = 1u;
const uint ROWS = 2u;

shared float partial[TOKENS * ROWS][64];

void main() {
    decode_begin();
    uint lane = gl_LocalInvocationIndex, n0 = group_index() * ROWS;
    if (n0 >= n_count) return;
    float sums[TOKENS][ROWS];
    [[unroll]] for (uint m = 0u; m < TOKENS; m++)
        [[unroll]] for (uint r = 0u; r < ROWS; r++) sums[m][r] = 0.0;
    for (uint k = lane * 8u; k < k_count; k += 512u) {
        float w[ROWS][8], x[8];
        [[unroll]] for (uint r = 0u; r < ROWS; r++) load_w(n0 + r, k, n_count, k_count, w[r]);
        [[unroll]] for (uint m = 0u; m < TOKENS; m++) {
            load_x(m, k, m_count, k_count, x);
            [[unroll]] for (uint r = 0u; r < ROWS; r++)
                [[unroll]] for (uint e = 0u; e < 8u; e++) sums[m][r] += x[e] * w[r][e];
        }
    }
    if (EXTENSION != 0u)
        for (uint k = lane; k < rank; k += 64u)
            [[unroll]] for (uint r = 0u; r < ROWS; r++) {
                float b = n0 + r < n_count ? round_to(COMPUTE, read_b((n0 + r) * b_stride + k)) : 0.0;
                [[unroll]] for (uint m = 0u; m < TOKENS; m++) sums[m][r] += load_xa(m, k) * b;
            }
    [[unroll]] for (uint m = 0u; m < TOKENS; m++)
        [[unroll]] for (uint r = 0u; r < ROWS; r++) partial[m * ROWS + r][lane] = sums[m][r];
    barrier();
    for (uint half_way = 32u; half_way >= 1u; half_way >>= 1) {
        if (lane < half_way)
            [[unroll]] for (uint i = 0u; i < TOKENS * ROWS; i++) partial[i][lane] += partial[i][lane + half_way];
        barrier();
    }
    if (lane < TOKENS) write_results(lane, n0, partial[lane * ROWS][0], partial[lane * ROWS + 1u][0]);
}
