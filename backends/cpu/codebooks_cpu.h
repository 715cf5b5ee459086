// The frozen tables as f32 bit patterns, and which of them a codebook format uses.
#pragma once
#include "backends/formats.h"

namespace qlora {
namespace cpu {

struct Table16 { alignas(64) uint32_t value[16]; };
struct Table256 { alignas(64) uint32_t value[256]; };

constexpr Table16 nf4_table = {{
#include "backends/codebooks/nf4.inc"
}};
constexpr Table16 nf4_thresholds = {{
#include "backends/codebooks/nf4_thresholds.inc"
}};
constexpr Table16 fp4_table = {{
#include "backends/codebooks/fp4.inc"
}};
constexpr Table16 fp4_thresholds = {{
#include "backends/codebooks/fp4_thresholds.inc"
}};
constexpr Table16 fp4_codes = {{0, 1, 6, 7, 4, 5, 2, 3}}; // by rank of the magnitude
constexpr Table256 dyn8_table = {{
#include "backends/codebooks/dyn8.inc"
}};
constexpr Table256 udyn8_table = {{
#include "backends/codebooks/udyn8.inc"
}};

template <class F> struct Codebook; // no general one: a new codebook format names its table here
template <> struct Codebook<Format<QLORA_FORMAT_NF4>> {
    static constexpr const Table16 &table = nf4_table;
    static constexpr bool magnitude = false; // thresholds apply to the value
};
template <> struct Codebook<Format<QLORA_FORMAT_NF4_DQ>> : Codebook<Format<QLORA_FORMAT_NF4>> {};
template <> struct Codebook<Format<QLORA_FORMAT_FP4>> {
    static constexpr const Table16 &table = fp4_table;
    static constexpr bool magnitude = true; // thresholds apply to the magnitude, the sign is bit 3
};
template <> struct Codebook<Format<QLORA_FORMAT_FP4_DQ>> : Codebook<Format<QLORA_FORMAT_FP4>> {};
template <> struct Codebook<Format<QLORA_FORMAT_DYN8>> { static constexpr const Table256 &table = dyn8_table; };
template <> struct Codebook<Format<QLORA_FORMAT_UDYN8>> { static constexpr const Table256 &table = udyn8_table; };

} // namespace cpu
} // namespace qlora
