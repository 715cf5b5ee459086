// What every shader shares: element types, access to elements through 32-bit words, the linear workgroup index.
//
// Elements of 16 bits are halves of words, so that no device feature is needed. A whole word is written when both halves
// belong to the writer; a single half by two atomics, which leave the neighbour's half alone.
#include "formats_vulkan.glsl" // QLORA_FORMAT_*, as constants
const uint F32 = QLORA_FORMAT_F32, F16 = QLORA_FORMAT_F16, BF16 = QLORA_FORMAT_BF16;

#define QLORA_FUNCTION
#include "backends/numeric.inc"

// Push constants: where spans begin inside their bindings (a byte of words each), then the shader's own members.
#define QLORA_PUSH layout(push_constant, std430) uniform Push { uint base_0, base_1, base_2, base_3;
uint unpack_base(uint word, uint binding) { return (word >> ((binding & 3u) * 8u)) & 255u; }
#define QLORA_BASE(binding) unpack_base((binding) < 4u ? base_0 : (binding) < 8u ? base_1 : (binding) < 12u ? base_2 : base_3, binding)

uint group_index() { return gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x; }

// The f32 bits of element i, which lies in word.
uint widen(uint type, uint word, uint i) {
    if (type == F32) return word;
    uint half_word = (i & 1u) != 0u ? word >> 16 : word & 0xffffu;
    return type == F16 ? qlora_f32_from_f16(half_word) : qlora_f32_from_bf16(half_word);
}

// f32 bits rounded once to a 16-bit type.
uint narrow(uint type, uint bits) { return type == F16 ? qlora_f16_from_f32(bits) : qlora_bf16_from_f32(bits); }

float round_to(uint type, float value) {
    if (type == BF16) return uintBitsToFloat(qlora_f32_from_bf16(qlora_bf16_from_f32(floatBitsToUint(value))));
    if (type == F16) return uintBitsToFloat(qlora_f32_from_f16(qlora_f16_from_f32(floatBitsToUint(value))));
    return value;
}

// Defines float name(i): element i of the span at a binding.
#define QLORA_READ(name, words, binding, type)                                                                \
    uint name##_bits(uint i) { return widen(type, words[QLORA_BASE(binding) + ((type) == F32 ? i : i >> 1)], i); } \
    float name(uint i) { return uintBitsToFloat(name##_bits(i)); }

// Defines name(i, value) and name_pair(i, value of i, value of i + 1), each with one rounding.
#define QLORA_WRITE(name, words, binding, type)                                                               \
    void name##_bits(uint i, uint bits) {                                                                     \
        if ((type) == F32) { words[QLORA_BASE(binding) + i] = bits; return; }                                 \
        uint place = QLORA_BASE(binding) + (i >> 1), shift = (i & 1u) * 16u;                                  \
        atomicAnd(words[place], ~(0xffffu << shift));                                                         \
        atomicOr(words[place], narrow(type, bits) << shift);                                                  \
    }                                                                                                         \
    void name(uint i, float value) { name##_bits(i, floatBitsToUint(value)); }                                \
    void name##_pair_bits(uint i, uint first, uint second) {                                                  \
        if ((type) == F32 || (i & 1u) != 0u) { name##_bits(i, first); name##_bits(i + 1u, second); return; }  \
        words[QLORA_BASE(binding) + (i >> 1)] = narrow(type, first) | (narrow(type, second) << 16);           \
    }                                                                                                         \
    void name##_pair(uint i, float first, float second) { name##_pair_bits(i, floatBitsToUint(first), floatBitsToUint(second)); }

// Defines name(word, value, limit): writes a word of bytes of which those from byte limit on belong to nobody here.
#define QLORA_WRITE_WORD(name, words, binding)                                                                \
    void name(uint word, uint value, uint limit) {                                                            \
        uint place = QLORA_BASE(binding) + word, first = word * 4u;                                           \
        if (first >= limit) return;                                                                           \
        if (first + 4u <= limit) { words[place] = value; return; }                                            \
        uint mask = (1u << ((limit - first) * 8u)) - 1u;                                                      \
        words[place] = (words[place] & ~mask) | (value & mask);                                               \
    }
