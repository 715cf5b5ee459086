// Where the first NaN or infinity of src[rows][cols] is: its flattened index, all ones when there is none. The minimum of
// integers does not depend on the order of invocations.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : enable
layout(local_size_x = 256) in;

#include "backends/vulkan/common.glsl"

layout(constant_id = 0) const uint TYPE = 0x100u;    // of src
layout(constant_id = 1) const uint CONTIGUOUS = 1u;  // src.stride is src.cols
layout(constant_id = 2) const uint BEGINS = 0u;      // the first of two: says that there is none

layout(binding = 0, std430) readonly buffer Src { uint src_words[]; };
layout(binding = 1, std430) buffer First { uint first_words[]; };

QLORA_PUSH
    uint elements, cols, stride;
};
QLORA_READ(read_src, src_words, 0u, TYPE)

void main() {
    uint index = group_index() * 256u + gl_LocalInvocationIndex, place = QLORA_BASE(1u);
    if (BEGINS != 0u) {
        if (index < 2u) first_words[place + index] = 0xffffffffu;
        return;
    }
    [[dont_unroll]] for (uint i = index * 8u; i < min(index * 8u + 8u, elements); i++) {
        if ((read_src_bits(CONTIGUOUS != 0u ? i : i / cols * stride + i % cols) & 0x7f800000u) != 0x7f800000u) continue;
        atomicMin(first_words[place], i);
        atomicAnd(first_words[place + 1u], 0u); // the high half: there are fewer than 2^32 elements
        return;
    }
}
