// p = exp(score - lse); ds = p * (dy . v - delta) * slope * scale with delta = dy . y; dq = ds k; dk = ds^T q; dv = p^T dy. Scores
// and their slopes by scale * q k^T are those of attention.glsl.
// MODE 0 makes delta, one query and head per invocation. MODE 1 makes dq: queries are the own rows, keys the others.
// MODE 2 makes dk and dv: keys are the own rows, the queries of every head of the group the others.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : enable
layout(local_size_x = 64) in;

#include "backends/vulkan/common.glsl"
#include "backends/vulkan/math.glsl"
#include "backends/vulkan/attention_access.glsl"

layout(constant_id = 0) const uint TYPE = 0x100u;
layout(constant_id = 1) const uint CHUNKS = 1u;
layout(constant_id = 2) const uint VECTORS = 0u;
layout(constant_id = 3) const uint MODE = 1u;
layout(constant_id = 4) const uint WANT_FIRST = 1u;  // dq or dk
layout(constant_id = 5) const uint WANT_SECOND = 0u; // dv
layout(constant_id = 6) const uint SCORES = 0u;

layout(binding = 0, std430) readonly buffer Q { uint q_words[]; };
layout(binding = 0, std430) readonly buffer Q4 { uvec4 q_vectors[]; };
layout(binding = 0, std430) readonly buffer Q2 { uvec2 q_halves[]; };
layout(binding = 1, std430) readonly buffer K { uint k_words[]; };
layout(binding = 1, std430) readonly buffer K4 { uvec4 k_vectors[]; };
layout(binding = 1, std430) readonly buffer K2 { uvec2 k_halves[]; };
layout(binding = 2, std430) readonly buffer V { uint v_words[]; };
layout(binding = 2, std430) readonly buffer V4 { uvec4 v_vectors[]; };
layout(binding = 2, std430) readonly buffer V2 { uvec2 v_halves[]; };
layout(binding = 3, std430) readonly buffer Dy { uint dy_words[]; };
layout(binding = 3, std430) readonly buffer Dy4 { uvec4 dy_vectors[]; };
layout(binding = 3, std430) readonly buffer Dy2 { uvec2 dy_halves[]; };
layout(binding = 4, std430) buffer First { uint first_words[]; };   // dq or dk; y in MODE 0
layout(binding = 5, std430) buffer Second { uint second_words[]; }; // dv
layout(binding = 6, std430) readonly buffer Lse { float lse[]; };
layout(binding = 7, std430) buffer Delta { float delta[]; };
layout(binding = 8, std430) readonly buffer Sequences { int sequences[]; };
layout(binding = 9, std430) readonly buffer Slopes { float slopes[]; };
const uint SEQUENCES = 8u;

QLORA_PUSH
    uint heads, kv_heads, head_dim, q_rows, k_rows, tiles, sequence_count;
    uint q_stride, k_stride, v_stride, dy_stride, first_stride, second_stride;
    uint window; // at most all keys, so that less than it is a distance that is not negative
    float scale, soft_cap, cap_scale; // cap_scale: scale / soft_cap
};
QLORA_READ(read_q, q_words, 0u, TYPE)
QLORA_READ(read_k, k_words, 1u, TYPE)
QLORA_READ(read_v, v_words, 2u, TYPE)
QLORA_READ(read_dy, dy_words, 3u, TYPE)
QLORA_READ(read_y, first_words, 4u, TYPE)
QLORA_WRITE(write_first, first_words, 4u, TYPE)
QLORA_WRITE(write_second, second_words, 5u, TYPE)
QLORA_READ4(read_q4, read_q, q_vectors, q_halves, 0u, TYPE)
QLORA_READ4(read_k4, read_k, k_vectors, k_halves, 1u, TYPE)
QLORA_READ4(read_v4, read_v, v_vectors, v_halves, 2u, TYPE)
QLORA_READ4(read_dy4, read_dy, dy_vectors, dy_halves, 3u, TYPE)
QLORA_WRITE4(write_first4, write_first)
QLORA_WRITE4(write_second4, write_second)

#include "backends/vulkan/attention.glsl"

const bool KEYS_OWN = MODE == 2u;
const uint SECOND_CHUNKS = WANT_SECOND != 0u ? CHUNKS : 1u;
vec4 first_sums[CHUNKS][4], second_sums[SECOND_CHUNKS][4];

void make_delta() {
    uint item = group_index() * 64u + gl_LocalInvocationIndex, r = item / heads, head = item % heads;
    if (r >= q_rows) return;
    float sum = 0.0;
    for (uint d = 0u; d < head_dim; d++) sum += read_dy(r * dy_stride + head * head_dim + d) * read_y(r * first_stride + head * head_dim + d);
    delta[QLORA_BASE(7u) + item] = sum;
}

// Meets the own rows with one tile of other rows. Rows are counted in the tensors.
void meet(uint own_first, uint own_end, uint other_first, uint other_end, uint head, uint kv, uvec4 sequence) {
    uint a = gl_LocalInvocationIndex / 8u, b = gl_LocalInvocationIndex % 8u;
    float scores[4][4] = float[4][4](float[4](0.0, 0.0, 0.0, 0.0), float[4](0.0, 0.0, 0.0, 0.0), float[4](0.0, 0.0, 0.0, 0.0), float[4](0.0, 0.0, 0.0, 0.0));
    float changes[4][4] = scores; // dy . v, then ds
    float decay = (SCORES & SCORE_SLOPES) != 0u ? slopes[QLORA_BASE(9u) + head] : 0.0;
    for (uint c = 0u; c < CHUNKS; c++) {
        if (KEYS_OWN) {
            QLORA_LOAD_TILE(own_tile, read_k4, own_first, own_end, k_stride, kv, c)
            QLORA_LOAD_TILE(other_tile, read_q4, other_first, other_end, q_stride, head, c)
        } else {
            QLORA_LOAD_TILE(own_tile, read_q4, own_first, own_end, q_stride, head, c)
            QLORA_LOAD_TILE(other_tile, read_k4, other_first, other_end, k_stride, kv, c)
        }
        barrier();
        add_dots(scores);
        barrier();
    }
    if (WANT_FIRST != 0u)
        for (uint c = 0u; c < CHUNKS; c++) {
            if (KEYS_OWN) {
                QLORA_LOAD_TILE(own_tile, read_v4, own_first, own_end, v_stride, kv, c)
                QLORA_LOAD_TILE(other_tile, read_dy4, other_first, other_end, dy_stride, head, c)
            } else {
                QLORA_LOAD_TILE(own_tile, read_dy4, own_first, own_end, dy_stride, head, c)
                QLORA_LOAD_TILE(other_tile, read_v4, other_first, other_end, v_stride, kv, c)
            }
            barrier();
            add_dots(changes);
            barrier();
        }
    [[unroll]] for (uint i = 0u; i < 4u; i++)
        [[unroll]] for (uint j = 0u; j < 4u; j++) {
            uint own = own_first + a * 4u + i, other = other_first + b + j * 8u;
            uint q = KEYS_OWN ? other : own, k = KEYS_OWN ? own : other;
            uint distance = q - sequence.x + (sequence.w - sequence.y) - (k - sequence.z), place = q * heads + head;
            bool seen = own < own_end && other < other_end && distance < window;
            vec2 score = score_of(scores[i][j], decay, distance);
            float p = seen ? exponential(score.x - lse[QLORA_BASE(6u) + place]) : 0.0;
            changes[i][j] = seen && WANT_FIRST != 0u ? p * (changes[i][j] - delta[QLORA_BASE(7u) + place]) * score.y * scale : 0.0;
            scores[i][j] = p;
        }
    if (WANT_FIRST != 0u) {
        share_pairs(changes);
        [[unroll]] for (uint c = 0u; c < CHUNKS; c++) {
            if (KEYS_OWN) {
                QLORA_LOAD_TILE(other_tile, read_q4, other_first, other_end, q_stride, head, c)
            } else {
                QLORA_LOAD_TILE(other_tile, read_k4, other_first, other_end, k_stride, kv, c)
            }
            barrier();
            add_weighted(first_sums[c]);
            barrier();
        }
    }
    if (WANT_SECOND != 0u) {
        share_pairs(scores);
        [[unroll]] for (uint c = 0u; c < SECOND_CHUNKS; c++) {
            QLORA_LOAD_TILE(other_tile, read_dy4, other_first, other_end, dy_stride, head, c)
            barrier();
            add_weighted(second_sums[c]);
            barrier();
        }
    }
}

void main() {
    if (MODE == 0u) { make_delta(); return; }
    uint owners = KEYS_OWN ? kv_heads : heads, shared_by = heads / kv_heads;
    uint group = group_index(), owner = group / tiles % owners, s = group / tiles / owners;
    uint first = (KEYS_OWN ? group % tiles : tiles - 1u - group % tiles) * TILE; // the longest walks first
    if (s >= sequence_count) return;
    uvec4 sequence = sequence_at(s);
    uint ahead = sequence.w - sequence.y;
    if (first >= (KEYS_OWN ? sequence.w : sequence.y)) return;
    [[unroll]] for (uint i = 0u; i < 4u; i++) {
        [[unroll]] for (uint c = 0u; c < CHUNKS; c++) first_sums[c][i] = vec4(0.0);
        [[unroll]] for (uint c = 0u; c < SECOND_CHUNKS; c++) second_sums[c][i] = vec4(0.0);
    }
    uint own_first = first + (KEYS_OWN ? sequence.z : sequence.x), own_end = KEYS_OWN ? sequence.z + sequence.w : sequence.x + sequence.y;
    // Other rows: the keys that some own query sees, or, head by head, the queries that see some own key.
    uint begin, end;
    if (KEYS_OWN) {
        begin = first > ahead ? (first - ahead) / TILE * TILE : 0u;
        end = max(min(first + TILE - 1u + window, sequence.w), ahead) - ahead;
    } else {
        begin = first + ahead + 1u - min(first + ahead + 1u, window);
        end = min(first + TILE, sequence.y) + ahead;
    }
    uint other_first = KEYS_OWN ? sequence.x : sequence.z, head = KEYS_OWN ? owner * shared_by : owner, heads_end = KEYS_OWN ? head + shared_by : head + 1u;
    for (; head < heads_end; head++)
        for (uint other = begin; other < end; other += TILE) meet(own_first, own_end, other_first + other, other_first + end, head, head / shared_by, sequence);
    uint a = gl_LocalInvocationIndex / 8u, b = gl_LocalInvocationIndex % 8u;
    [[unroll]] for (uint i = 0u; i < 4u; i++) {
        uint r = own_first + a * 4u + i;
        if (r >= own_end) continue;
        [[unroll]] for (uint c = 0u; c < CHUNKS; c++) {
            uint d = c * 32u + b * 4u;
            if (d < head_dim && WANT_FIRST != 0u) write_first4(r * first_stride + owner * head_dim + d, head_dim - d, first_sums[c][i]);
            if (d < head_dim && WANT_SECOND != 0u) write_second4(r * second_stride + owner * head_dim + d, head_dim - d, second_sums[c < SECOND_CHUNKS ? c : 0u][i]);
        }
    }
}
