// A weight as kernels see it: its planes, its table if its format has one, and the scale of a block.
#pragma once
#include "backends/cuda/device.cuh"

namespace qlora {
namespace cuda {

static __device__ const uint32_t nf4_table[16] = {
#include "backends/codebooks/nf4.inc"
};
static __device__ const uint32_t fp4_table[16] = {
#include "backends/codebooks/fp4.inc"
};
static __device__ const uint32_t dyn8_table[256] = {
#include "backends/codebooks/dyn8.inc"
};
static __device__ const uint32_t udyn8_table[256] = {
#include "backends/codebooks/udyn8.inc"
};

enum class Table { NONE, NF4, FP4, DYN8, UDYN8 };

// Which table a codebook format uses.
template <class F> struct Codebook { static_assert(F::codec != Codec::CODEBOOK4 && F::codec != Codec::CODEBOOK8, "name the table of this format here"); static constexpr Table table = Table::NONE; };
template <> struct Codebook<Format<QLORA_FORMAT_NF4>> { static constexpr Table table = Table::NF4; };
template <> struct Codebook<Format<QLORA_FORMAT_NF4_DQ>> { static constexpr Table table = Table::NF4; };
template <> struct Codebook<Format<QLORA_FORMAT_FP4>> { static constexpr Table table = Table::FP4; };
template <> struct Codebook<Format<QLORA_FORMAT_FP4_DQ>> { static constexpr Table table = Table::FP4; };
template <> struct Codebook<Format<QLORA_FORMAT_DYN8>> { static constexpr Table table = Table::DYN8; };
template <> struct Codebook<Format<QLORA_FORMAT_UDYN8>> { static constexpr Table table = Table::UDYN8; };

__device__ __forceinline__ const uint32_t *table_bits(Table table) {
    return table == Table::NF4 ? nf4_table : table == Table::FP4 ? fp4_table : table == Table::DYN8 ? dyn8_table : udyn8_table;
}

// A weight as a kernel parameter.
struct WeightView {
    uint8_t *code;
    void *scale;
    float *nested, *offset;
    int64_t rows, cols;
    int32_t format, block_shift;
    Table table;
    bool grouped; // eight elements at any multiple of eight can be read as words
    // Scale::GROUP and TILE: index is null when a column's group is column / block.
    const uint8_t *zero;
    const int32_t *index;
    int64_t block, groups;
    float factor; // of the scales of NVFP4
    uint64_t cols_inverse; // floor((2^64 - 1) / cols)
    // Scale::TILE: nested is of halves; outlier_offsets is null when there are none.
    int64_t nested_block, outliers;
    const uint32_t *outlier_offsets, *outlier_columns;
    const uint16_t *outlier_values;
};

// index / cols and the rest of it, for an index below 2^63: the estimate is right or one too low.
__device__ __forceinline__ int64_t row_of(const WeightView &w, int64_t index, int64_t *col) {
    int64_t row = int64_t(__umul64hi(uint64_t(index), w.cols_inverse)), rest = index - row * w.cols;
    if (rest >= w.cols) {
        row++;
        rest -= w.cols;
    }
    *col = rest;
    return row;
}

inline WeightView view_of(const qlora_weight &weight) {
    int shift = 0;
    while ((1u << shift) < weight.block) shift++;
    const Table table = with_format(weight.format, Table::NONE, [](auto row) { return Codebook<decltype(row)>::table; });
    const FormatRow *row = format_row(weight.format);
    const uint64_t code = weight.planes[QLORA_PLANE_CODE].handle + weight.planes[QLORA_PLANE_CODE].offset;
    const uint64_t alignment = row->scale == Scale::INLINE ? 2 : row->codec == Codec::FLOAT ? 16 : row->bits == 6 || row->bits == 3 ? 1 : row->bits; // six and three bits: bytes
    const bool indexed = (weight.flags & QLORA_WEIGHT_INDEXED) != 0;
    return WeightView{reinterpret_cast<uint8_t *>(code), address<void>(weight.planes[QLORA_PLANE_SCALE]),
                      address<float>(weight.planes[QLORA_PLANE_NESTED]), address<float>(weight.planes[QLORA_PLANE_OFFSET]),
                      int64_t(weight.rows), int64_t(weight.cols), weight.format, shift, table, code % alignment == 0,
                      address<const uint8_t>(weight.planes[QLORA_PLANE_ZERO]), indexed ? address<const int32_t>(weight.planes[QLORA_PLANE_INDEX]) : nullptr,
                      int64_t(weight.block), int64_t(group_count(weight)), weight.tensor_scale != 0 ? weight.tensor_scale : 1.0f,
                      weight.cols > 1 ? UINT64_MAX / weight.cols : UINT64_MAX, int64_t(weight.nested_block), int64_t(weight.outliers),
                      weight.outliers ? address<const uint32_t>(weight.planes[QLORA_PLANE_OFFSET]) : nullptr, address<const uint32_t>(weight.planes[QLORA_PLANE_COLUMN]),
                      address<const uint16_t>(weight.planes[QLORA_PLANE_OUTLIER])};
}

template <Scale S> __device__ __forceinline__ float scale_of(const WeightView &w, int64_t block, const float *) {
    return static_cast<const float *>(w.scale)[block];
}
// A nested scale as it was read, and what it stands for.
struct NestedScale {
    uint32_t code;
    float nested;
};
__device__ __forceinline__ NestedScale nested_at(const WeightView &w, int64_t block) { return NestedScale{static_cast<const uint8_t *>(w.scale)[block], w.nested[block >> 8]}; }
__device__ __forceinline__ float value_of(const NestedScale &scale, const WeightView &w, const float *nested_table) {
    return __fadd_rn(__fmul_rn(nested_table[scale.code], scale.nested), *w.offset);
}
template <> __device__ __forceinline__ float scale_of<Scale::NESTED>(const WeightView &w, int64_t block, const float *nested_table) {
    return value_of(nested_at(w, block), w, nested_table);
}
template <> __device__ __forceinline__ float scale_of<Scale::E8M0>(const WeightView &w, int64_t block, const float *) {
    const uint32_t power = static_cast<const uint8_t *>(w.scale)[block]; // 2^(power - 127); 255 is NaN
    return __uint_as_float(power == 255 ? 0x7fc00000u : power == 0 ? 0x400000u : power << 23);
}

} // namespace cuda
} // namespace qlora
