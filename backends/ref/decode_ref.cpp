// decode<F>: one stored element as f32. Selected by codec and scale kind, so a format of a known kind needs nothing here.
#include "backends/ref/blocks_ref.h"
#include "backends/ref/codebooks_ref.h"

namespace qlora {
namespace ref {
namespace {

// Scale of a block, one f32 operation at a time.
template <Scale S> float scale_of(const qlora_weight &weight, uint64_t block);

template <> float scale_of<Scale::F32>(const qlora_weight &weight, uint64_t block) {
    return load(address<const void>(weight.planes[QLORA_PLANE_SCALE]), QLORA_FORMAT_F32, block);
}

template <> float scale_of<Scale::NESTED>(const qlora_weight &weight, uint64_t block) {
    const uint8_t code = address<const uint8_t>(weight.planes[QLORA_PLANE_SCALE])[block];
    const float nested = load(address<const void>(weight.planes[QLORA_PLANE_NESTED]), QLORA_FORMAT_F32, block / weight.nested_block);
    const float offset = load(address<const void>(weight.planes[QLORA_PLANE_OFFSET]), QLORA_FORMAT_F32, 0);
    const float product = float_of(dyn8_table[code]) * nested;
    return product + offset;
}

template <Codec C> struct DecodeCodec; // deleted primary: a new codec must be written here

template <> struct DecodeCodec<Codec::FLOAT> {
    template <class F> static float at(const qlora_weight &weight, uint64_t index) {
        return load(address<const void>(weight.planes[QLORA_PLANE_CODE]), F::row.format, index);
    }
};
template <> struct DecodeCodec<Codec::CODEBOOK4> {
    template <class F> static float at(const qlora_weight &weight, uint64_t index) {
        const uint8_t byte = address<const uint8_t>(weight.planes[QLORA_PLANE_CODE])[index / 2];
        const uint32_t code = index % 2 ? byte & 15u : byte >> 4;
        return float_of(Codebook<F>::table[code]) * scale_of<F::scale>(weight, index / weight.block);
    }
};
template <> struct DecodeCodec<Codec::CODEBOOK8> {
    template <class F> static float at(const qlora_weight &weight, uint64_t index) {
        const uint8_t code = address<const uint8_t>(weight.planes[QLORA_PLANE_CODE])[index];
        return float_of(Codebook<F>::table[code]) * scale_of<F::scale>(weight, index / weight.block);
    }
};
template <> struct DecodeCodec<Codec::OFFSET4> {
    template <class F> static float at(const qlora_weight &weight, uint64_t index) {
        const BlockQ4_0 &block = address<const BlockQ4_0>(weight.planes[QLORA_PLANE_CODE])[index / 32];
        const uint32_t j = index % 32, byte = block.codes[j % 16], code = j < 16 ? byte & 15u : byte >> 4;
        return (float(code) - 8.0f) * float_of(qlora_f32_from_f16(block.scale));
    }
};
template <> struct DecodeCodec<Codec::SIGNED8> {
    template <class F> static float at(const qlora_weight &weight, uint64_t index) {
        const BlockQ8_0 &block = address<const BlockQ8_0>(weight.planes[QLORA_PLANE_CODE])[index / 32];
        return float(block.codes[index % 32]) * float_of(qlora_f32_from_f16(block.scale));
    }
};
template <> struct DecodeCodec<Codec::BLOCK> {
    template <class F> static float at(const qlora_weight &weight, uint64_t index) {
        const uint8_t *block = address<const uint8_t>(weight.planes[QLORA_PLANE_CODE]) + index / F::block * F::block_bytes;
        const uint i = uint(index % F::block);
        if (F::row.format == QLORA_FORMAT_NVFP4 && weight.tensor_scale != 0)
            return BlockRow<F>::level(block, i) * (BlockRow<F>::scale(block, i / F::group) * weight.tensor_scale);
        return block_value<F>(block, i);
    }
};
template <> struct DecodeCodec<Codec::ABSMAX8> {
    template <class F> static float at(const qlora_weight &weight, uint64_t index) {
        const float code = address<const int8_t>(weight.planes[QLORA_PLANE_CODE])[index];
        return code * int8_scale(weight, index / weight.cols);
    }
};
template <> struct DecodeCodec<Codec::NARROW> {
    template <class F> static float at(const qlora_weight &weight, uint64_t index) {
        const uint8_t *codes = address<const uint8_t>(weight.planes[QLORA_PLANE_CODE]);
        const uint32_t code = F::bits == 8 ? codes[index] : qlora_packed6(codes + index / 4 * 3, uint(index % 4));
        if (F::scale == Scale::F32) {
            const float level = float_of(qlora_f32_from_narrow(code, F::bits, F::mantissa, F::bias, 0));
            return level * scale_of<Scale::F32>(weight, index / weight.block);
        }
        const uint8_t power = address<const uint8_t>(weight.planes[QLORA_PLANE_SCALE])[index / weight.block];
        return float_of(power == 255 ? 0x7fc00000u : qlora_f32_from_narrow(code, F::bits, F::mantissa, F::bias, int(power) - 127));
    }
};

// Code i of a stream.
int code_at(const qlora_span &stream, uint64_t i, uint32_t bits) {
    const uint8_t *bytes = address<const uint8_t>(stream) + i * bits / 8;
    const uint32_t shift = uint32_t(i * bits % 8);
    return int(qlora_stream_code(bytes[0], shift + bits > 8 ? bytes[1] : 0u, shift, bits));
}
template <> struct DecodeCodec<Codec::AFFINE> {
    template <class F> static float at(const qlora_weight &weight, uint64_t index) {
        const uint64_t c = index % weight.cols, groups = group_count(weight);
        uint64_t group = c / weight.block;
        if (weight.flags & QLORA_WEIGHT_INDEXED) group = uint64_t(address<const uint32_t>(weight.planes[QLORA_PLANE_INDEX])[c]);
        if (group >= groups) return 0;
        const uint64_t at = index / weight.cols * groups + group;
        const float scale = load(address<const void>(weight.planes[QLORA_PLANE_SCALE]), QLORA_FORMAT_F16, at);
        return scale * float(code_at(weight.planes[QLORA_PLANE_CODE], index, F::bits) - code_at(weight.planes[QLORA_PLANE_ZERO], at, F::bits));
    }
};

// A code of statistic_bits on its grid; which: 0 scale, 1 zero.
float statistic(const qlora_weight &weight, uint64_t r, uint64_t group, int which) {
    const uint64_t grid = tile_grid(weight, r, group) * 4 + uint64_t(which);
    const void *halves = address<const void>(weight.planes[QLORA_PLANE_NESTED]);
    const int code = code_at(weight.planes[which ? QLORA_PLANE_ZERO : QLORA_PLANE_SCALE], r * group_count(weight) + group, statistic_bits);
    return qlora_bilevel_value(load(halves, QLORA_FORMAT_F16, grid), load(halves, QLORA_FORMAT_F16, grid + 2), uint(code));
}
template <> struct DecodeCodec<Codec::BILEVEL> {
    template <class F> static float at(const qlora_weight &weight, uint64_t index) {
        const uint64_t r = index / weight.cols, c = index % weight.cols;
        uint64_t place = c;
        if (weight.flags & QLORA_WEIGHT_INDEXED) place = uint64_t(address<const uint32_t>(weight.planes[QLORA_PLANE_INDEX])[c]);
        float value = 0;
        if (place < weight.cols) {
            const uint64_t group = place / weight.block;
            const int code = code_at(weight.planes[QLORA_PLANE_CODE], r * weight.cols + place, F::bits);
            value = qlora_bilevel_value(statistic(weight, r, group, 0), statistic(weight, r, group, 1), uint(code));
        }
        if (weight.outliers == 0) return value;
        const uint32_t *offsets = address<const uint32_t>(weight.planes[QLORA_PLANE_OFFSET]), *columns = address<const uint32_t>(weight.planes[QLORA_PLANE_COLUMN]);
        for (uint64_t i = offsets[r]; i < offsets[r + 1] && i < weight.outliers; i++)
            if (columns[i] == c) return value + load(address<const void>(weight.planes[QLORA_PLANE_OUTLIER]), QLORA_FORMAT_F16, i);
        return value;
    }
};

} // namespace

Decode decoder(int32_t format) {
    return with_format(format, Decode(nullptr), [](auto row) -> Decode {
        using F = decltype(row);
        return DecodeCodec<F::codec>::template at<F>;
    });
}

void fill(Grid &grid, const qlora_weight &weight, int32_t compute_type, bool transposed) {
    const Decode decode = decoder(weight.format);
    for (uint64_t r = 0; r < weight.rows; r++)
        for (uint64_t c = 0; c < weight.cols; c++)
            (transposed ? grid[c][r] : grid[r][c]) = round_to(compute_type, decode(weight, r * weight.cols + c));
}

} // namespace ref
} // namespace qlora
