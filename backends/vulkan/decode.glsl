// decode<F>: elements of a weight at rest, selected by codec and scale kind. The planes are bindings 0 to 3, the format is
// specialisation constants 0 to 7, and both come from weight_vulkan.h. Define QLORA_EXACT where the result is stored
// rather than multiplied: then subnormals are right on devices that flush them. A shader that includes it is compiled four times,
// with QLORA_BLOCKS for interleaved blocks, with QLORA_AFFINE and with QLORA_BILEVEL for these codecs: drivers take long over what they drop. Push
// constants have w_stride, which is the weight's cols but for strided plain floats, and w_factor (NVFP4).
const uint CODEC_FLOAT = 0u, CODEC_CODEBOOK4 = 1u, CODEC_CODEBOOK8 = 2u, CODEC_OFFSET4 = 3u, CODEC_SIGNED8 = 4u, CODEC_NARROW = 6u, CODEC_ABSMAX8 = 8u;
const uint SCALE_NONE = 0u, SCALE_F32 = 1u, SCALE_NESTED = 2u, SCALE_INLINE = 3u, SCALE_E8M0 = 4u, SCALE_ROW = 6u;

layout(constant_id = 0) const uint CODEC = 0u;
layout(constant_id = 1) const uint SCALE = 0u;
layout(constant_id = 5) const uint FORMAT = 0x100u;   // of codecs FLOAT and BLOCK

layout(binding = 0, std430) readonly buffer CodePlane { uint code_words[]; };
layout(binding = 1, std430) readonly buffer ScalePlane { uint scale_words[]; };

#ifdef QLORA_AFFINE
#include "backends/vulkan/affine.glsl"
#elif defined(QLORA_BILEVEL)
#include "backends/vulkan/bilevel.glsl"
#else

layout(constant_id = 2) const uint TABLE = 0u;
layout(constant_id = 3) const uint TABLE_SIZE = 1u;
layout(constant_id = 4) const uint NESTED_SIZE = 1u;  // 256 when scales are codes, else 1
layout(constant_id = 6) const uint BLOCK_SHIFT = 0u;  // of scale ROW: 0 = one for each row, else one in all
layout(constant_id = 7) const uint BLOCK_BYTES = 0u;

layout(binding = 2, std430) readonly buffer NestedPlane { uint nested_words[]; };
layout(binding = 3, std430) readonly buffer OffsetPlane { uint offset_words[]; };

#ifdef QLORA_BLOCKS
#include "backends/vulkan/blocks.glsl"
#else
#define QLORA_OCTETS // read_octet and made_octet

shared uint decode_table[TABLE_SIZE];
shared uint decode_nested[NESTED_SIZE];
uint decode_mean; // f32 bits of what is added to nested scales

// Codes of one byte are looked up, whatever they mean.
bool decode_bytes() { return CODEC == CODEC_CODEBOOK8 || (CODEC == CODEC_NARROW && TABLE_SIZE == 256u); }

// Every invocation of the workgroup calls this before it decodes.
void decode_begin() {
    if (TABLE != TABLE_NONE)
        for (uint i = gl_LocalInvocationIndex; i < TABLE_SIZE; i += gl_WorkGroupSize.x) decode_table[i] = table_entry(TABLE, i);
    if (SCALE == SCALE_NESTED)
        for (uint i = gl_LocalInvocationIndex; i < NESTED_SIZE; i += gl_WorkGroupSize.x) decode_nested[i] = table_entry(TABLE_DYN8, i);
    if (SCALE == SCALE_NESTED) decode_mean = offset_words[QLORA_BASE(3u)];
    if (TABLE != TABLE_NONE || SCALE == SCALE_NESTED) barrier();
}

uint decode_add(uint a, uint b) {
#ifdef QLORA_EXACT
    return exact_add(a, b);
#else
    precise float sum = uintBitsToFloat(a) + uintBitsToFloat(b);
    return floatBitsToUint(sum);
#endif
}
uint decode_multiply(uint a, uint b) {
#ifdef QLORA_EXACT
    return exact_multiply(a, b);
#else
    precise float product = uintBitsToFloat(a) * uintBitsToFloat(b);
    return floatBitsToUint(product);
#endif
}
// Products of eight values with their scale. Table entries are zero or above 2^-22, so an ordinary scale needs no care.
void decode_multiply8(inout uint values[8], uint scale) {
#ifdef QLORA_EXACT
    if ((scale & 0x7fffffffu) < 0x0d800000u) { // 2^-100
        [[dont_unroll]] for (uint e = 0u; e < 8u; e++) values[e] = exact_multiply(values[e], scale);
        return;
    }
#endif
    [[unroll]] for (uint e = 0u; e < 8u; e++) {
        precise float product = uintBitsToFloat(values[e]) * uintBitsToFloat(scale);
        values[e] = floatBitsToUint(product);
    }
}

// Bytes and halfwords of the code plane, and a word that begins at any halfword.
uint code_half(uint i) { return (code_words[QLORA_BASE(0u) + (i >> 1)] >> ((i & 1u) * 16u)) & 0xffffu; }
uint code_word_at_half(uint i) {
    uint place = QLORA_BASE(0u) + (i >> 1), word = code_words[place];
    return (i & 1u) == 0u ? word : (word >> 16) | (code_words[place + 1u] << 16);
}
uint code_byte(uint i) { return (code_words[QLORA_BASE(0u) + (i >> 2)] >> ((i & 3u) * 8u)) & 255u; }

// The block of element i, which lies in row r.
uint decode_block(uint r, uint i) { return SCALE == SCALE_ROW ? (BLOCK_SHIFT == 0u ? r : 0u) : i >> BLOCK_SHIFT; }

// The scale of a block, each operation rounded in f32: what is read for it, and what becomes of that.
uvec2 read_scale(uint block) {
    if (SCALE == SCALE_ROW || SCALE == SCALE_F32) return uvec2(scale_words[QLORA_BASE(1u) + block], 0u);
    if (SCALE == SCALE_NESTED) return uvec2((scale_words[QLORA_BASE(1u) + (block >> 2)] >> ((block & 3u) * 8u)) & 255u, nested_words[QLORA_BASE(2u) + (block >> 8)]);
    if (SCALE == SCALE_E8M0) return uvec2((scale_words[QLORA_BASE(1u) + (block >> 2)] >> ((block & 3u) * 8u)) & 255u, 0u);
    if (SCALE == SCALE_INLINE) return uvec2(code_half(block * (BLOCK_BYTES / 2u)), 0u);
    return uvec2(0u);
}
uint made_scale(uvec2 parts) {
    if (SCALE == SCALE_ROW) return decode_multiply(parts.x, 0x3c010204u); // 1 / 127
    if (SCALE == SCALE_F32) return parts.x;
    if (SCALE == SCALE_NESTED) return decode_add(decode_multiply(decode_nested[parts.x], parts.y), decode_mean);
    if (SCALE == SCALE_E8M0) return parts.x == 255u ? 0x7fc00000u : parts.x == 0u ? 0x00400000u : parts.x << 23;
    if (SCALE == SCALE_INLINE) return qlora_f32_from_f16(parts.x);
    return 0x3f800000u;
}
uint decode_scale(uint block) { return made_scale(read_scale(block)); }

// The code of a codec that counts, as a value.
float decode_offset4(uint nibble) { return float(int(nibble) - 8); }
float decode_signed8(uint code) { return float(bitfieldExtract(int(code), 0, 8)); }

// f32 bits of w[r][c]. Not for codes of six bits: their rows are whole octets.
uint decode(uint r, uint c) {
    uint i = r * w_stride + c;
    if (CODEC == CODEC_FLOAT) return widen(FORMAT, code_words[QLORA_BASE(0u) + (FORMAT == F32 ? i : i >> 1)], i);
    uint block = decode_block(r, i), j = i & ((1u << BLOCK_SHIFT) - 1u), scale = decode_scale(block), value;
    if (CODEC == CODEC_CODEBOOK4) value = decode_table[(code_byte(i >> 1) >> ((i & 1u) == 0u ? 4u : 0u)) & 15u];
    else if (decode_bytes()) value = decode_table[code_byte(i)];
    else if (CODEC == CODEC_ABSMAX8) value = floatBitsToUint(decode_signed8(code_byte(i)));
    else if (CODEC == CODEC_OFFSET4) value = floatBitsToUint(decode_offset4((code_byte(block * BLOCK_BYTES + 2u + (j & 15u)) >> (j < 16u ? 0u : 4u)) & 15u));
    else value = floatBitsToUint(decode_signed8(code_byte(block * BLOCK_BYTES + 2u + j)));
    return decode_multiply(value, scale);
}

// w[r][c .. c + 7], where c and w_stride are multiples of 8, in two halves so that there may be other work between them: what is
// read, whole words of codes {low, high, parts of the scale} or up to eight of floats; and what becomes of that.
struct Octet {
    uvec4 first, second;
};
Octet read_octet(uint r, uint c) {
    Octet octet = Octet(uvec4(0u), uvec4(0u));
    uint i = r * w_stride + c;
    if (CODEC == CODEC_FLOAT) {
        uint place = QLORA_BASE(0u) + (FORMAT == F32 ? i : i >> 1);
        [[unroll]] for (uint e = 0u; e < 4u; e++) {
            octet.first[e] = code_words[place + e];
            if (FORMAT == F32) octet.second[e] = code_words[place + 4u + e];
        }
        return octet;
    }
    uint block = decode_block(r, i), j = i & ((1u << BLOCK_SHIFT) - 1u);
    octet.first.zw = read_scale(block);
    if (CODEC == CODEC_CODEBOOK4) {
        octet.first.x = code_words[QLORA_BASE(0u) + (i >> 3)];
    } else if (decode_bytes() || CODEC == CODEC_ABSMAX8) {
        uint place = QLORA_BASE(0u) + (i >> 2);
        octet.first.xy = uvec2(code_words[place], code_words[place + 1u]);
    } else if (CODEC == CODEC_NARROW) { // eight codes of six bits are three halfwords
        uint place = (i >> 3) * 3u;
        octet.first.xy = uvec2(code_word_at_half(place), code_half(place + 2u));
    } else if (CODEC == CODEC_OFFSET4) {
        uint place = block * (BLOCK_BYTES / 2u) + 1u + ((j & 15u) >> 1), shift = j < 16u ? 0u : 4u;
        octet.first.xy = uvec2(code_word_at_half(place), code_word_at_half(place + 2u)) >> shift;
    } else {
        uint place = block * (BLOCK_BYTES / 2u) + 1u + (j >> 1);
        octet.first.xy = uvec2(code_word_at_half(place), code_word_at_half(place + 2u));
    }
    return octet;
}
void made_octet(Octet octet, out uint values[8]) {
    if (CODEC == CODEC_FLOAT) {
        [[unroll]] for (uint e = 0u; e < 8u; e++) values[e] = FORMAT == F32 ? (e < 4u ? octet.first[e & 3u] : octet.second[e & 3u]) : widen(FORMAT, octet.first[e >> 1], e);
        return;
    }
    uint low = octet.first.x, high = octet.first.y;
    if (CODEC == CODEC_CODEBOOK4) {
        [[unroll]] for (uint e = 0u; e < 8u; e++) values[e] = decode_table[(low >> ((e ^ 1u) * 4u)) & 15u];
    } else if (decode_bytes()) {
        [[unroll]] for (uint e = 0u; e < 8u; e++) values[e] = decode_table[((e < 4u ? low : high) >> ((e & 3u) * 8u)) & 255u];
    } else if (CODEC == CODEC_NARROW) {
        [[unroll]] for (uint e = 0u; e < 8u; e++) values[e] = decode_table[(e < 5u ? low >> (e * 6u) : e == 5u ? (low >> 30) | (high << 2) : high >> (e * 6u - 32u)) & 63u];
    } else if (CODEC == CODEC_OFFSET4) {
        [[unroll]] for (uint e = 0u; e < 8u; e++) values[e] = floatBitsToUint(decode_offset4(((e < 4u ? low : high) >> ((e & 3u) * 8u)) & 15u));
    } else {
        [[unroll]] for (uint e = 0u; e < 8u; e++) values[e] = floatBitsToUint(decode_signed8((e < 4u ? low : high) >> ((e & 3u) * 8u)));
    }
    decode_multiply8(values, made_scale(octet.first.zw));
}
void decode8(uint r, uint c, out uint values[8]) { made_octet(read_octet(r, c), values); }
#endif
#endif
