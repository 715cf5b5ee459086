// A weight as the shaders take it: four bindings (codec BILEVEL: four more) and eight specialisation constants, in the order of
// decode.glsl, affine.glsl and bilevel.glsl.
#pragma once
#include "backends/vulkan/device_vulkan.h"

namespace qlora {
namespace vulkan {

// The value of a small float's code as f32 bits (codebooks_vulkan.cpp).
uint32_t narrow_value(uint32_t code, uint32_t bits, uint32_t mantissa, uint32_t bias);
template <class F> uint32_t narrow_bits(uint32_t code) { return narrow_value(code, F::bits, F::mantissa, F::bias); }

// Numbers of codebooks.glsl.
enum class Table : uint32_t { NONE, NF4, FP4, DYN8, UDYN8, E4M3, E5M2, E2M3, E3M2 };

// The table of a format whose codes are looked up; absent for a new codebook, which must name its table here. Small floats of
// one kind share a table.
template <class F, Codec C = F::codec> struct Codebook { static constexpr Table table = Table::NONE; };
template <class F> struct Codebook<F, Codec::CODEBOOK4>;
template <class F> struct Codebook<F, Codec::CODEBOOK8>;
template <class F> struct Codebook<F, Codec::NARROW> {
    static constexpr Table table = F::bits == 8 ? (F::mantissa == 3 ? Table::E4M3 : Table::E5M2) : F::mantissa == 3 ? Table::E2M3 : Table::E3M2;
};
template <> struct Codebook<Format<QLORA_FORMAT_NF4>> { static constexpr Table table = Table::NF4; };
template <> struct Codebook<Format<QLORA_FORMAT_NF4_DQ>> { static constexpr Table table = Table::NF4; };
template <> struct Codebook<Format<QLORA_FORMAT_FP4>> { static constexpr Table table = Table::FP4; };
template <> struct Codebook<Format<QLORA_FORMAT_FP4_DQ>> { static constexpr Table table = Table::FP4; };
template <> struct Codebook<Format<QLORA_FORMAT_DYN8>> { static constexpr Table table = Table::DYN8; };
template <> struct Codebook<Format<QLORA_FORMAT_UDYN8>> { static constexpr Table table = Table::UDYN8; };

static_assert(int(Codec::FLOAT) == 0 && int(Codec::CODEBOOK4) == 1 && int(Codec::CODEBOOK8) == 2 && int(Codec::OFFSET4) == 3 && int(Codec::SIGNED8) == 4 && int(Codec::NARROW) == 6 && int(Codec::ABSMAX8) == 8,
              "decode.glsl counts codecs this way");
static_assert(int(Scale::NONE) == 0 && int(Scale::F32) == 1 && int(Scale::NESTED) == 2 && int(Scale::INLINE) == 3 && int(Scale::E8M0) == 4 && int(Scale::ROW) == 6,
              "decode.glsl counts scale kinds this way");

inline Table table_of(int32_t format) {
    return with_format(format, Table::NONE, [](auto row) { return Codebook<decltype(row)>::table; });
}

inline uint32_t shift_of(uint32_t power_of_two) {
    uint32_t shift = 0;
    while ((1u << shift) < power_of_two) shift++;
    return shift;
}

// What multiplies the scales of NVFP4 blocks, as bits.
inline uint32_t factor_bits(const qlora_weight &weight) {
    const float factor = weight.tensor_scale != 0 ? weight.tensor_scale : 1.0f;
    uint32_t bits;
    std::memcpy(&bits, &factor, sizeof bits);
    return bits;
}

struct WeightSpans {
    qlora_span code, scale, nested, offset; // codec AFFINE: zeros and index in the place of the last two; BILEVEL: zeros and grids
};

// The bytes of the planes that hold something, whatever the caller's spans are parts of.
inline WeightSpans spans_of(const qlora_weight &weight) {
    const FormatRow &row = *format_row(weight.format);
    const uint64_t elements = element_count(weight), blocks = block_count(weight);
    const uint64_t code_bytes = row.scale == Scale::INLINE ? blocks * row.block_bytes : row.scale == Scale::NONE ? elements * row.block_bytes : (elements * row.bits + 7) / 8;
    if (row.scale == Scale::GROUP) {
        const uint64_t groups = weight.rows * group_count(weight);
        return {part(weight.planes[QLORA_PLANE_CODE], 0, code_bytes), part(weight.planes[QLORA_PLANE_SCALE], 0, groups * 2),
                part(weight.planes[QLORA_PLANE_ZERO], 0, stream_bytes(groups, row.bits)),
                part(weight.planes[QLORA_PLANE_INDEX], 0, weight.flags & QLORA_WEIGHT_INDEXED ? weight.cols * 4 : 0)};
    }
    if (row.scale == Scale::TILE) {
        const uint64_t statistics = stream_bytes(weight.rows * group_count(weight), statistic_bits);
        return {part(weight.planes[QLORA_PLANE_CODE], 0, code_bytes), part(weight.planes[QLORA_PLANE_SCALE], 0, statistics), part(weight.planes[QLORA_PLANE_ZERO], 0, statistics),
                part(weight.planes[QLORA_PLANE_NESTED], 0, tile_count(weight) * 8)};
    }
    const uint64_t scale_bytes = row.scale == Scale::ROW ? (one_scale(weight) ? 1 : weight.rows) * 4 : row.scale == Scale::F32 ? blocks * 4 : row.scale == Scale::NESTED || row.scale == Scale::E8M0 ? blocks : 0;
    WeightSpans spans;
    spans.code = part(weight.planes[QLORA_PLANE_CODE], 0, code_bytes);
    spans.scale = part(weight.planes[QLORA_PLANE_SCALE], 0, scale_bytes);
    spans.nested = part(weight.planes[QLORA_PLANE_NESTED], 0, row.scale == Scale::NESTED ? (blocks + 255) / 256 * 4 : 0);
    spans.offset = part(weight.planes[QLORA_PLANE_OFFSET], 0, row.scale == Scale::NESTED ? 4 : 0);
    return spans;
}

// Bindings 9, 10, 12 and 13, behind those of any shader that decodes: outliers and the index.
inline void put_sparse(Spans &spans, const qlora_weight &weight) {
    if (format_row(weight.format)->scale != Scale::TILE) return;
    spans.put(9, part(weight.planes[QLORA_PLANE_OFFSET], 0, weight.outliers ? (weight.rows + 1) * 4 : 0));
    spans.put(10, part(weight.planes[QLORA_PLANE_COLUMN], 0, weight.outliers * 4));
    spans.put(12, part(weight.planes[QLORA_PLANE_OUTLIER], 0, weight.outliers * 2));
    spans.put(13, part(weight.planes[QLORA_PLANE_INDEX], 0, weight.flags & QLORA_WEIGHT_INDEXED ? weight.cols * 4 : 0));
}

// The code plane; of plain floats with strided rows, all that the rows span.
inline qlora_span code_span(const qlora_weight &weight, uint64_t stride) {
    if (stride == weight.cols) return spans_of(weight).code;
    const uint64_t elements = weight.rows && weight.cols ? (weight.rows - 1) * stride + weight.cols : 0;
    return part(weight.planes[QLORA_PLANE_CODE], 0, elements * type_bytes(weight.format));
}

inline Constants constants_of(const qlora_weight &weight) {
    const FormatRow &row = *format_row(weight.format);
    if (row.codec == Codec::AFFINE) { // one group for a row is one of 2^31 columns, which octets do not straddle
        const uint32_t block = weight.block < weight.cols ? weight.block : 1u << 31;
        return {uint32_t(row.codec), uint32_t(row.scale), row.bits, block, weight.flags & QLORA_WEIGHT_INDEXED, uint32_t(weight.format), 0u, 0u};
    }
    if (row.codec == Codec::BILEVEL) {
        const uint32_t block = weight.block < weight.cols ? weight.block : 1u << 31;
        return {uint32_t(row.codec), uint32_t(row.scale), row.bits, block, weight.flags & QLORA_WEIGHT_INDEXED, uint32_t(weight.format), weight.nested_block, weight.outliers != 0};
    }
    const Table table = table_of(weight.format);
    return {uint32_t(row.codec), uint32_t(row.scale), uint32_t(table), table == Table::NONE ? 1u : 1u << row.bits, row.scale == Scale::NESTED ? 256u : 1u,
            uint32_t(row.codec == Codec::FLOAT || row.codec == Codec::BLOCK ? weight.format : QLORA_FORMAT_F32),
            row.scale == Scale::ROW ? one_scale(weight) : shift_of(weight.block), row.block_bytes};
}

// Of a shader over weights, the one that decodes this weight.
inline Shader shader_for(const qlora_weight &weight, Shader planes, Shader blocks, Shader affine, Shader bilevel) {
    const Codec codec = format_row(weight.format)->codec;
    return codec == Codec::BLOCK ? blocks : codec == Codec::AFFINE ? affine : codec == Codec::BILEVEL ? bilevel : planes;
}

// A tensor of plain floats as a weight, for the products of adapters. Its rows may be strided, which decode() allows.
inline qlora_weight weight_of(const qlora_tensor &tensor) {
    qlora_weight weight = {};
    weight.format = tensor.type;
    weight.block = 1;
    weight.nested_block = 256;
    weight.rows = tensor.rows;
    weight.cols = tensor.cols;
    weight.planes[QLORA_PLANE_CODE] = tensor.data;
    return weight;
}

// Which rows are decoded: row ids[r] when ids is present, else row r; times scale, and added to dst or instead of it.
struct Gather {
    qlora_span ids = {};
    float scale = 1;
    bool accumulate = false;
};

// Decodes (dequantize_vulkan.cpp): dst[r] = what gather says of weight. weight_stride is cols but for strided plain floats.
int32_t enqueue_dequantize(Context &context, uint64_t stream, const char *entry, const qlora_weight &weight, uint64_t weight_stride, const Gather &gather,
                           const qlora_tensor &dst);

} // namespace vulkan
} // namespace qlora
