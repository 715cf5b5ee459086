// The sum of a chunk of 4096 values in the order that every backend keeps: 256 strided lanes, then a tree. When there is
// only one chunk its sum is the whole sum, and the mean goes to out instead.
#version 450
#extension GL_GOOGLE_include_directive : require
layout(local_size_x = 256) in;

#include "backends/vulkan/common.glsl"
#include "backends/vulkan/exact.glsl"

layout(binding = 0, std430) readonly buffer Values { uint values[]; };
layout(binding = 1, std430) writeonly buffer Out { uint sums[]; };

QLORA_PUSH
    uint values_count, mean_of; // mean_of: the count to divide by; 0 = write sums
};

shared float lanes[256];

void main() {
    uint lane = gl_LocalInvocationIndex, first = group_index() * 4096u, end = min(first + 4096u, values_count);
    precise float sum = 0.0;
    for (uint i = first + lane; i < end; i += 256u) sum = sum + uintBitsToFloat(values[QLORA_BASE(0u) + i]);
    lanes[lane] = sum;
    barrier();
    for (uint half_way = 128u; half_way >= 1u; half_way >>= 1) {
        if (lane < half_way) {
            precise float pair = lanes[lane] + lanes[lane + half_way];
            lanes[lane] = pair;
        }
        barrier();
    }
    if (lane != 0u || first >= values_count) return;
    uint bits = floatBitsToUint(lanes[0]);
    sums[QLORA_BASE(1u) + first / 4096u] = mean_of != 0u ? exact_divide(bits, floatBitsToUint(float(mean_of))) : bits;
}
