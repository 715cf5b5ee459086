// Largest magnitudes of every 2^SHIFT neighbours of src[rows][cols], flattened: an invocation takes eight elements. Larger
// blocks take several stages, the later ones over the maxima of the one before. The last stage writes scales: absmax divided by
// the format's largest value, zero below the smallest normal f32.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : enable
layout(local_size_x = 256) in;

#include "backends/vulkan/common.glsl"
#include "backends/vulkan/exact.glsl"

layout(constant_id = 0) const uint TYPE = 0x100u;    // of src
layout(constant_id = 1) const uint CONTIGUOUS = 1u;  // src.stride is src.cols
layout(constant_id = 2) const uint SHIFT = 5u;       // 3 to 11
layout(constant_id = 3) const uint LARGEST = 0u;     // f32 bits; 0 = write maxima

layout(binding = 0, std430) readonly buffer Src { uint src_words[]; };
layout(binding = 1, std430) writeonly buffer Scales { uint scales[]; };

QLORA_PUSH
    uint elements, cols, stride;
};
QLORA_READ(read_src, src_words, 0u, TYPE)

const uint LANES = (1u << SHIFT) / 8u; // invocations that share a block

shared uint maxima[256];

void main() {
    uint lane = gl_LocalInvocationIndex, first = group_index() * 2048u + lane * 8u, maximum = 0u;
    [[dont_unroll]] for (uint i = first; i < min(first + 8u, elements); i++)
        maximum = max(maximum, read_src_bits(CONTIGUOUS != 0u ? i : i / cols * stride + i % cols) & 0x7fffffffu);
    maxima[lane] = maximum;
    barrier();
    for (uint half_way = LANES / 2u; half_way >= 1u; half_way >>= 1) {
        if ((lane & (LANES - 1u)) < half_way) maxima[lane] = max(maxima[lane], maxima[lane + half_way]);
        barrier();
    }
    if (first >= elements || (lane & (LANES - 1u)) != 0u) return;
    uint scale = maxima[lane];
    if (LARGEST != 0u) {
        scale = exact_divide(scale, LARGEST);
        if (scale < 0x00800000u) scale = 0u;
    }
    scales[QLORA_BASE(1u) + (first >> SHIFT)] = scale;
}
