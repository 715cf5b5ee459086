// y[m][n] = f32(sum_k x[m][k] w[n][k]) * scales + sum over outlier columns of x w + bias[n] + old y, with the first sum over
// signed bytes in int32; TURNED: of w[k][n]. A workgroup makes a tile of y, 32 products at a time through shared memory, where
// a word holds the codes of four neighbouring k. Compiled again with QLORA_DOT for devices that multiply such words.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : enable
#ifdef QLORA_DOT
#extension GL_EXT_spirv_intrinsics : require
#endif
layout(local_size_x = 256) in;

#include "backends/vulkan/common.glsl"

layout(constant_id = 0) const uint X_TYPE = 0x100u;
layout(constant_id = 1) const uint Y_TYPE = 0x100u;
layout(constant_id = 2) const uint ACCUMULATE = 0u;
layout(constant_id = 3) const uint BIAS = 0u;
layout(constant_id = 4) const uint OUTLIERS = 0u;
layout(constant_id = 5) const uint TURNED = 0u;     // and the weight's scales are in x already
layout(constant_id = 6) const uint ONE_SCALE = 0u;
layout(constant_id = 7) const uint WHOLE_WORDS = 0u; // rows of w are whole words
layout(constant_id = 8) const uint TILE_M = 64u;
layout(constant_id = 9) const uint TILE_N = 64u;
layout(constant_id = 10) const uint EACH_M = 4u;
layout(constant_id = 11) const uint EACH_N = 4u;
const uint WORDS_K = 8u; // of a tile

layout(binding = 0, std430) readonly buffer CodePlane { uint code_words[]; };
layout(binding = 1, std430) readonly buffer WeightScales { float weight_scales[]; };
layout(binding = 2, std430) readonly buffer XCodes { uvec4 x_codes[]; };
layout(binding = 3, std430) readonly buffer XScales { float x_scales[]; };
layout(binding = 4, std430) readonly buffer X { uint x_words[]; };
layout(binding = 5, std430) buffer Y { uint y_words[]; };
layout(binding = 6, std430) readonly buffer Bias { float bias_values[]; };
layout(binding = 7, std430) readonly buffer List { uint list[]; };

QLORA_PUSH
    uint m_count, n_count, k_count;          // y[m][n], k summed over
    uint w_stride, x_vectors, last_word;     // x_vectors: 16-byte pieces of a row of codes; last_word of w's codes
    uint x_stride, y_stride, tiles_m;
};
QLORA_READ(read_x, x_words, 4u, X_TYPE)
QLORA_READ(read_y, y_words, 5u, Y_TYPE)
QLORA_WRITE(write_y, y_words, 5u, Y_TYPE)

const uint THREADS_M = TILE_M / EACH_M, THREADS_N = TILE_N / EACH_N; // 256 in all
const uint VECTORS_M = TILE_M / 4u, VECTORS_N = TILE_N / 4u;

shared uvec4 tile_x[WORDS_K * VECTORS_M];
shared uvec4 tile_w[WORDS_K * VECTORS_N];

#ifdef QLORA_DOT
spirv_instruction(extensions = ["SPV_KHR_integer_dot_product"], capabilities = [6018, 6019], id = 4450) // OpSDotKHR
int dot_product(uint a, uint b, spirv_literal int packing);
int dot4(uint a, uint b) { return dot_product(a, b, 0); }
#else
int dot4(uint a, uint b) {
    int x = int(a), w = int(b);
    return bitfieldExtract(x, 0, 8) * bitfieldExtract(w, 0, 8) + bitfieldExtract(x, 8, 8) * bitfieldExtract(w, 8, 8) +
           bitfieldExtract(x, 16, 8) * bitfieldExtract(w, 16, 8) + (x >> 24) * (w >> 24);
}
#endif

// Loops that fill tiles are unrolled: a software device takes 65535 turns of all loops in an invocation, then it stops.

// The four codes from byte i on. Those past the end of the plane are not looked at; they meet zeros, or are not stored.
uint codes_at(uint i) {
    uint place = i >> 2, shift = (i & 3u) * 8u, low = code_words[QLORA_BASE(0u) + min(place, last_word)];
    if (WHOLE_WORDS != 0u || shift == 0u) return low;
    return (low >> shift) | (code_words[QLORA_BASE(0u) + min(place + 1u, last_word)] << (32u - shift));
}

void fill_x(uint m0, uint k0) {
    [[unroll]] for (uint step = 0u; step < TILE_M * 2u; step += 256u) {
        uint i = step + gl_LocalInvocationIndex, m = i >> 1, k = (i & 1u) * 4u; // words
        if (i >= TILE_M * 2u) break;
        uvec4 words = x_codes[(QLORA_BASE(2u) >> 2) + min(m0 + m, m_count - 1u) * x_vectors + k0 / 16u + (i & 1u)];
        [[unroll]] for (uint e = 0u; e < 4u; e++) tile_x[(k + e) * VECTORS_M + m / 4u][m & 3u] = words[e];
    }
}

void fill_w(uint n0, uint k0) {
    if (TURNED == 0u) {
        [[unroll]] for (uint step = 0u; step < TILE_N * WORDS_K; step += 256u) {
            uint i = step + gl_LocalInvocationIndex, n = i / WORDS_K, k = i % WORDS_K;
            tile_w[k * VECTORS_N + n / 4u][n & 3u] = codes_at(min(n0 + n, n_count - 1u) * w_stride + k0 + k * 4u);
        }
        return;
    }
    [[unroll]] for (uint step = 0u; step < VECTORS_N * WORDS_K; step += 256u) {
        uint i = step + gl_LocalInvocationIndex, n = i % VECTORS_N * 4u, k = i / VECTORS_N;
        if (i >= VECTORS_N * WORDS_K) break;
        uvec4 rows, columns;
        [[unroll]] for (uint e = 0u; e < 4u; e++) rows[e] = codes_at(min(k0 + k * 4u + e, k_count - 1u) * w_stride + n0 + n);
        [[unroll]] for (uint e = 0u; e < 4u; e++)
            columns[e] = ((rows[0] >> (e * 8u)) & 255u) | (((rows[1] >> (e * 8u)) & 255u) << 8) | (((rows[2] >> (e * 8u)) & 255u) << 16) | ((rows[3] >> (e * 8u)) << 24);
        tile_w[k * VECTORS_N + n / 4u] = columns;
    }
}

float weight_scale(uint n) { return weight_scales[QLORA_BASE(1u) + (ONE_SCALE != 0u ? 0u : min(n, n_count - 1u))]; }

// The same tiles with a value of an outlier column in the place of four codes.
void fill_outliers(uint m0, uint n0, uint first, uint count) {
    for (uint i = gl_LocalInvocationIndex; i < TILE_M * WORDS_K; i += 256u) {
        uint m = i % TILE_M, k = i / TILE_M;
        bool inside = m0 + m < m_count && first + k < count;
        tile_x[k * VECTORS_M + m / 4u][m & 3u] = inside ? floatBitsToUint(read_x((m0 + m) * x_stride + list[QLORA_BASE(7u) + 1u + first + k])) : 0u;
    }
    for (uint i = gl_LocalInvocationIndex; i < TILE_N * WORDS_K; i += 256u) {
        uint n = i % TILE_N, k = i / TILE_N;
        float value = 0.0;
        if (n0 + n < n_count && first + k < count) {
            uint place = (n0 + n) * w_stride + list[QLORA_BASE(7u) + 1u + first + k];
            int code = bitfieldExtract(int(code_words[QLORA_BASE(0u) + (place >> 2)]), int(place & 3u) * 8, 8);
            precise float scale = weight_scale(n0 + n) * (1.0 / 127.0);
            precise float product = float(code) * scale;
            value = round_to(X_TYPE, product);
        }
        tile_w[k * VECTORS_N + n / 4u][n & 3u] = floatBitsToUint(value);
    }
}

int sums[EACH_M][EACH_N];
float results[EACH_M][EACH_N];

void multiply_codes(uint a, uint b) {
    for (uint k = 0u; k < WORDS_K; k++) {
        uvec4 x[EACH_M / 4u], w[EACH_N / 4u];
        [[unroll]] for (uint i = 0u; i < EACH_M / 4u; i++) x[i] = tile_x[k * VECTORS_M + i * THREADS_M + a];
        [[unroll]] for (uint j = 0u; j < EACH_N / 4u; j++) w[j] = tile_w[k * VECTORS_N + j * THREADS_N + b];
        [[unroll]] for (uint i = 0u; i < EACH_M; i++)
            [[unroll]] for (uint j = 0u; j < EACH_N; j++) sums[i][j] += dot4(x[i / 4u][i & 3u], w[j / 4u][j & 3u]);
    }
}

void multiply_values(uint a, uint b) {
    for (uint k = 0u; k < WORDS_K; k++) {
        vec4 x[EACH_M / 4u], w[EACH_N / 4u];
        [[unroll]] for (uint i = 0u; i < EACH_M / 4u; i++) x[i] = uintBitsToFloat(tile_x[k * VECTORS_M + i * THREADS_M + a]);
        [[unroll]] for (uint j = 0u; j < EACH_N / 4u; j++) w[j] = uintBitsToFloat(tile_w[k * VECTORS_N + j * THREADS_N + b]);
        [[unroll]] for (uint i = 0u; i < EACH_M; i++)
            [[unroll]] for (uint j = 0u; j < EACH_N; j++) results[i][j] += x[i / 4u][i & 3u] * w[j / 4u][j & 3u];
    }
}

// Rows and columns of sum (i, j) of invocation (a, b).
uint row_of(uint i, uint a) { return (i / 4u * THREADS_M + a) * 4u + (i & 3u); }
uint column_of(uint j, uint b) { return (j / 4u * THREADS_N + b) * 4u + (j & 3u); }

float finish(float sum, uint m, uint n) {
    if (BIAS != 0u) sum += bias_values[QLORA_BASE(6u) + n];
    if (ACCUMULATE != 0u) sum += read_y(m * y_stride + n);
    return sum;
}

void main() {
    uint group = group_index(), m0 = group % tiles_m * TILE_M, n0 = group / tiles_m * TILE_N;
    uint a = gl_LocalInvocationIndex / THREADS_N, b = gl_LocalInvocationIndex % THREADS_N;
    if (n0 >= n_count) return;
    [[unroll]] for (uint i = 0u; i < EACH_M; i++)
        [[unroll]] for (uint j = 0u; j < EACH_N; j++) sums[i][j] = 0;
    for (uint k0 = 0u; k0 < k_count; k0 += WORDS_K * 4u) {
        fill_x(m0, k0);
        fill_w(n0, k0);
        barrier();
        multiply_codes(a, b);
        barrier();
    }
    [[unroll]] for (uint i = 0u; i < EACH_M; i++) {
        float scale = x_scales[QLORA_BASE(3u) + min(m0 + row_of(i, a), m_count - 1u)];
        [[unroll]] for (uint j = 0u; j < EACH_N; j++) {
            precise float both = TURNED != 0u ? scale * (1.0 / 127.0) : scale * weight_scale(n0 + column_of(j, b));
            precise float factor = TURNED != 0u ? both : both * 6.200012e-05;
            precise float part = float(sums[i][j]) * factor;
            results[i][j] = part;
        }
    }
    if (OUTLIERS != 0u) {
        uint count = list[QLORA_BASE(7u)];
        for (uint first = 0u; first < count; first += WORDS_K) {
            fill_outliers(m0, n0, first, count);
            barrier();
            multiply_values(a, b);
            barrier();
        }
    }
    [[unroll]] for (uint i = 0u; i < EACH_M; i++)
        [[unroll]] for (uint j = 0u; j < EACH_N; j += 2u) {
            uint m = m0 + row_of(i, a), n = n0 + column_of(j, b);
            if (m >= m_count || n >= n_count) continue;
            float first = finish(results[i][j], m, n);
            if (n + 1u < n_count) write_y_pair(m * y_stride + n, first, finish(results[i][j + 1u], m, n + 1u));
            else write_y(m * y_stride + n, first);
        }
}
