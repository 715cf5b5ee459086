// What attention forward and backward share. A workgroup of 64 owns a tile of 32 rows (queries, or keys for dk and dv) and
// walks over tiles of 32 other rows; head dimensions pass through shared memory 32 at a time, zero beyond head_dim.
// Invocation (a, b) of 8 x 8 has own rows 4a..4a+3 against other rows b, b+8, b+16, b+24, and as sums own rows 4a..4a+3
// against dimensions 4b..4b+3 of every chunk.
const uint TILE = 32u, PITCH = 9u; // vec4s of a row in shared memory, one of them padding

shared vec4 own_tile[TILE * PITCH], other_tile[TILE * PITCH], pair_tile[TILE * PITCH];

#include "backends/vulkan/scores.glsl"

// Loads a chunk of a tile through a reader: rows first .. first + 31 of those below end, dimensions 32 chunk .. 32 chunk + 31.
// A macro, since inlined functions over all readers would make compilers work ten times as long.
#define QLORA_LOAD_TILE(tile, read4, first, end, stride, head, chunk)                                         \
    [[dont_unroll]] for (uint n = 0u; n < 4u; n++) {                                                          \
        uint item = n * 64u + gl_LocalInvocationIndex, r = item / 8u, d = (chunk) * 32u + item % 8u * 4u;     \
        tile[r * PITCH + item % 8u] = (first) + r < (end) && d < head_dim ? read4(((first) + r) * (stride) + (head) * head_dim + d, head_dim - d) : vec4(0.0); \
    }

// scores[i][j] += own row 4a + i . other row b + 8j over the chunk in shared memory.
void add_dots(inout float scores[4][4]) {
    uint a = gl_LocalInvocationIndex / 8u, b = gl_LocalInvocationIndex % 8u;
    for (uint d = 0u; d < 8u; d++) {
        vec4 own[4], other[4];
        [[unroll]] for (uint i = 0u; i < 4u; i++) own[i] = own_tile[(a * 4u + i) * PITCH + d];
        [[unroll]] for (uint j = 0u; j < 4u; j++) other[j] = other_tile[(b + j * 8u) * PITCH + d];
        [[unroll]] for (uint i = 0u; i < 4u; i++)
            [[unroll]] for (uint j = 0u; j < 4u; j++) {
                vec4 terms = own[i] * other[j];
                scores[i][j] += (terms.x + terms.y) + (terms.z + terms.w);
            }
    }
}

// Hands the pair values of all invocations round, by other row.
void share_pairs(float values[4][4]) {
    uint a = gl_LocalInvocationIndex / 8u, b = gl_LocalInvocationIndex % 8u;
    [[unroll]] for (uint j = 0u; j < 4u; j++) pair_tile[(b + j * 8u) * PITCH + a] = vec4(values[0][j], values[1][j], values[2][j], values[3][j]);
}

// sums[i] += pair(own row 4a + i, other row) * other row's dimensions 4b..4b+3, over the chunk in shared memory.
void add_weighted(inout vec4 sums[4]) {
    uint a = gl_LocalInvocationIndex / 8u, b = gl_LocalInvocationIndex % 8u;
    for (uint r = 0u; r < TILE; r++) {
        vec4 pairs = pair_tile[r * PITCH + a], other = other_tile[r * PITCH + b];
        [[unroll]] for (uint i = 0u; i < 4u; i++) sums[i] += pairs[i] * other;
    }
}
