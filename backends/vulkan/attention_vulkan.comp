// y = softmax(scores) v, a tile of 32 queries of one head at a time; the softmax is kept up to date while the keys pass by
// (FlashAttention). Scores are scale * q k^T, or what attention.glsl makes of that.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : enable
layout(local_size_x = 64) in;

#include "backends/vulkan/common.glsl"
#include "backends/vulkan/math.glsl"
#include "backends/vulkan/attention_access.glsl"

layout(constant_id = 0) const uint TYPE = 0x100u;
layout(constant_id = 1) const uint CHUNKS = 1u;  // of 32 dimensions
layout(constant_id = 2) const uint VECTORS = 0u; // four dimensions are one aligned load
layout(constant_id = 3) const uint KEEP = 0u;    // write lse
layout(constant_id = 4) const uint SCORES = 0u;

layout(binding = 0, std430) readonly buffer Q { uint q_words[]; };
layout(binding = 0, std430) readonly buffer Q4 { uvec4 q_vectors[]; };
layout(binding = 0, std430) readonly buffer Q2 { uvec2 q_halves[]; };
layout(binding = 1, std430) readonly buffer K { uint k_words[]; };
layout(binding = 1, std430) readonly buffer K4 { uvec4 k_vectors[]; };
layout(binding = 1, std430) readonly buffer K2 { uvec2 k_halves[]; };
layout(binding = 2, std430) readonly buffer V { uint v_words[]; };
layout(binding = 2, std430) readonly buffer V4 { uvec4 v_vectors[]; };
layout(binding = 2, std430) readonly buffer V2 { uvec2 v_halves[]; };
layout(binding = 3, std430) buffer Y { uint y_words[]; };
layout(binding = 4, std430) writeonly buffer Lse { float lse[]; };
layout(binding = 5, std430) readonly buffer Sequences { int sequences[]; };
layout(binding = 6, std430) readonly buffer Slopes { float slopes[]; };
const uint SEQUENCES = 5u;

QLORA_PUSH
    uint heads, kv_heads, head_dim, q_rows, k_rows, tiles, sequence_count;
    uint q_stride, k_stride, v_stride, y_stride;
    uint window; // at most all keys, so that less than it is a distance that is not negative
    float scale, soft_cap, cap_scale; // cap_scale: scale / soft_cap
};
QLORA_READ(read_q, q_words, 0u, TYPE)
QLORA_READ(read_k, k_words, 1u, TYPE)
QLORA_READ(read_v, v_words, 2u, TYPE)
QLORA_WRITE(write_y, y_words, 3u, TYPE)

QLORA_READ4(read_q4, read_q, q_vectors, q_halves, 0u, TYPE)
QLORA_READ4(read_k4, read_k, k_vectors, k_halves, 1u, TYPE)
QLORA_READ4(read_v4, read_v, v_vectors, v_halves, 2u, TYPE)
QLORA_WRITE4(write_y4, write_y)

#include "backends/vulkan/attention.glsl"

shared vec4 row_parts[64];

void main() {
    uint group = group_index(), a = gl_LocalInvocationIndex / 8u, b = gl_LocalInvocationIndex % 8u;
    uint tile = tiles - 1u - group % tiles, head = group / tiles % heads, s = group / tiles / heads; // long rows of keys first
    if (s >= sequence_count) return;
    uvec4 sequence = sequence_at(s);
    uint first = tile * TILE, kv = head / (heads / kv_heads), ahead = sequence.w - sequence.y; // keys before the first query's own
    if (first >= sequence.y) return;
    uint q_first = sequence.x + first, q_end = sequence.x + sequence.y, k_end = min(first + TILE, sequence.y) + ahead;
    uint oldest = first + ahead + 1u - min(first + ahead + 1u, window); // key of the first query
    float decay = (SCORES & SCORE_SLOPES) != 0u ? slopes[QLORA_BASE(6u) + head] : 0.0;
    vec4 sums[CHUNKS][4], maximum = vec4(-3e38), total = vec4(0.0);
    [[unroll]] for (uint c = 0u; c < CHUNKS; c++)
        [[unroll]] for (uint i = 0u; i < 4u; i++) sums[c][i] = vec4(0.0);
    for (uint key = oldest; key < k_end; key += TILE) {
        float scores[4][4] = float[4][4](float[4](0.0, 0.0, 0.0, 0.0), float[4](0.0, 0.0, 0.0, 0.0), float[4](0.0, 0.0, 0.0, 0.0), float[4](0.0, 0.0, 0.0, 0.0));
        for (uint c = 0u; c < CHUNKS; c++) {
            QLORA_LOAD_TILE(own_tile, read_q4, q_first, q_end, q_stride, head, c)
            QLORA_LOAD_TILE(other_tile, read_k4, sequence.z + key, sequence.z + k_end, k_stride, kv, c)
            barrier();
            add_dots(scores);
            barrier();
        }
        vec4 highest = maximum;
        [[unroll]] for (uint i = 0u; i < 4u; i++)
            [[unroll]] for (uint j = 0u; j < 4u; j++) {
                uint distance = first + a * 4u + i + ahead - (key + b + j * 8u);
                scores[i][j] = distance < window ? score_of(scores[i][j], decay, distance).x : -3e38;
                highest[i] = max(highest[i], scores[i][j]);
            }
        row_parts[b * 8u + a] = highest;
        barrier();
        [[unroll]] for (uint j = 0u; j < 8u; j++) highest = max(highest, row_parts[j * 8u + a]);
        [[unroll]] for (uint i = 0u; i < 4u; i++) {
            float correction = exponential(maximum[i] - highest[i]);
            total[i] *= correction;
            [[unroll]] for (uint c = 0u; c < CHUNKS; c++) sums[c][i] *= correction;
            [[unroll]] for (uint j = 0u; j < 4u; j++) {
                scores[i][j] = scores[i][j] > -1e38 ? exponential(scores[i][j] - highest[i]) : 0.0;
                total[i] += scores[i][j];
            }
        }
        maximum = highest;
        share_pairs(scores);
        [[unroll]] for (uint c = 0u; c < CHUNKS; c++) {
            QLORA_LOAD_TILE(other_tile, read_v4, sequence.z + key, sequence.z + k_end, v_stride, kv, c)
            barrier();
            add_weighted(sums[c]);
            barrier();
        }
    }
    row_parts[b * 8u + a] = total;
    barrier();
    total = vec4(0.0);
    [[unroll]] for (uint j = 0u; j < 8u; j++) total += row_parts[j * 8u + a];
    [[unroll]] for (uint i = 0u; i < 4u; i++) {
        uint r = q_first + a * 4u + i;
        if (r >= q_end) continue;
        float inverse = 1.0 / total[i];
        [[unroll]] for (uint c = 0u; c < CHUNKS; c++) {
            uint d = c * 32u + b * 4u;
            if (d < head_dim) write_y4(r * y_stride + head * head_dim + d, head_dim - d, sums[c][i] * inverse);
        }
        if (KEEP != 0u && b == 0u) lse[QLORA_BASE(4u) + r * heads + head] = maximum[i] + logarithm(total[i]);
    }
}
