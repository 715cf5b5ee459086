// encode<F> for codebooks: the code of a value that was divided by its block's absmax. Comparisons are in f32; the tables
// have no subnormals, so a device that flushes them answers the same.
layout(constant_id = 0) const uint TABLE = 1u;
layout(constant_id = 1) const uint TABLE_SIZE = 16u;

const uint nf4_thresholds[15] = uint[15](
#include "backends/codebooks/nf4_thresholds.inc"
);
const uint fp4_thresholds[7] = uint[7](
#include "backends/codebooks/fp4_thresholds.inc"
);

shared float encode_table[TABLE_SIZE];

void encode_begin() {
    for (uint i = gl_LocalInvocationIndex; i < TABLE_SIZE; i += gl_WorkGroupSize.x) encode_table[i] = uintBitsToFloat(table_entry(TABLE, i));
    barrier();
}

uint encode_nf4(float y) {
    uint code = 0u;
    [[unroll]] for (uint i = 0u; i < 15u; i++) code += y > uintBitsToFloat(nf4_thresholds[i]) ? 1u : 0u;
    return code;
}

uint encode_fp4(uint bits) {
    float magnitude = uintBitsToFloat(bits & 0x7fffffffu);
    uint rank = 0u;
    [[unroll]] for (uint i = 0u; i < 7u; i++) rank += magnitude > uintBitsToFloat(fp4_thresholds[i]) ? 1u : 0u;
    uint code = (0x32547610u >> (rank * 4u)) & 7u; // codes 0 1 6 7 4 5 2 3 in the order of magnitudes
    return code | (bits > 0x80000000u ? 8u : 0u);
}

// Nearest entry of an ascending table of 256; a tie goes to the even index.
uint encode_nearest(uint bits) {
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0u;
    float y = uintBitsToFloat(bits);
    uint upper = 0u; // entries below y
    [[unroll]] for (uint half_way = 128u; half_way >= 1u; half_way >>= 1) upper += y > encode_table[upper + half_way - 1u] ? half_way : 0u;
    if (upper == 255u && y > encode_table[TABLE_SIZE - 1u]) return 255u;
    if (upper == 0u) return 0u;
    precise float middle = (encode_table[upper - 1u] + encode_table[upper]) * 0.5;
    if (y == middle) return upper & ~1u;
    return y > middle ? upper : upper - 1u;
}

uint encode(uint bits) {
    if (TABLE == TABLE_NF4) return encode_nf4(uintBitsToFloat(bits));
    if (TABLE == TABLE_FP4) return encode_fp4(bits);
    return encode_nearest(bits);
}
