// Decoders of interleaved blocks, of small floats, and of GPTQ's and SpQR's groups, over the shared sources blocks.inc, narrow.inc,
// affine.inc and bilevel.inc. They have what
// every decoder has (decode.cuh) but fetch and decode: tensor core products read such weights from a dequantized panel.
#pragma once
#include "backends/cuda/weight.cuh"

namespace qlora {
namespace cuda {

typedef uint32_t uint;
#define QLORA_FUNCTION __host__ __device__ inline
#include "backends/numeric.inc"
#include "backends/narrow.inc"
#include "backends/affine.inc"
#define QLORA_PRECISE const
#ifdef __CUDA_ARCH__
#define QLORA_PRODUCT(a, b) __fmul_rn(a, b)
#else
#define QLORA_PRODUCT(a, b) ((a) * (b))
#endif
#include "backends/bilevel.inc"
#undef QLORA_PRECISE
#undef QLORA_PRODUCT
#undef QLORA_FUNCTION
#define QLORA_FUNCTION __device__ __forceinline__
#define QLORA_PLACE const uint8_t *
#define QLORA_BYTE(place) uint(*(place))
#define QLORA_HALF(place) f32_from_f16(*reinterpret_cast<const uint16_t *>(place))
#define QLORA_FLOAT(bits) __uint_as_float(bits)
#include "backends/blocks.inc"
#include "backends/block_rows.inc"
#undef QLORA_FUNCTION
#undef QLORA_PLACE
#undef QLORA_BYTE
#undef QLORA_HALF
#undef QLORA_FLOAT

// Eight elements one by one, where they share nothing; the loop as in decode8.
template <class D> __device__ __forceinline__ void decode_singly(const D &decoder, const WeightView &w, int64_t index, float (&values)[8]) {
    float singly[8];
#pragma unroll 1
    for (int i = 0; i < 8; i++) singly[i] = decoder.at(w, index + i);
#pragma unroll
    for (int i = 0; i < 8; i++) values[i] = singly[i];
}

// Blocks do not straddle rows, so eight elements from a multiple of eight exist together, in one group. Products of MXFP4 may
// be subnormal, which CUDA keeps: level times scale is right there as well.
template <class F> struct BlockDecoder {
    static constexpr int shared_values = 1;
    __device__ void prepare(const WeightView &, float *) {}
    __device__ void group(const WeightView &w, int64_t index, float (&values)[8]) const {
        const uint8_t *block = w.code + uint64_t(index) / F::block * F::block_bytes;
        const uint first = uint(index) & (F::block - 1) & ~7u, group = first / F::group; // ~7: the compiler then knows what is adjacent
        const float offset = BlockRow<F>::offset(block, group);
        float scale = BlockRow<F>::scale(block, group);
        if (F::row.format == QLORA_FORMAT_NVFP4) scale = __fmul_rn(scale, w.factor);
#pragma unroll
        for (uint i = 0; i < 8; i++) {
            const float product = __fmul_rn(BlockRow<F>::level(block, first + i), scale);
            values[i] = F::affine ? __fadd_rn(product, offset) : product;
        }
    }
};

// A code is one of at most 256 values. Times a power of two it is exact, subnormal or not, so E8M0 needs no other way.
template <class F> struct NarrowDecoder {
    static constexpr int shared_values = 1 << F::bits;
    const float *table;
    __device__ void prepare(const WeightView &, float *shared) {
        for (int i = threadIdx.x; i < shared_values; i += blockDim.x)
            shared[i] = __uint_as_float(qlora_f32_from_narrow(uint(i), F::bits, F::mantissa, F::bias, 0));
        table = shared;
    }
    __device__ float at(const WeightView &w, int64_t index) const {
        const uint code = F::bits == 8 ? w.code[index] : qlora_packed6(w.code + (index >> 2) * 3, uint(index) & 3u);
        return __fmul_rn(table[code], scale_of<F::scale>(w, index >> w.block_shift, nullptr));
    }
    __device__ void group(const WeightView &w, int64_t index, float (&values)[8]) const {
        const float scale = scale_of<F::scale>(w, index >> w.block_shift, nullptr);
        if (F::bits == 8) {
            const uint2 codes = *reinterpret_cast<const uint2 *>(w.code + index);
#pragma unroll
            for (int i = 0; i < 8; i++) values[i] = __fmul_rn(table[((i < 4 ? codes.x : codes.y) >> (i % 4 * 8)) & 255u], scale);
        } else {
            const uint8_t *codes = w.code + (index >> 3) * 6;
#pragma unroll
            for (uint i = 0; i < 8; i++) values[i] = __fmul_rn(table[qlora_packed6(codes + i / 4 * 3, i % 4)], scale);
        }
    }
};

// Code i of a stream.
__device__ __forceinline__ uint stream_code_at(const uint8_t *stream, int64_t i, uint bits) {
    const int64_t bit = i * bits;
    const uint shift = uint(bit) & 7u;
    return qlora_stream_code(stream[bit >> 3], shift + bits > 8u ? stream[(bit >> 3) + 1] : 0u, shift, bits);
}
// Eight codes of 2, 3, 4 or 8 bits from a multiple of eight, low ones first: code e is what code_of finds.
template <uint BITS> __device__ __forceinline__ uint2 stream_codes_at(const uint8_t *stream, int64_t i) {
    const uint8_t *bytes = stream + (i >> 3) * BITS;
    uint2 codes = make_uint2(0, 0);
    if (BITS == 2) codes.x = *reinterpret_cast<const uint16_t *>(bytes);
    if (BITS == 3) codes.x = bytes[0] | uint(bytes[1]) << 8 | uint(bytes[2]) << 16;
    if (BITS == 4) codes.x = *reinterpret_cast<const uint *>(bytes);
    if (BITS == 8) codes = *reinterpret_cast<const uint2 *>(bytes);
    return codes;
}
template <uint BITS> __device__ __forceinline__ uint code_of(uint2 codes, int e) {
    return ((BITS == 8 && e >= 4 ? codes.y : codes.x) >> (BITS == 8 ? e % 4 * 8 : e * BITS)) & ((1u << BITS) - 1u);
}

// scale * (code - zero) is exact. Eight elements share a row, a group and whole bytes where cols and block are multiples of eight.
template <class F> struct GroupDecoder {
    static constexpr int shared_values = 1;
    __device__ void prepare(const WeightView &, float *) {}
    __device__ static uint code(const uint8_t *stream, int64_t i) { return stream_code_at(stream, i, F::bits); }
    __device__ static float scale_at(const WeightView &w, int64_t at) { return f32_from_f16(static_cast<const uint16_t *>(w.scale)[at]); }
    __device__ float at(const WeightView &w, int64_t index) const {
        int64_t c;
        const int64_t r = row_of(w, index, &c), group = w.index ? w.index[c] : uint32_t(c) / uint32_t(w.block);
        if (group < 0 || group >= w.groups) return 0;
        const int64_t at = r * w.groups + group;
        return __fmul_rn(scale_at(w, at), float(int(code(w.code, index)) - int(code(w.zero, at))));
    }
    __device__ void group(const WeightView &w, int64_t index, float (&values)[8]) const {
        if (w.index || w.cols % 8 || w.block % 8) {
            decode_singly(*this, w, index, values);
            return;
        }
        int64_t c;
        const int64_t r = row_of(w, index, &c), place = r * w.groups + uint32_t(c) / uint32_t(w.block);
        const float scale = scale_at(w, place);
        const int zero = int(code(w.zero, place));
        const uint2 codes = stream_codes_at<F::bits>(w.code, index);
#pragma unroll
        for (int i = 0; i < 8; i++) values[i] = __fmul_rn(scale, float(int(code_of<F::bits>(codes, i)) - zero));
    }
};

// Two levels of grids, and outliers, which are looked for in their row: few, and mostly in the cache. Eight elements share a row, a
// group and whole bytes where cols and block are multiples of eight.
template <class F> struct TileDecoder {
    static constexpr int shared_values = 1;
    __device__ void prepare(const WeightView &, float *) {}
    __device__ static float half_at(const WeightView &w, int64_t i) { return f32_from_f16(reinterpret_cast<const uint16_t *>(w.nested)[i]); }
    __device__ static void grid(const WeightView &w, int64_t r, int64_t group, float &scale, float &zero) {
        const int64_t at = r * w.groups + group, halves = (r / w.nested_block * w.groups + group) * 4;
        scale = qlora_bilevel_value(half_at(w, halves), half_at(w, halves + 2), stream_code_at(static_cast<const uint8_t *>(w.scale), at, statistic_bits));
        zero = qlora_bilevel_value(half_at(w, halves + 1), half_at(w, halves + 3), stream_code_at(w.zero, at, statistic_bits));
    }
    // The first outlier of row r at or behind column c, and the end of the row's.
    __device__ static int64_t outlier(const WeightView &w, int64_t r, int64_t c, int64_t &end) {
        int64_t first = w.outlier_offsets[r];
        end = min(int64_t(w.outlier_offsets[r + 1]), w.outliers);
        for (int64_t high = end; first < high;) {
            const int64_t middle = first + (high - first) / 2;
            if (w.outlier_columns[middle] < c) first = middle + 1;
            else high = middle;
        }
        return first;
    }
    __device__ float at(const WeightView &w, int64_t index) const {
        int64_t c;
        const int64_t r = row_of(w, index, &c), place = w.index ? int64_t(uint(w.index[c])) : c;
        float value = 0;
        if (place < w.cols) {
            float scale, zero;
            grid(w, r, uint32_t(place) / uint32_t(w.block), scale, zero);
            value = qlora_bilevel_value(scale, zero, stream_code_at(w.code, r * w.cols + place, F::bits));
        }
        if (!w.outlier_offsets) return value;
        int64_t end;
        const int64_t i = outlier(w, r, c, end);
        return i < end && w.outlier_columns[i] == c ? __fadd_rn(value, f32_from_f16(w.outlier_values[i])) : value;
    }
    __device__ void group(const WeightView &w, int64_t index, float (&values)[8]) const {
        if (w.index || w.cols % 8 || w.block % 8) {
            decode_singly(*this, w, index, values);
            return;
        }
        int64_t c;
        const int64_t r = row_of(w, index, &c);
        float scale, zero;
        grid(w, r, uint32_t(c) / uint32_t(w.block), scale, zero);
        const uint2 codes = stream_codes_at<F::bits>(w.code, index);
#pragma unroll
        for (int i = 0; i < 8; i++) values[i] = qlora_bilevel_value(scale, zero, code_of<F::bits>(codes, i));
        if (!w.outlier_offsets) return;
        int64_t end;
        for (int64_t k = outlier(w, r, c, end); k < end && w.outlier_columns[k] < c + 8; k++) {
            const float value = f32_from_f16(w.outlier_values[k]);
            const int place = int(w.outlier_columns[k] - c);
#pragma unroll
            for (int i = 0; i < 8; i++)
                if (i == place) values[i] = __fadd_rn(values[i], value);
        }
    }
};

// A signed byte times the scale of its row. Eight elements share a row where cols is a multiple of eight.
struct ByteDecoder {
    static constexpr int shared_values = 1;
    __device__ void prepare(const WeightView &, float *) {}
    __device__ static float scale_at(const WeightView &w, int64_t index) {
        int64_t c;
        const int64_t r = w.block == int64_t(1) << 30 ? 0 : row_of(w, index, &c); // one scale in all, or one per row
        return __fmul_rn(static_cast<const float *>(w.scale)[r], 1.0f / 127.0f);
    }
    __device__ float at(const WeightView &w, int64_t index) const { return __fmul_rn(float(int8_t(w.code[index])), scale_at(w, index)); }
    __device__ void group(const WeightView &w, int64_t index, float (&values)[8]) const {
        if (w.cols % 8) {
            float slow[8]; // as in decode8
#pragma unroll 1
            for (int i = 0; i < 8; i++) slow[i] = at(w, index + i);
#pragma unroll
            for (int i = 0; i < 8; i++) values[i] = slow[i];
            return;
        }
        const uint2 codes = *reinterpret_cast<const uint2 *>(w.code + index);
        const float scale = scale_at(w, index);
#pragma unroll
        for (int i = 0; i < 8; i++) values[i] = __fmul_rn(float(int8_t((i < 4 ? codes.x : codes.y) >> (i % 4 * 8))), scale);
    }
};

template <class D> constexpr bool whole_groups = false; // true where decode8 needs no way for single elements
template <class F> constexpr bool whole_groups<BlockDecoder<F>> = true;

// The decoder of a format.
template <Codec C, Scale S> struct Decoder;
template <class F, Codec C = F::codec> struct DecoderOf { using type = Decoder<C, F::scale>; };
template <class F> struct DecoderOf<F, Codec::BLOCK> { using type = BlockDecoder<F>; };
template <class F> struct DecoderOf<F, Codec::NARROW> { using type = NarrowDecoder<F>; };
template <class F> struct DecoderOf<F, Codec::AFFINE> { using type = GroupDecoder<F>; };
template <class F> struct DecoderOf<F, Codec::BILEVEL> { using type = TileDecoder<F>; };
template <class F> struct DecoderOf<F, Codec::ABSMAX8> { using type = ByteDecoder; };

} // namespace cuda
} // namespace qlora
