// y[m][n] = sum_k x[m][k] w[n][k]; with TURNED_W w[k][n], with TURNED_X x[k][m]. A workgroup makes a tile of y, TILE_K
// products at a time through shared memory; an invocation keeps EACH_M x EACH_N sums in registers.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : enable
layout(local_size_x = 256) in;

#include "backends/vulkan/common.glsl"
#include "backends/vulkan/codebooks.glsl"
#include "backends/vulkan/product_push.glsl"
#include "backends/vulkan/decode.glsl"
#include "backends/vulkan/product.glsl"

layout(constant_id = 17) const uint TURNED_W = 0u;
layout(constant_id = 18) const uint TURNED_X = 0u;
layout(constant_id = 19) const uint TILE_M = 64u;
layout(constant_id = 20) const uint TILE_N = 64u;
layout(constant_id = 21) const uint EACH_M = 4u;
layout(constant_id = 22) const uint EACH_N = 4u;
layout(constant_id = 23) const uint TILE_K = 16u;

const uint THREADS_M = TILE_M / EACH_M, THREADS_N = TILE_N / EACH_N; // 256 in all
const uint VECTORS_M = TILE_M / 4u, VECTORS_N = TILE_N / 4u, OCTETS_K = TILE_K / 8u;

// Tiles lie k by k, so that an invocation reads its operands of one k as vectors.
shared vec4 tile_x[TILE_K * VECTORS_M];
shared vec4 tile_w[TILE_K * VECTORS_N];

vec4 sums[EACH_M][EACH_N / 4u];

void store_x(uint m, uint k, bool along_m, float values[8]) {
    if (along_m) {
        tile_x[k * VECTORS_M + m / 4u] = vec4(values[0], values[1], values[2], values[3]);
        tile_x[k * VECTORS_M + m / 4u + 1u] = vec4(values[4], values[5], values[6], values[7]);
    } else {
        [[unroll]] for (uint e = 0u; e < 8u; e++) tile_x[(k + e) * VECTORS_M + m / 4u][m & 3u] = values[e];
    }
}

void store_w(uint n, uint k, bool along_n, float values[8]) {
    if (along_n) {
        tile_w[k * VECTORS_N + n / 4u] = vec4(values[0], values[1], values[2], values[3]);
        tile_w[k * VECTORS_N + n / 4u + 1u] = vec4(values[4], values[5], values[6], values[7]);
    } else {
        [[unroll]] for (uint e = 0u; e < 8u; e++) tile_w[(k + e) * VECTORS_N + n / 4u][n & 3u] = values[e];
    }
}

void fill_tiles(uint m0, uint n0, uint k0) {
    float values[8];
    for (uint o = gl_LocalInvocationIndex; o < TILE_M * OCTETS_K; o += 256u) {
        uint m = TURNED_X != 0u ? o % (TILE_M / 8u) * 8u : o % TILE_M, k = TURNED_X != 0u ? o / (TILE_M / 8u) : o / TILE_M * 8u;
        if (TURNED_X != 0u) load_x(k0 + k, m0 + m, k_count, m_count, values);
        else load_x(m0 + m, k0 + k, m_count, k_count, values);
        store_x(m, k, TURNED_X != 0u, values);
    }
    for (uint o = gl_LocalInvocationIndex; o < TILE_N * OCTETS_K; o += 256u) {
        uint n = TURNED_W != 0u ? o % (TILE_N / 8u) * 8u : o % TILE_N, k = TURNED_W != 0u ? o / (TILE_N / 8u) : o / TILE_N * 8u;
        if (TURNED_W != 0u) load_w(k0 + k, n0 + n, k_count, n_count, values);
        else load_w(n0 + n, k0 + k, n_count, k_count, values);
        store_w(n, k, TURNED_W != 0u, values);
    }
}

// The same for the adapter: xa[m][k], and b[n][k] or, turned, a[k][n].
void fill_extension(uint m0, uint n0, uint k0) {
    for (uint i = gl_LocalInvocationIndex; i < TILE_M * TILE_K; i += 256u) {
        uint m = i % TILE_M, k = i / TILE_M;
        tile_x[k * VECTORS_M + m / 4u][m & 3u] = load_xa(m0 + m, k0 + k);
    }
    for (uint i = gl_LocalInvocationIndex; i < TILE_N * TILE_K; i += 256u) {
        uint n = i % TILE_N, k = i / TILE_N;
        bool inside = n0 + n < n_count && k0 + k < rank;
        uint place = TURNED_W != 0u ? (k0 + k) * b_stride + n0 + n : (n0 + n) * b_stride + k0 + k;
        tile_w[k * VECTORS_N + n / 4u][n & 3u] = inside ? round_to(COMPUTE, read_b(place)) : 0.0;
    }
}

// Invocation (a, b) owns rows 4a..4a+3 of every THREADS_M * 4 rows, and columns likewise.
void multiply_tiles(uint a, uint b) {
    for (uint k = 0u; k < TILE_K; k++) {
        vec4 x[EACH_M / 4u], w[EACH_N / 4u];
        [[unroll]] for (uint i = 0u; i < EACH_M / 4u; i++) x[i] = tile_x[k * VECTORS_M + i * THREADS_M + a];
        [[unroll]] for (uint j = 0u; j < EACH_N / 4u; j++) w[j] = tile_w[k * VECTORS_N + j * THREADS_N + b];
        [[unroll]] for (uint i = 0u; i < EACH_M; i++)
            [[unroll]] for (uint j = 0u; j < EACH_N / 4u; j++) sums[i][j] += x[i / 4u][i & 3u] * w[j];
    }
}

void main() {
    decode_begin();
    uint group = group_index(), m0 = group % tiles_m * TILE_M, n0 = group / tiles_m * TILE_N;
    uint a = gl_LocalInvocationIndex / THREADS_N, b = gl_LocalInvocationIndex % THREADS_N;
    if (n0 >= n_count) return;
    [[unroll]] for (uint i = 0u; i < EACH_M; i++)
        [[unroll]] for (uint j = 0u; j < EACH_N / 4u; j++) sums[i][j] = vec4(0.0);
    for (uint k0 = 0u; k0 < k_count; k0 += TILE_K) {
        fill_tiles(m0, n0, k0);
        barrier();
        multiply_tiles(a, b);
        barrier();
    }
    if (EXTENSION != 0u)
        for (uint k0 = 0u; k0 < rank; k0 += TILE_K) {
            fill_extension(m0, n0, k0);
            barrier();
            multiply_tiles(a, b);
            barrier();
        }
    [[unroll]] for (uint i = 0u; i < EACH_M; i++)
        [[unroll]] for (uint j = 0u; j < EACH_N / 4u; j++) {
            uint m = m0 + (i / 4u * THREADS_M + a) * 4u + (i & 3u), n = n0 + (j * THREADS_N + b) * 4u;
            write_results(m, n, sums[i][j].x, sums[i][j].y);
            write_results(m, n + 2u, sums[i][j].z, sums[i][j].w);
        }
}
