// Sums of squares in three levels of one shader: LEVEL 0 the chunks of a tensor, 1 the chunks of each tensor, 2 the tensors.
#version 450
#extension GL_GOOGLE_include_directive : require
layout(local_size_x = 256) in;

#include "backends/vulkan/common.glsl"

layout(constant_id = 0) const uint LEVEL = 0u;
layout(constant_id = 1) const uint CHUNK = 16384u;
layout(constant_id = 2) const uint KEEP = 0u; // level 1: write each tensor's norm

layout(constant_id = 3) const uint TYPE = 0x100u; // of values; F32 but on level 0

layout(binding = 0, std430) readonly buffer Values { uint value_words[]; }; // gradient; chunk sums; tensor sums
layout(binding = 1, std430) buffer Sums { float sums[]; };               // chunk sums; tensor sums; norm
layout(binding = 2, std430) readonly buffer Starts { uint starts[]; };   // level 1: first chunk of each tensor, and the end
layout(binding = 3, std430) buffer Norms { float norms[]; };

QLORA_PUSH
    uint count, first_out;
    float scale;
};
QLORA_READ(read_value, value_words, 0u, TYPE)

#include "backends/vulkan/row_sum.glsl"

void main() {
    uint group = group_index(), lane = gl_LocalInvocationIndex, begin = 0u, end = count;
    if (LEVEL == 0u) {
        begin = group * CHUNK;
        end = min(begin + CHUNK, count);
        if (begin >= count) return;
    } else if (LEVEL == 1u) {
        if (group >= count) return;
        begin = starts[QLORA_BASE(2u) + group];
        end = starts[QLORA_BASE(2u) + group + 1u];
    }
    float sum = 0.0;
    for (uint i = begin + lane; i < end; i += 256u) {
        float value = read_value(i);
        sum += LEVEL == 0u ? value * value : value;
    }
    sum = row_sum(sum);
    if (lane != 0u) return;
    sums[QLORA_BASE(1u) + first_out + group] = LEVEL == 2u ? scale * sqrt(sum) : sum;
    if (LEVEL == 1u && KEEP != 0u) norms[QLORA_BASE(3u) + group] = scale * sqrt(sum);
}
