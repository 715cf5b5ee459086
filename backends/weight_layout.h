// Which planes a weight has, and how large they are: the answer of qlora_weight_layout, and what checks of weights go by. Included
// by qlora.cpp alone, through check.h.
#pragma once
#include "backends/backend.h"

#include <cstring>

namespace qlora {
namespace {

constexpr uint64_t dimension_limit = uint64_t(1) << 31;
constexpr uint32_t tile_rows = 16; // default nested_block where the scale kind is TILE

int32_t layout_of(const qlora_weight &weight, qlora_weight_layout_info *layout, const char **why) {
    const FormatRow *row = format_row(weight.format);
    *why = "format is none of QLORA_FORMAT_*";
    if (!row) return QLORA_ERROR_FORMAT;
    const uint32_t block = weight.block ? weight.block : row->block;
    const bool grouped = has_groups(*row), tiled = row->scale == Scale::TILE, by_row = row->scale == Scale::ROW;
    *why = "flags: only GPTQ and SpQR formats take one, QLORA_WEIGHT_INDEXED";
    if (weight.flags & ~(grouped ? QLORA_WEIGHT_INDEXED : 0u)) return QLORA_ERROR_ARGUMENT;
    *why = "tensor_scale: only nvfp4 has one, from 2^-100 to 2^100; 0 for none";
    if (weight.tensor_scale != 0 && !(weight.format == QLORA_FORMAT_NVFP4 && weight.tensor_scale >= 0x1p-100f && weight.tensor_scale <= 0x1p100f)) return QLORA_ERROR_ARGUMENT;
    *why = "block must be a power of two (in GPTQ and SpQR formats any number) inside the format's range (see qlora_format_query); of int8 0 or 2^30";
    if (by_row ? block != 0 && block != row->block_max : block < row->block_min || block > row->block_max || (!grouped && (block & (block - 1)))) return QLORA_ERROR_ARGUMENT;
    *why = "nested_block must be 0 or 256, or a number of rows below 2^31 in SpQR formats";
    if (weight.nested_block != 0 && (tiled ? weight.nested_block >= dimension_limit : weight.nested_block != 256)) return QLORA_ERROR_ARGUMENT;
    *why = "rows and cols must be below 2^31";
    if (weight.rows >= dimension_limit || weight.cols >= dimension_limit) return QLORA_ERROR_SHAPE;
    *why = "cols must be a multiple of the block in ggml and MX formats";
    if (whole_blocks(*row) && weight.cols % block) return QLORA_ERROR_SHAPE;
    *why = "cols of int8 must be below 2^30";
    if (by_row && weight.cols >= row->block_max) return QLORA_ERROR_SHAPE;
    const uint64_t count = weight.rows * weight.cols, blocks = by_row ? (block ? 1 : weight.rows) : (count + block - 1) / block;
    *why = "the bytes of its planes cannot be counted";
    if (count >> 58) return QLORA_ERROR_SHAPE;
    std::memset(layout->plane_bytes, 0, sizeof layout->plane_bytes);
    std::memset(layout->plane_offset, 0, sizeof layout->plane_offset);
    uint64_t *bytes = layout->plane_bytes;
    if (row->scale == Scale::INLINE) bytes[QLORA_PLANE_CODE] = blocks * row->block_bytes;
    else if (row->scale == Scale::NONE) bytes[QLORA_PLANE_CODE] = count * row->block_bytes;
    else bytes[QLORA_PLANE_CODE] = (count * row->bits + 7) / 8;
    if (row->scale == Scale::F32 || by_row) bytes[QLORA_PLANE_SCALE] = blocks * 4;
    if (row->scale == Scale::E8M0) bytes[QLORA_PLANE_SCALE] = blocks;
    if (grouped) {
        const uint64_t groups = (weight.cols + block - 1) / block;
        bytes[QLORA_PLANE_SCALE] = tiled ? stream_bytes(weight.rows * groups, statistic_bits) : weight.rows * groups * 2;
        bytes[QLORA_PLANE_ZERO] = stream_bytes(weight.rows * groups, tiled ? statistic_bits : row->bits);
        if (weight.flags & QLORA_WEIGHT_INDEXED) bytes[QLORA_PLANE_INDEX] = weight.cols * 4;
        const uint64_t nested_block = weight.nested_block ? weight.nested_block : tile_rows;
        if (tiled) bytes[QLORA_PLANE_NESTED] = (weight.rows + nested_block - 1) / nested_block * groups * 8;
    }
    *why = "outliers: only SpQR formats have them, at most rows * cols and below 2^32";
    if (weight.outliers && (!tiled || weight.outliers > count)) return QLORA_ERROR_ARGUMENT;
    if (weight.outliers >> 32) return QLORA_ERROR_SHAPE;
    if (weight.outliers) {
        bytes[QLORA_PLANE_OFFSET] = (weight.rows + 1) * 4;
        bytes[QLORA_PLANE_COLUMN] = weight.outliers * 4;
        bytes[QLORA_PLANE_OUTLIER] = weight.outliers * 2;
    }
    if (row->scale == Scale::NESTED) {
        bytes[QLORA_PLANE_SCALE] = blocks;
        bytes[QLORA_PLANE_NESTED] = (blocks + 255) / 256 * 4;
        bytes[QLORA_PLANE_OFFSET] = 4;
    }
    layout->total_bytes = 0;
    for (int i = 0; i < QLORA_PLANE_COUNT; i++)
        if (bytes[i]) {
            layout->plane_offset[i] = layout->total_bytes;
            layout->total_bytes += align_scratch(bytes[i]);
        }
    return QLORA_OK;
}

} // namespace
} // namespace qlora
