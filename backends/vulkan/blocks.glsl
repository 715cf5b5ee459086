// Decoding of interleaved blocks: the functions of blocks.inc over the code plane, of which FORMAT selects one row's. A place
// counts bytes of the plane's binding. Included by decode.glsl.
#define QLORA_PLACE uint
#define QLORA_BYTE(place) block_byte(place)
#define QLORA_HALF(place) block_half(place)
#define QLORA_FLOAT(bits) uintBitsToFloat(bits)
#include "backends/narrow.inc"
uint block_byte(uint place) { return (code_words[place >> 2] >> ((place & 3u) * 8u)) & 255u; }
float block_half(uint place) { return uintBitsToFloat(qlora_f32_from_f16((code_words[place >> 2] >> ((place & 2u) * 8u)) & 0xffffu)); }
#include "backends/blocks.inc"

#define QLORA_FORMAT_ROW(NAME, text, codec, bits, block, block_min, block_max, scale, block_bytes)
#define QLORA_NARROW_ROW(NAME, text, bits, block, block_min, block_max, scale, mantissa, bias, maximum)

#define QLORA_BLOCK_ROW(NAME, name, bits, size, group_size, affine, stochastic, bytes)                        \
    if (FORMAT == QLORA_FORMAT_##NAME) level = qlora_##name##_level(block, i);
float block_level(uint block, uint i) {
    float level = 0.0;
#include "backends/formats.def"
    return level;
}
#undef QLORA_BLOCK_ROW

// Eight elements from i on of the block at a place; they share a group.
void block_octet(uint block, uint i, out uint values[8]) {
    if (FORMAT == QLORA_FORMAT_MXFP4 && block_byte(block) < 2u) { // subnormal, or nearly
        [[dont_unroll]] for (uint e = 0u; e < 8u; e++) values[e] = floatBitsToUint(qlora_mxfp4_value(block, i + e));
        return;
    }
    float scale = 0.0, offset = 0.0;
    bool has_offset = false;
#define QLORA_OFFSET_0(name)
#define QLORA_OFFSET_1(name) offset = qlora_##name##_offset(block, i / group_of_row); has_offset = true;
#define QLORA_BLOCK_ROW(NAME, name, bits, size, group_size, affine, stochastic, bytes)                        \
    if (FORMAT == QLORA_FORMAT_##NAME) {                                                                      \
        const uint group_of_row = uint(group_size);                                                           \
        scale = qlora_##name##_scale(block, i / group_of_row);                                                \
        QLORA_OFFSET_##affine(name)                                                                           \
    }
#include "backends/formats.def"
#undef QLORA_BLOCK_ROW
    if (FORMAT == QLORA_FORMAT_NVFP4) {
        precise float scaled = scale * uintBitsToFloat(w_factor);
        scale = scaled;
    }
    [[unroll]] for (uint e = 0u; e < 8u; e++) {
        precise float value = block_level(block, i + e) * scale;
        if (has_offset) value = value + offset;
        values[e] = floatBitsToUint(value);
    }
}
#undef QLORA_NARROW_ROW
#undef QLORA_FORMAT_ROW

void decode_begin() {}

// Rows are whole octets: nobody asks for single elements.
uint decode(uint r, uint c) { return 0u; }

void decode8(uint r, uint c, out uint values[8]) {
    uint i = r * w_stride + c;
    block_octet(QLORA_BASE(0u) * 4u + (i >> BLOCK_SHIFT) * BLOCK_BYTES, i & ((1u << BLOCK_SHIFT) - 1u), values);
}
