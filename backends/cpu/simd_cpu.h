// What every isa_*_cpu.cpp includes before its target region: no function in here is compiled for a special target.
#pragma once
#include "backends/cpu/codebooks_cpu.h"
#include "backends/cpu/kernels_cpu.h"

#if defined(__GNUC__)
#define QLORA_INLINE inline __attribute__((always_inline))
#else
#define QLORA_INLINE inline
#endif
#if defined(__clang__)
#define QLORA_UNROLL _Pragma("clang loop unroll(full)")
#define QLORA_UNROLL_4 _Pragma("clang loop unroll_count(4)")
#elif defined(__GNUC__)
#define QLORA_UNROLL _Pragma("GCC unroll 32")
#define QLORA_UNROLL_4 _Pragma("GCC unroll 4")
#else
#define QLORA_UNROLL
#define QLORA_UNROLL_4
#endif

// Conversions by integers and the decoders of blocks, private to each file so that no copy compiled under a target region
// escapes.
namespace qlora {
namespace cpu {
namespace {
typedef uint32_t uint;
#if defined(__GNUC__)
#define QLORA_UNUSED __attribute__((unused))
#else
#define QLORA_UNUSED
#endif
#define QLORA_FUNCTION QLORA_UNUSED static constexpr inline
#include "backends/numeric.inc"
#include "backends/narrow.inc"
#include "backends/affine.inc"
#define QLORA_PRECISE const
#define QLORA_PRODUCT(a, b) ((a) * (b))
#include "backends/bilevel.inc"
#undef QLORA_PRECISE
#undef QLORA_PRODUCT
#undef QLORA_FUNCTION

QLORA_UNUSED QLORA_INLINE float float_of(uint bits) { float value; __builtin_memcpy(&value, &bits, 4); return value; }
// An f16 without branches, so that its conversion leaves the loop over the groups of a block.
QLORA_UNUSED QLORA_INLINE float half_at(const uint8_t *place) {
    const uint bits = uint(place[0]) | uint(place[1]) << 8, magnitude = bits & 0x7fffu, exponent = magnitude >> 10;
    const uint normal = (magnitude << 13) + (112u << (exponent == 31u ? 24 : 23));
    const float subnormal = float(int(magnitude)) * 0x1p-24f;
    uint small;
    __builtin_memcpy(&small, &subnormal, 4);
    const uint is_small = uint(0) - uint(exponent == 0u);
    return float_of((small & is_small) | (normal & ~is_small) | (bits & 0x8000u) << 16);
}
#define QLORA_HALF(place) half_at(place)
#define QLORA_FUNCTION QLORA_UNUSED QLORA_INLINE
#define QLORA_PLACE const uint8_t *
#define QLORA_BYTE(place) uint(*(place))
#define QLORA_FLOAT(bits) float_of(bits)
#include "backends/blocks.inc"
#include "backends/block_rows.inc"
#undef QLORA_FUNCTION
#undef QLORA_PLACE
#undef QLORA_BYTE
#undef QLORA_FLOAT
#undef QLORA_HALF

// The levels of codes of four bits, by the functions of blocks.inc.
struct LevelTable : Table16 {
    explicit LevelTable(float (*level)(uint)) : Table16() {
        for (uint code = 0; code < 16; code++) {
            const float value = level(code);
            __builtin_memcpy(&this->value[code], &value, 4);
        }
    }
};
const LevelTable iq4_levels(qlora_iq4_level), e2m1_levels(qlora_e2m1_level);

// The levels of a small float's codes: narrow.inc as a table, made by the compiler.
template <class F> struct NarrowTable {
    Table256 levels;
    constexpr NarrowTable() : levels() {
        for (uint code = 0; code < 1u << F::bits; code++) levels.value[code] = qlora_f32_from_narrow(code, F::bits, F::mantissa, F::bias, 0);
    }
};
template <class F> constexpr NarrowTable<F> narrow_table = {};
} // namespace
} // namespace cpu
} // namespace qlora
