// Decoders of interleaved blocks, of small floats and of GPTQ's groups, over the shared sources blocks.inc, narrow.inc and affine.inc. They have what
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

// scale * (code - zero) is exact. Eight elements share a row, a group and whole bytes where cols and block are multiples of eight.
template <class F> struct GroupDecoder {
    static constexpr int shared_values = 1;
    __device__ void prepare(const WeightView &, float *) {}
    __device__ static uint code(const uint8_t *stream, int64_t i) {
        const int64_t bit = i * F::bits;
        const uint shift = uint(bit) & 7u;
        return qlora_stream_code(stream[bit >> 3], shift + F::bits > 8u ? stream[(bit >> 3) + 1] : 0u, shift, F::bits);
    }
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
            float slow[8]; // as in decode8
#pragma unroll 1
            for (int i = 0; i < 8; i++) slow[i] = at(w, index + i);
#pragma unroll
            for (int i = 0; i < 8; i++) values[i] = slow[i];
            return;
        }
        int64_t c;
        const int64_t r = row_of(w, index, &c), place = r * w.groups + uint32_t(c) / uint32_t(w.block);
        const float scale = scale_at(w, place);
        const int zero = int(code(w.zero, place));
        const uint8_t *bytes = w.code + (index >> 3) * F::bits;
        uint2 codes = make_uint2(0, 0);
        if (F::bits == 2) codes.x = *reinterpret_cast<const uint16_t *>(bytes);
        if (F::bits == 3) codes.x = bytes[0] | uint(bytes[1]) << 8 | uint(bytes[2]) << 16;
        if (F::bits == 4) codes.x = *reinterpret_cast<const uint *>(bytes);
        if (F::bits == 8) codes = *reinterpret_cast<const uint2 *>(bytes);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const uint from = F::bits == 8 && i >= 4 ? codes.y : codes.x, shift = F::bits == 8 ? i % 4 * 8 : i * F::bits;
            values[i] = __fmul_rn(scale, float(int((from >> shift) & ((1u << F::bits) - 1u)) - zero));
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
template <class F> struct DecoderOf<F, Codec::ABSMAX8> { using type = ByteDecoder; };

} // namespace cuda
} // namespace qlora
