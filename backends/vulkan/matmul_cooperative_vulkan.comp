// The product of matmul_vulkan.comp by cooperative matrices: operands of 16 bits, sums of f32. A workgroup makes a tile of y,
// TILE_K products at a time through shared memory, where one tile is met while the next arrives. Its subgroups share the tile as
// GROUPS_M x GROUPS_N; what there are more of them share TILE_K, and their sums are added at the end in the order of k.
// The module says f16; enqueue_vulkan.cpp makes bf16 of that where it is meant.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : enable
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_shader_subgroup_basic : require
layout(local_size_x_id = 24) in;

#include "backends/vulkan/common.glsl"
#include "backends/vulkan/codebooks.glsl"
#include "backends/vulkan/product_push.glsl"
#include "backends/vulkan/decode.glsl"
#include "backends/vulkan/product.glsl"

layout(constant_id = 17) const uint TURNED_W = 0u;
layout(constant_id = 18) const uint TURNED_X = 0u;
layout(constant_id = 19) const uint TILE_M = 128u;
layout(constant_id = 20) const uint TILE_N = 64u;
layout(constant_id = 21) const uint TILE_K = 32u;
layout(constant_id = 22) const uint GROUPS_M = 2u;
layout(constant_id = 23) const uint GROUPS_N = 2u;
layout(constant_id = 25) const uint SUBGROUP = 32u;
layout(constant_id = 26) const uint MATRIX_M = 16u;
layout(constant_id = 27) const uint MATRIX_N = 16u;
layout(constant_id = 28) const uint MATRIX_K = 16u;

const uint THREADS = gl_WorkGroupSize.x, SUBGROUPS = THREADS / SUBGROUP, GROUPS_K = SUBGROUPS / (GROUPS_M * GROUPS_N);
const uint SHARE_M = TILE_M / GROUPS_M, SHARE_N = TILE_N / GROUPS_N, SHARE_K = TILE_K / GROUPS_K; // of a subgroup
const uint EACH_M = SHARE_M / MATRIX_M, EACH_N = SHARE_N / MATRIX_N, EACH = MATRIX_M * MATRIX_N;

// Tiles lie as their matrices do in memory, in octets of 16-bit elements, an octet more in each row so that rows lie in
// different banks: x[m][k] or turned x[k][m], w[n][k] or turned w[k][n].
const uint X_ROWS = TURNED_X != 0u ? TILE_K : TILE_M, X_OCTETS = (TURNED_X != 0u ? TILE_M : TILE_K) / 8u, X_PITCH = X_OCTETS + 1u;
const uint W_ROWS = TURNED_W != 0u ? TILE_K : TILE_N, W_OCTETS_ROW = (TURNED_W != 0u ? TILE_N : TILE_K) / 8u, W_PITCH = W_OCTETS_ROW + 1u;
const uint X_TILE = X_ROWS * X_PITCH, W_TILE = W_ROWS * W_PITCH;
const uint X_EACH = (X_ROWS * X_OCTETS + THREADS - 1u) / THREADS, W_EACH = (W_ROWS * W_OCTETS_ROW + THREADS - 1u) / THREADS;

const uint PATCHES = SUBGROUPS * EACH / 4u; // a matrix of sums of each subgroup, at the end in the place of tile_x
shared uvec4 tile_x[2u * X_TILE > PATCHES ? 2u * X_TILE : PATCHES], tile_w[2u * W_TILE];

coopmat<float, gl_ScopeSubgroup, MATRIX_M, MATRIX_N, gl_MatrixUseAccumulator> sums[EACH_M * EACH_N];
// What was fetched for the next pair of tiles: x as it will lie, w in the same way or as it is read (Octet) where its codec comes in
// two halves, of which the second, and the rounding, wait until the tiles before are met.
uvec4 next_x[X_EACH];
#ifdef QLORA_OCTETS
Octet next_w[W_EACH];
const bool HALVES = W_OCTETS != 0u;
#else
struct Octet { uvec4 first; };
Octet next_w[W_EACH];
const bool HALVES = false;
#endif

uvec4 packed(uint bits[8]) {
    uvec4 words;
    [[unroll]] for (uint e = 0u; e < 4u; e++) words[e] = narrow(COMPUTE, bits[2u * e]) | (narrow(COMPUTE, bits[2u * e + 1u]) << 16);
    return words;
}

uvec4 octet_x(uint r, uint c, uint rows, uint cols) {
    if (X_VECTORS != 0u && X_TYPE == COMPUTE)
        return r < rows && c < cols ? x_vectors[(QLORA_BASE(4u) + ((x_begin + r * x_stride + c) >> 1)) >> 2] : uvec4(0u);
    float values[8];
    uint bits[8];
    load_x(r, c, rows, cols, values);
    [[unroll]] for (uint e = 0u; e < 8u; e++) bits[e] = floatBitsToUint(values[e]);
    return packed(bits);
}

// Row and first column in w, and the bounds of both, of octet o of the tile at (n0, k0).
uvec4 place_w(uint o, uint n0, uint k0) {
    uint r = o / W_OCTETS_ROW, c = o % W_OCTETS_ROW * 8u;
    return TURNED_W != 0u ? uvec4(k0 + r, n0 + c, k_count, n_count) : uvec4(n0 + r, k0 + c, n_count, k_count);
}

// Reads the tiles at k0 into registers.
void fetch(uint m0, uint n0, uint k0) {
    [[unroll]] for (uint i = 0u; i < X_EACH; i++) {
        uint o = i * THREADS + gl_LocalInvocationIndex, r = o / X_OCTETS, c = o % X_OCTETS * 8u;
        if (o < X_ROWS * X_OCTETS) next_x[i] = TURNED_X != 0u ? octet_x(k0 + r, m0 + c, k_count, m_count) : octet_x(m0 + r, k0 + c, m_count, k_count);
    }
    [[unroll]] for (uint i = 0u; i < W_EACH; i++) {
        uint o = i * THREADS + gl_LocalInvocationIndex;
        uvec4 place = place_w(o, n0, k0);
        if (o >= W_ROWS * W_OCTETS_ROW) continue;
#ifdef QLORA_OCTETS
        if (HALVES) {
            if (all(lessThan(place.xy, place.zw))) next_w[i] = read_octet(place.x, place.y);
            continue;
        }
#endif
        uint bits[8];
        load_w_bits(place.x, place.y, place.z, place.w, bits);
        next_w[i].first = packed(bits);
    }
}

// The same of the adapter: xa[m][k], and b[n][k] or, turned, a[k][n]. An x that is turned has none.
void fetch_extension(uint m0, uint n0, uint k0) {
    uint bits[8];
    [[unroll]] for (uint i = 0u; i < X_EACH; i++) {
        uint o = i * THREADS + gl_LocalInvocationIndex, r = o / X_OCTETS, c = o % X_OCTETS * 8u;
        [[unroll]] for (uint e = 0u; e < 8u; e++) bits[e] = floatBitsToUint(load_xa(m0 + r, k0 + c + e));
        next_x[i] = packed(bits);
    }
    [[unroll]] for (uint i = 0u; i < W_EACH; i++) {
        uint o = i * THREADS + gl_LocalInvocationIndex, r = o / W_OCTETS_ROW, c = o % W_OCTETS_ROW * 8u;
        [[unroll]] for (uint e = 0u; e < 8u; e++) {
            uint n = n0 + (TURNED_W != 0u ? c + e : r), k = k0 + (TURNED_W != 0u ? r : c + e);
            bits[e] = n < n_count && k < rank ? read_b_bits(TURNED_W != 0u ? k * b_stride + n : n * b_stride + k) : 0u;
        }
        next_w[i].first = packed(bits);
    }
}

// Puts what was fetched at k0 into one of the two pairs of tiles.
void keep(uint pair, uint n0, uint k0, bool halves) {
    [[unroll]] for (uint i = 0u; i < X_EACH; i++) {
        uint o = i * THREADS + gl_LocalInvocationIndex;
        if (o < X_ROWS * X_OCTETS) tile_x[pair * X_TILE + o / X_OCTETS * X_PITCH + o % X_OCTETS] = next_x[i];
    }
    [[unroll]] for (uint i = 0u; i < W_EACH; i++) {
        uint o = i * THREADS + gl_LocalInvocationIndex;
        uvec4 words = next_w[i].first;
#ifdef QLORA_OCTETS
        if (halves) {
            uint bits[8];
            made_octet(next_w[i], bits);
            uvec4 place = place_w(o, n0, k0);
            words = all(lessThan(place.xy, place.zw)) ? (CODEC == CODEC_FLOAT && FORMAT == COMPUTE ? next_w[i].first : packed(bits)) : uvec4(0u);
        }
#endif
        if (o < W_ROWS * W_OCTETS_ROW) tile_w[pair * W_TILE + o / W_OCTETS_ROW * W_PITCH + o % W_OCTETS_ROW] = words;
    }
}

void multiply(uint pair, uint first_m, uint first_n, uint first_k) {
    [[unroll]] for (uint k = 0u; k < SHARE_K; k += MATRIX_K) {
        coopmat<float16_t, gl_ScopeSubgroup, MATRIX_M, MATRIX_K, gl_MatrixUseA> x[EACH_M];
        coopmat<float16_t, gl_ScopeSubgroup, MATRIX_K, MATRIX_N, gl_MatrixUseB> w;
        [[unroll]] for (uint i = 0u; i < EACH_M; i++) {
            uint m = first_m + i * MATRIX_M;
            if (TURNED_X != 0u) coopMatLoad(x[i], tile_x, pair * X_TILE + (first_k + k) * X_PITCH + m / 8u, X_PITCH, gl_CooperativeMatrixLayoutColumnMajor);
            else coopMatLoad(x[i], tile_x, pair * X_TILE + m * X_PITCH + (first_k + k) / 8u, X_PITCH, gl_CooperativeMatrixLayoutRowMajor);
        }
        [[unroll]] for (uint j = 0u; j < EACH_N; j++) {
            uint n = first_n + j * MATRIX_N;
            if (TURNED_W != 0u) coopMatLoad(w, tile_w, pair * W_TILE + (first_k + k) * W_PITCH + n / 8u, W_PITCH, gl_CooperativeMatrixLayoutRowMajor);
            else coopMatLoad(w, tile_w, pair * W_TILE + n * W_PITCH + (first_k + k) / 8u, W_PITCH, gl_CooperativeMatrixLayoutColumnMajor);
            [[unroll]] for (uint i = 0u; i < EACH_M; i++) sums[i * EACH_N + j] = coopMatMulAdd(x[i], w, sums[i * EACH_N + j]);
        }
    }
}

void main() {
    decode_begin();
    uint group = group_index(), m0 = group % tiles_m * TILE_M, n0 = group / tiles_m * TILE_N;
    if (n0 >= n_count) return;
    uint share = gl_SubgroupID % (GROUPS_M * GROUPS_N), share_k = gl_SubgroupID / (GROUPS_M * GROUPS_N);
    uint first_m = share % GROUPS_M * SHARE_M, first_n = share / GROUPS_M * SHARE_N, first_k = share_k * SHARE_K;
    [[unroll]] for (uint i = 0u; i < EACH_M * EACH_N; i++) sums[i] = coopmat<float, gl_ScopeSubgroup, MATRIX_M, MATRIX_N, gl_MatrixUseAccumulator>(0.0);

    uint pair = 0u;
    fetch(m0, n0, 0u);
    keep(0u, n0, 0u, HALVES);
    barrier();
    for (uint k0 = 0u; k0 < k_count; k0 += TILE_K) { // the last round fetches zeros
        fetch(m0, n0, k0 + TILE_K);
        multiply(pair, first_m, first_n, first_k);
        pair ^= 1u;
        keep(pair, n0, k0 + TILE_K, HALVES);
        barrier();
    }
    if (EXTENSION != 0u)
        for (uint k0 = 0u; k0 < rank; k0 += TILE_K) {
            fetch_extension(m0, n0, k0);
            keep(pair, n0, k0, false);
            barrier();
            multiply(pair, first_m, first_n, first_k);
            pair ^= 1u; // which was met before the barrier
        }
    barrier();

    // Sums leave through a patch of each subgroup, four neighbours an invocation.
    uint lanes = GROUPS_K * SUBGROUP, lane = share_k * SUBGROUP + gl_SubgroupInvocationID;
    [[unroll]] for (uint i = 0u; i < EACH_M; i++)
        [[unroll]] for (uint j = 0u; j < EACH_N; j++) {
            coopMatStore(sums[i * EACH_N + j], tile_x, gl_SubgroupID * EACH / 4u, MATRIX_N / 4u, gl_CooperativeMatrixLayoutRowMajor);
            barrier();
            for (uint p = lane; p < EACH / 4u; p += lanes) {
                vec4 sum = uintBitsToFloat(tile_x[share * EACH / 4u + p]);
                [[unroll]] for (uint g = 1u; g < GROUPS_K; g++) sum += uintBitsToFloat(tile_x[(g * GROUPS_M * GROUPS_N + share) * EACH / 4u + p]);
                uint m = m0 + first_m + i * MATRIX_M + p * 4u / MATRIX_N, n = n0 + first_n + j * MATRIX_N + p * 4u % MATRIX_N;
                write_results(m, n, sum.x, sum.y);
                write_results(m, n + 2u, sum.z, sum.w);
            }
            barrier();
        }
}
