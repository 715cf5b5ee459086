// Attention and its gradients (see attention_vulkan.comp and attention_grad_vulkan.comp) by cooperative matrices. A subgroup owns
// 16 rows and meets 32 other rows at a time, which its workgroup holds in shared memory; dimensions beyond head_dim are zero there.
//   MODE   own      others   out (own x dimensions)
//   0      queries  keys     y  = p v        a first walk over the keys finds the rows' sums, a second one p
//   1      queries  keys     dq = ds k
//   2      keys     queries  dk = ds^T q
//   3      keys     queries  dv = p^T dy
// p and ds are rounded to the 16-bit type before they meet the last matrix.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : enable
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_shader_subgroup_basic : require
layout(local_size_x_id = 8) in;

#include "backends/vulkan/common.glsl"
#include "backends/vulkan/math.glsl"

layout(constant_id = 0) const uint MODE = 0u;
layout(constant_id = 1) const uint DIMENSIONS = 128u; // head_dim, rounded up to 16
layout(constant_id = 2) const uint KEEP = 0u;         // MODE 0: write lse
layout(constant_id = 3) const uint SCORES = 0u;
layout(constant_id = 4) const uint SUBGROUP = 32u;
layout(constant_id = 5) const uint MATRIX_M = 16u;
layout(constant_id = 6) const uint MATRIX_N = 16u;
layout(constant_id = 7) const uint MATRIX_K = 16u;
layout(constant_id = 10) const uint TYPE = 0x101u;

// Own rows of the product that makes scores and of the one that makes dp; likewise the others.
layout(binding = 0, std430) readonly buffer OwnFirst { uvec4 own_first_words[]; };     // q or k
layout(binding = 1, std430) readonly buffer OwnSecond { uvec4 own_second_words[]; };   // dy or v
layout(binding = 2, std430) readonly buffer OtherFirst { uvec4 other_first_words[]; };   // k or q
layout(binding = 3, std430) readonly buffer OtherSecond { uvec4 other_second_words[]; }; // v or dy
layout(binding = 4, std430) buffer Out { uint out_words[]; };
layout(binding = 5, std430) buffer Lse { float lse[]; };
layout(binding = 6, std430) readonly buffer Delta { float delta[]; };
layout(binding = 7, std430) readonly buffer Sequences { int sequences[]; };
layout(binding = 8, std430) readonly buffer Slopes { float slopes[]; };
const uint SEQUENCES = 7u;

QLORA_PUSH
    uint heads, kv_heads, head_dim, q_rows, k_rows, tiles, sequence_count;
    uint own_first_stride, own_second_stride, other_first_stride, other_second_stride, out_stride;
    uint window;
    float scale, soft_cap, cap_scale;
};
QLORA_WRITE(write_out, out_words, 4u, TYPE)

#include "backends/vulkan/scores.glsl"

const uint OWN = 16u, OTHER = 32u, SUBGROUPS = gl_WorkGroupSize.x / SUBGROUP, ROWS = OWN * SUBGROUPS;
const uint OCTETS = DIMENSIONS / 8u, PITCH = OCTETS + 1u, STEPS = DIMENSIONS / MATRIX_K, PIECES = DIMENSIONS / MATRIX_N, EACH = OWN / MATRIX_M;
const bool KEYS_OWN = MODE >= 2u, CHANGES = MODE == 1u || MODE == 2u; // CHANGES: ds, not p, meets the last matrix
const uint PAIR_PITCH = OTHER / 8u + 1u; // octets of a row of p or ds, one of them padding

shared uvec4 stage[(2u * OTHER > ROWS ? 2u * OTHER : ROWS) * PITCH]; // the first of the others, then the second
shared float products[SUBGROUPS * 2u * OWN * OTHER];                 // of each subgroup: scores, and dp
shared uvec4 pairs[SUBGROUPS * OWN * PAIR_PITCH];                    // p or ds
shared float other_lse[OTHER], other_delta[OTHER];                   // where queries are the others

#define QLORA_OWN coopmat<float16_t, gl_ScopeSubgroup, MATRIX_M, MATRIX_K, gl_MatrixUseA>
#define QLORA_OTHER coopmat<float16_t, gl_ScopeSubgroup, MATRIX_K, MATRIX_N, gl_MatrixUseB>
#define QLORA_SUMS coopmat<float, gl_ScopeSubgroup, MATRIX_M, MATRIX_N, gl_MatrixUseAccumulator>
QLORA_OWN own_first[EACH * STEPS], own_second[CHANGES ? EACH * STEPS : 1u];
QLORA_SUMS sums[EACH * PIECES];

// Copies rows first .. first + count - 1 of those below end into the stage from row place on.
#define QLORA_STAGE(place, words, binding, first, end, count, stride, head)                                   \
    for (uint o = gl_LocalInvocationIndex; o < (count) * OCTETS; o += gl_WorkGroupSize.x) {                   \
        uint r = o / OCTETS, c = o % OCTETS;                                                                  \
        stage[((place) + r) * PITCH + c] =                                                                    \
            (first) + r < (end) && c * 8u < head_dim ? words[(QLORA_BASE(binding) + (((first) + r) * (stride) + (head) * head_dim + c * 8u) / 2u) / 4u] : uvec4(0u); \
    }

// products[part] = own rows times the others that lie in the stage from row place on.
#define QLORA_PRODUCTS(own, part, place)                                                                      \
    [[unroll]] for (uint j = 0u; j < OTHER / MATRIX_N; j++) {                                                 \
        QLORA_SUMS product[EACH];                                                                             \
        [[unroll]] for (uint i = 0u; i < EACH; i++) product[i] = QLORA_SUMS(0.0);                             \
        [[unroll]] for (uint k = 0u; k < STEPS; k++) {                                                        \
            QLORA_OTHER other;                                                                                \
            coopMatLoad(other, stage, ((place) + j * MATRIX_N) * PITCH + k * MATRIX_K / 8u, PITCH, gl_CooperativeMatrixLayoutColumnMajor); \
            [[unroll]] for (uint i = 0u; i < EACH; i++) product[i] = coopMatMulAdd(own[i * STEPS + k], other, product[i]); \
        }                                                                                                     \
        [[unroll]] for (uint i = 0u; i < EACH; i++)                                                           \
            coopMatStore(product[i], products, ((gl_SubgroupID * 2u + (part)) * OWN + i * MATRIX_M) * OTHER + j * MATRIX_N, OTHER, gl_CooperativeMatrixLayoutRowMajor); \
    }

// An invocation looks at WIDTH columns of rows row_of(0), row_of(1), ..., two at a time.
const uint LANE_ROWS = SUBGROUP < OWN ? OWN / SUBGROUP : 1u, PARTS = SUBGROUP < OWN ? 1u : SUBGROUP / OWN, WIDTH = OTHER / PARTS;
uint row_of(uint i) { return gl_SubgroupInvocationID % OWN + i * SUBGROUP; }
// The first column of its pair number c in row r: another one in every row, so that rows lie in different banks.
uint column_of(uint r, uint c) { return gl_SubgroupInvocationID / OWN % PARTS * WIDTH + (c + r) % (WIDTH / 2u) * 2u; }

// What does not change while a workgroup works.
uvec4 sequence;
uint own_begin, own_end, other_end; // rows in the tensors: the subgroup's own first one, what lies behind the own and the other rows
float decay;

// {score, slope} of product number part 0 at (r, c), of row own and row other; x is below -1e38 where the query does not see the key.
vec2 score_at(uint r, uint column, uint other_begin) {
    uint own = own_begin + r, other = other_begin + column, q = KEYS_OWN ? other : own, k = KEYS_OWN ? own : other;
    uint distance = q - sequence.x + (sequence.w - sequence.y) - (k - sequence.z);
    vec2 score = score_of(products[(gl_SubgroupID * 2u * OWN + r) * OTHER + column], decay, distance);
    return own < own_end && other < other_end && distance < window ? score : vec2(-3e38, 0.0);
}

float highest[LANE_ROWS], total[LANE_ROWS]; // MODE 0: of the columns that this invocation looks at; then of the row
float own_lse[LANE_ROWS], own_delta[LANE_ROWS];

void add_to_rows(uint other_begin) {
    [[unroll]] for (uint i = 0u; i < LANE_ROWS; i++) {
        uint r = row_of(i);
        float before = highest[i], part = 0.0;
        for (uint c = 0u; c < WIDTH / 2u; c++)
            for (uint e = 0u; e < 2u; e++) highest[i] = max(highest[i], score_at(r, column_of(r, c) + e, other_begin).x);
        for (uint c = 0u; c < WIDTH / 2u; c++)
            for (uint e = 0u; e < 2u; e++) {
                float score = score_at(r, column_of(r, c) + e, other_begin).x;
                part += score > -1e38 ? exponential(score - highest[i]) : 0.0;
            }
        total[i] = total[i] * exponential(before - highest[i]) + part;
    }
}

// Joins what the invocations of a row found, and keeps lse of the rows.
void finish_rows(uint head) {
    uint place = gl_SubgroupID * 2u * OWN * OTHER;
    subgroupBarrier(); // scores have been read
    [[unroll]] for (uint i = 0u; i < LANE_ROWS; i++) {
        uint part = gl_SubgroupInvocationID / OWN % PARTS;
        products[place + (part * OWN + row_of(i)) * 2u] = highest[i];
        products[place + (part * OWN + row_of(i)) * 2u + 1u] = total[i];
    }
    subgroupBarrier();
    [[unroll]] for (uint i = 0u; i < LANE_ROWS; i++) {
        float top = -3e38, sum = 0.0;
        for (uint part = 0u; part < PARTS; part++) top = max(top, products[place + (part * OWN + row_of(i)) * 2u]);
        for (uint part = 0u; part < PARTS; part++) sum += products[place + (part * OWN + row_of(i)) * 2u + 1u] * exponential(products[place + (part * OWN + row_of(i)) * 2u] - top);
        highest[i] = top;
        total[i] = sum;
        uint own = own_begin + row_of(i);
        if (KEEP != 0u && gl_SubgroupInvocationID / OWN == 0u && own < own_end) lse[QLORA_BASE(5u) + own * heads + head] = top + logarithm(sum);
    }
    subgroupBarrier();
}

// p or ds of the tile, two neighbours in a word.
void make_pairs(uint other_begin) {
    [[unroll]] for (uint i = 0u; i < LANE_ROWS; i++) {
        uint r = row_of(i);
        float inverse = MODE == 0u ? 1.0 / total[i] : 1.0;
        for (uint c = 0u; c < WIDTH / 2u; c++) {
            uint column = column_of(r, c), bits[2];
            [[unroll]] for (uint e = 0u; e < 2u; e++) {
                vec2 score = score_at(r, column + e, other_begin);
                float base = MODE == 0u ? highest[i] : KEYS_OWN ? other_lse[column + e] : own_lse[i];
                float value = score.x > -1e38 ? exponential(score.x - base) * inverse : 0.0;
                if (CHANGES && score.x > -1e38)
                    value *= (products[((gl_SubgroupID * 2u + 1u) * OWN + r) * OTHER + column + e] - (KEYS_OWN ? other_delta[column + e] : own_delta[i])) * score.y * scale;
                bits[e] = floatBitsToUint(value);
            }
            pairs[(gl_SubgroupID * OWN + r) * PAIR_PITCH + column / 8u][column / 2u & 3u] = narrow(TYPE, bits[0]) | (narrow(TYPE, bits[1]) << 16);
        }
    }
}

// sums += p or ds times the others that lie in the stage from row place on.
void add_outputs(uint place) {
    [[unroll]] for (uint k = 0u; k < OTHER / MATRIX_K; k++) {
        QLORA_OWN pair[EACH];
        [[unroll]] for (uint i = 0u; i < EACH; i++)
            coopMatLoad(pair[i], pairs, (gl_SubgroupID * OWN + i * MATRIX_M) * PAIR_PITCH + k * MATRIX_K / 8u, PAIR_PITCH, gl_CooperativeMatrixLayoutRowMajor);
        [[unroll]] for (uint d = 0u; d < PIECES; d++) {
            QLORA_OTHER other;
            coopMatLoad(other, stage, (place + k * MATRIX_K) * PITCH + d * MATRIX_N / 8u, PITCH, gl_CooperativeMatrixLayoutRowMajor);
            [[unroll]] for (uint i = 0u; i < EACH; i++) sums[i * PIECES + d] = coopMatMulAdd(pair[i], other, sums[i * PIECES + d]);
        }
    }
}

void main() {
    uint owners = KEYS_OWN ? kv_heads : heads, shared_by = heads / kv_heads;
    uint group = group_index(), owner = group / tiles % owners, s = group / tiles / owners;
    uint first = (KEYS_OWN ? group % tiles : tiles - 1u - group % tiles) * ROWS; // the longest walks first
    if (s >= sequence_count) return;
    sequence = sequence_at(s);
    uint ahead = sequence.w - sequence.y; // keys before the first query's own
    if (first >= (KEYS_OWN ? sequence.w : sequence.y)) return;
    uint group_begin = first + (KEYS_OWN ? sequence.z : sequence.x);
    own_begin = group_begin + gl_SubgroupID * OWN;
    own_end = KEYS_OWN ? sequence.z + sequence.w : sequence.x + sequence.y;
    // Other rows: the keys that some own query sees, or, head by head, the queries that see some own key.
    uint begin, end;
    if (KEYS_OWN) {
        begin = first > ahead ? first - ahead : 0u;
        end = max(min(first + ROWS - 1u + window, sequence.w), ahead) - ahead;
    } else {
        begin = first + ahead + 1u - min(first + ahead + 1u, window);
        end = min(first + ROWS, sequence.y) + ahead;
    }
    uint others = KEYS_OWN ? sequence.x : sequence.z, head = KEYS_OWN ? owner * shared_by : owner, heads_end = KEYS_OWN ? head + shared_by : head + 1u;
    other_end = others + end;

    QLORA_STAGE(0u, own_first_words, 0u, group_begin, own_end, ROWS, own_first_stride, owner)
    barrier();
    [[unroll]] for (uint i = 0u; i < EACH; i++)
        [[unroll]] for (uint k = 0u; k < STEPS; k++)
            coopMatLoad(own_first[i * STEPS + k], stage, (gl_SubgroupID * OWN + i * MATRIX_M) * PITCH + k * MATRIX_K / 8u, PITCH, gl_CooperativeMatrixLayoutRowMajor);
    if (CHANGES) {
        barrier();
        QLORA_STAGE(0u, own_second_words, 1u, group_begin, own_end, ROWS, own_second_stride, owner)
        barrier();
        [[unroll]] for (uint i = 0u; i < EACH; i++)
            [[unroll]] for (uint k = 0u; k < STEPS; k++)
                coopMatLoad(own_second[CHANGES ? i * STEPS + k : 0u], stage, (gl_SubgroupID * OWN + i * MATRIX_M) * PITCH + k * MATRIX_K / 8u, PITCH, gl_CooperativeMatrixLayoutRowMajor);
    }
    [[unroll]] for (uint i = 0u; i < EACH * PIECES; i++) sums[i] = QLORA_SUMS(0.0);
    [[unroll]] for (uint i = 0u; i < LANE_ROWS; i++) {
        uint place = (own_begin + row_of(i)) * heads + head;
        bool known = MODE == 1u && own_begin + row_of(i) < own_end;
        highest[i] = -3e38;
        total[i] = 0.0;
        own_lse[i] = known ? lse[QLORA_BASE(5u) + place] : 0.0;
        own_delta[i] = known ? delta[QLORA_BASE(6u) + place] : 0.0;
    }

    for (; head < heads_end; head++) {
        decay = (SCORES & SCORE_SLOPES) != 0u ? slopes[QLORA_BASE(8u) + head] : 0.0;
        for (uint walk = MODE == 0u ? 0u : 1u; walk < 2u; walk++) {
            for (uint other = begin; other < end; other += OTHER) {
                uint other_begin = others + other, kv = head / shared_by;
                barrier();
                QLORA_STAGE(0u, other_first_words, 2u, other_begin, other_end, OTHER, other_first_stride, KEYS_OWN ? head : kv)
                if (walk == 1u) { QLORA_STAGE(OTHER, other_second_words, 3u, other_begin, other_end, OTHER, other_second_stride, KEYS_OWN ? head : kv) }
                if (KEYS_OWN && gl_LocalInvocationIndex < OTHER && other_begin + gl_LocalInvocationIndex < other_end) {
                    uint place = (other_begin + gl_LocalInvocationIndex) * heads + head;
                    other_lse[gl_LocalInvocationIndex] = lse[QLORA_BASE(5u) + place];
                    other_delta[gl_LocalInvocationIndex] = CHANGES ? delta[QLORA_BASE(6u) + place] : 0.0;
                }
                barrier();
                QLORA_PRODUCTS(own_first, 0u, 0u)
                if (CHANGES) { QLORA_PRODUCTS(own_second, 1u, OTHER) }
                subgroupBarrier();
                if (walk == 0u) {
                    add_to_rows(other_begin);
                } else {
                    make_pairs(other_begin);
                    subgroupBarrier();
                    add_outputs(CHANGES ? 0u : OTHER);
                }
            }
            if (walk == 0u) finish_rows(head);
        }
    }

    // Out, 16 dimensions at a time through the place of the products.
    barrier();
    uint place = gl_SubgroupID * 2u * OWN * OTHER;
    [[unroll]] for (uint d = 0u; d < DIMENSIONS; d += 16u) {
        [[unroll]] for (uint i = 0u; i < EACH; i++)
            [[unroll]] for (uint j = 0u; j < 16u / MATRIX_N; j++)
                coopMatStore(sums[i * PIECES + d / MATRIX_N + j], products, place + i * MATRIX_M * 16u + j * MATRIX_N, 16u, gl_CooperativeMatrixLayoutRowMajor);
        subgroupBarrier();
        for (uint o = gl_SubgroupInvocationID; o < OWN * 8u; o += SUBGROUP) {
            uint r = o / 8u, c = o % 8u * 2u;
            if (own_begin + r < own_end && d + c < head_dim)
                write_out_pair((own_begin + r) * out_stride + owner * head_dim + d + c, products[place + r * 16u + c], products[place + r * 16u + c + 1u]);
        }
        subgroupBarrier();
    }
}
