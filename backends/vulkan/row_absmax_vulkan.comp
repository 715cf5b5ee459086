// absmax[r] and inverse[r] = 127 / absmax of the rows of x[rows][cols]: a workgroup takes a row. Below 2^-119 both are zero.
// Elements that reach the threshold mark their columns instead of counting.
#version 450
#extension GL_GOOGLE_include_directive : require
layout(local_size_x = 256) in;

#include "backends/vulkan/common.glsl"
#include "backends/vulkan/exact.glsl"
#include "backends/vulkan/row_scale.glsl"

layout(binding = 3, std430) writeonly buffer Absmax { uint absmax[]; };
layout(binding = 4, std430) writeonly buffer Inverse { uint inverse[]; };

shared uint maxima[256];

void main() {
    uint lane = gl_LocalInvocationIndex, r = group_index(), maximum = 0u;
    if (r >= rows) return;
    for (uint c = lane; c < cols; c += 256u) {
        uint magnitude = element(r, c) & 0x7fffffffu;
        if (OUTLIERS != 0u && magnitude >= threshold) atomicOr(outlier_words[QLORA_BASE(2u) + (c >> 5)], 1u << (c & 31u));
        else maximum = max(maximum, magnitude);
    }
    maxima[lane] = maximum;
    barrier();
    for (uint half_way = 128u; half_way >= 1u; half_way >>= 1) {
        if (lane < half_way) maxima[lane] = max(maxima[lane], maxima[lane + half_way]);
        barrier();
    }
    if (lane != 0u) return;
    maximum = maxima[0] < 0x04000000u ? 0u : maxima[0]; // 2^-119
    absmax[QLORA_BASE(3u) + r] = maximum;
    inverse[QLORA_BASE(4u) + r] = maximum == 0u ? 0u : exact_divide(0x42fe0000u, maximum);
}
