// list[0] = the number of outlier columns, list[1 ..] = their numbers in order. One workgroup; a lane takes a stretch of words
// of 32 columns.
#version 450
#extension GL_GOOGLE_include_directive : require
layout(local_size_x = 256) in;

#include "backends/vulkan/common.glsl"

layout(binding = 0, std430) readonly buffer Outliers { uint outlier_words[]; };
layout(binding = 1, std430) writeonly buffer List { uint list[]; };

QLORA_PUSH
    uint words;
};

shared uint counts[256];

void main() {
    uint lane = gl_LocalInvocationIndex, each = (words + 255u) / 256u, first = min(lane * each, words), end = min(first + each, words), count = 0u;
    for (uint i = first; i < end; i++) count += uint(bitCount(outlier_words[QLORA_BASE(0u) + i]));
    counts[lane] = count;
    barrier();
    for (uint reach = 1u; reach < 256u; reach <<= 1) { // counts of all lanes up to this one
        uint before = lane >= reach ? counts[lane - reach] : 0u;
        barrier();
        counts[lane] += before;
        barrier();
    }
    uint place = counts[lane] - count;
    if (lane == 255u) list[QLORA_BASE(1u)] = counts[255];
    for (uint i = first; i < end; i++)
        for (uint rest = outlier_words[QLORA_BASE(0u) + i]; rest != 0u; rest &= rest - 1u) {
            list[QLORA_BASE(1u) + 1u + place] = i * 32u + uint(findLSB(rest));
            place += 1u;
        }
}
