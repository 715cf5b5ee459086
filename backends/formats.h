// formats.def as C++ traits, for host code and for CUDA. Nothing here runs.
#pragma once
#include "qlora.h"
#include "backends/blocks.h"

namespace qlora {

enum class Codec { FLOAT, CODEBOOK4, CODEBOOK8, OFFSET4, SIGNED8, BLOCK, NARROW, AFFINE, ABSMAX8, BILEVEL };
enum class Scale { NONE, F32, NESTED, INLINE, E8M0, GROUP, ROW, TILE };

struct FormatRow {
    int32_t format;
    const char *name;
    Codec codec;
    uint32_t bits, block, block_min, block_max;
    Scale scale;
    uint32_t block_bytes;
    bool stochastic;
};

// True when scales belong to groups of a row, of any number of columns.
constexpr bool has_groups(const FormatRow &row) { return row.scale == Scale::GROUP || row.scale == Scale::TILE; }
// True when blocks may not straddle rows.
constexpr bool whole_blocks(const FormatRow &row) { return row.scale == Scale::INLINE || row.scale == Scale::E8M0; }

constexpr uint32_t statistic_bits = 3; // of a scale or zero where the scale kind is TILE

// One row as compile-time facts: Format<QLORA_FORMAT_NF4>::codec and so on.
template <int F> struct Format;
#define QLORA_FORMAT_FACTS(NAME, text, CODEC, BITS, BLOCK, MIN, MAX, SCALE, BYTES, STOCHASTIC)                \
    static constexpr FormatRow row = {QLORA_FORMAT_##NAME, text, Codec::CODEC, BITS, BLOCK, MIN, MAX,          \
                                      Scale::SCALE, BYTES, STOCHASTIC};                                       \
    static constexpr Codec codec = Codec::CODEC;                                                              \
    static constexpr Scale scale = Scale::SCALE;                                                              \
    static constexpr uint32_t bits = BITS, block = BLOCK, block_bytes = BYTES;
#define QLORA_FORMAT_ROW(NAME, text, CODEC, BITS, BLOCK, MIN, MAX, SCALE, BYTES)                              \
    template <> struct Format<QLORA_FORMAT_##NAME> {                                                          \
        QLORA_FORMAT_FACTS(NAME, text, CODEC, BITS, BLOCK, MIN, MAX, SCALE, BYTES, false)                     \
    };
#define QLORA_BLOCK_ROW(NAME, name, BITS, BLOCK_SIZE, GROUP, AFFINE, STOCHASTIC, BYTES)                       \
    template <> struct Format<QLORA_FORMAT_##NAME> {                                                          \
        QLORA_FORMAT_FACTS(NAME, #name, BLOCK, BITS, BLOCK_SIZE, BLOCK_SIZE, BLOCK_SIZE, INLINE, BYTES, STOCHASTIC != 0) \
        static constexpr uint32_t group = GROUP;                                                              \
        static constexpr bool affine = AFFINE != 0;                                                           \
        using Bytes = Block##NAME;                                                                            \
    };                                                                                                        \
    static_assert(sizeof(Block##NAME) == BYTES, #name " row and block agree");
#define QLORA_NARROW_ROW(NAME, text, BITS, BLOCK, MIN, MAX, SCALE, MANTISSA, BIAS, MAXIMUM)                   \
    template <> struct Format<QLORA_FORMAT_##NAME> {                                                          \
        QLORA_FORMAT_FACTS(NAME, text, NARROW, BITS, BLOCK, MIN, MAX, SCALE, 0, true)                         \
        static constexpr uint32_t mantissa = MANTISSA, bias = BIAS, maximum = MAXIMUM;                        \
    };
#include "backends/formats.def"
#undef QLORA_FORMAT_ROW
#undef QLORA_BLOCK_ROW
#undef QLORA_NARROW_ROW
#undef QLORA_FORMAT_FACTS

constexpr FormatRow format_rows[] = {
#define QLORA_FORMAT_ROW(NAME, ...) Format<QLORA_FORMAT_##NAME>::row,
#include "backends/formats.def"
#undef QLORA_FORMAT_ROW
};
constexpr int format_count = sizeof(format_rows) / sizeof(format_rows[0]);

constexpr const FormatRow *format_row(int32_t format) {
    for (const FormatRow &row : format_rows)
        if (row.format == format) return &row;
    return nullptr;
}

static_assert(Format<QLORA_FORMAT_Q4_0>::block_bytes == sizeof(BlockQ4_0), "q4_0 row and block agree");
static_assert(Format<QLORA_FORMAT_Q8_0>::block_bytes == sizeof(BlockQ8_0), "q8_0 row and block agree");

// Calls f(Format<F>()) for the row of a run-time format number: the one place where a number becomes a type.
// Returns otherwise when there is no such row.
template <class Function, class Result> Result with_format(int32_t format, Result otherwise, Function &&f) {
#define QLORA_FORMAT_ROW(NAME, ...)                                                                           \
    if (format == QLORA_FORMAT_##NAME) return f(Format<QLORA_FORMAT_##NAME>());
#include "backends/formats.def"
#undef QLORA_FORMAT_ROW
    return otherwise;
}

// Whether an operation, by its `weight` column in ops.def, takes this row (null: no weight).
constexpr bool operation_takes(int weight, const FormatRow *row) {
    return weight == 0 ? row == nullptr : row != nullptr && (weight == 1 || row->codec == (weight == 2 ? Codec::AFFINE : weight == 3 ? Codec::ABSMAX8 : Codec::BILEVEL));
}

// Element size of an activation type.
constexpr uint32_t type_bytes(int32_t type) { return type == QLORA_FORMAT_F32 ? 4 : 2; }

} // namespace qlora
