// decode<F> on the device: stored codes to f32, one rounding. Selected by codec and scale kind, so that a new row of
// a known codec needs nothing but its table in weight.cuh; interleaved blocks and small floats are in blocks.cuh.
#pragma once
#include "backends/cuda/blocks.cuh"

namespace qlora {
namespace cuda {

// Codes of eight neighbours as they were read, and what scales them.
struct Raw {
    uint4 codes;
    float scale;
};

// What load() of codebook decoders reads: a scale that is nested has its code in codes.w, and settle() finds it.
template <Scale S> __device__ __forceinline__ Raw raw_of(const WeightView &w, uint32_t low, uint32_t high, int64_t block) {
    if (S == Scale::NESTED) {
        const NestedScale scale = nested_at(w, block);
        return Raw{make_uint4(low, high, 0, scale.code), scale.nested};
    }
    return Raw{make_uint4(low, high, 0, 0), static_cast<const float *>(w.scale)[block]};
}
template <Scale S> __device__ __forceinline__ void settle_raw(Raw &raw, const WeightView &w, const float *nested_table) {
    if (S == Scale::NESTED) raw.scale = value_of(NestedScale{raw.codes.w, raw.scale}, w, nested_table);
}

// Each decoder has: shared_values, the floats of shared memory it wants; prepare() to fill them (then the block must
// synchronise); at() for one element; fetch() and decode() for eight from a multiple of eight, when w.grouped. fetch() is
// load(), which needs no shared memory, and settle().
template <Codec C, Scale S> struct Decoder;

template <Scale S> struct Decoder<Codec::FLOAT, S> {
    static constexpr int shared_values = 1;
    __device__ void prepare(const WeightView &, float *) {}
    __device__ float at(const WeightView &w, int64_t index) const { return load1(w.code, w.format, index); }
    // Converted at once: eight f32 do not fit in Raw. Callers that care for speed take plain floats as a tensor.
    __device__ void group(const WeightView &w, int64_t index, float (&values)[8]) const { load8(w.code, w.format, index, 8, true, values); }
};

template <Scale S> struct Decoder<Codec::CODEBOOK4, S> {
    static constexpr int shared_values = S == Scale::NESTED ? 16 + 256 : 16;
    const float *table;
    __device__ void prepare(const WeightView &w, float *shared) {
        const uint32_t *bits = table_bits(w.table);
        for (int i = threadIdx.x; i < 16; i += blockDim.x) shared[i] = __uint_as_float(bits[i]);
        if (S == Scale::NESTED)
            for (int i = threadIdx.x; i < 256; i += blockDim.x) shared[16 + i] = __uint_as_float(dyn8_table[i]);
        table = shared;
    }
    __device__ float at(const WeightView &w, int64_t index) const {
        const uint32_t byte = w.code[index >> 1];
        return __fmul_rn(table[index & 1 ? byte & 15u : byte >> 4], scale_of<S>(w, index >> w.block_shift, table + 16));
    }
    __device__ static Raw load(const WeightView &w, int64_t index) { return raw_of<S>(w, *reinterpret_cast<const uint32_t *>(w.code + (index >> 1)), 0, index >> w.block_shift); }
    __device__ void settle(Raw &raw, const WeightView &w) const { settle_raw<S>(raw, w, table + 16); }
    __device__ Raw fetch(const WeightView &w, int64_t index) const {
        Raw raw = load(w, index);
        settle(raw, w);
        return raw;
    }
    __device__ void decode(const Raw &raw, float (&values)[8]) const {
#pragma unroll
        for (int i = 0; i < 8; i++) // the earlier element of a byte is its high nibble
            values[i] = __fmul_rn(table[(raw.codes.x >> (i % 2 ? 4 * i - 4 : 4 * i + 4)) & 15u], raw.scale);
    }
    __device__ void group(const WeightView &w, int64_t index, float (&values)[8]) const { decode(fetch(w, index), values); }
};

template <Scale S> struct Decoder<Codec::CODEBOOK8, S> {
    static constexpr int shared_values = S == Scale::NESTED ? 512 : 256;
    const float *table;
    __device__ void prepare(const WeightView &w, float *shared) {
        const uint32_t *bits = table_bits(w.table);
        for (int i = threadIdx.x; i < 256; i += blockDim.x) {
            shared[i] = __uint_as_float(bits[i]);
            if (S == Scale::NESTED) shared[256 + i] = __uint_as_float(dyn8_table[i]);
        }
        table = shared;
    }
    __device__ float at(const WeightView &w, int64_t index) const {
        return __fmul_rn(table[w.code[index]], scale_of<S>(w, index >> w.block_shift, table + 256));
    }
    __device__ static Raw load(const WeightView &w, int64_t index) {
        const uint2 codes = *reinterpret_cast<const uint2 *>(w.code + index);
        return raw_of<S>(w, codes.x, codes.y, index >> w.block_shift);
    }
    __device__ void settle(Raw &raw, const WeightView &w) const { settle_raw<S>(raw, w, table + 256); }
    __device__ Raw fetch(const WeightView &w, int64_t index) const {
        Raw raw = load(w, index);
        settle(raw, w);
        return raw;
    }
    __device__ void decode(const Raw &raw, float (&values)[8]) const {
#pragma unroll
        for (int i = 0; i < 8; i++) values[i] = __fmul_rn(table[((i < 4 ? raw.codes.x : raw.codes.y) >> (i % 4 * 8)) & 255u], raw.scale);
    }
    __device__ void group(const WeightView &w, int64_t index, float (&values)[8]) const { decode(fetch(w, index), values); }
};

template <Scale S> struct Decoder<Codec::OFFSET4, S> {
    static constexpr int shared_values = 1;
    __device__ void prepare(const WeightView &, float *) {}
    __device__ float at(const WeightView &w, int64_t index) const {
        const uint8_t *block = w.code + (index >> 5) * sizeof(BlockQ4_0);
        const int j = int(index & 31);
        const uint32_t byte = block[2 + (j & 15)];
        return __fmul_rn(float(int(j < 16 ? byte & 15u : byte >> 4) - 8), f32_from_f16(*reinterpret_cast<const uint16_t *>(block)));
    }
    __device__ void settle(Raw &, const WeightView &) const {}
    __device__ Raw fetch(const WeightView &w, int64_t index) const { return load(w, index); }
    __device__ static Raw load(const WeightView &w, int64_t index) {
        const uint8_t *block = w.code + (index >> 5) * sizeof(BlockQ4_0);
        const int j = int(index & 31), shift = j < 16 ? 0 : 4;
        const uint16_t *words = reinterpret_cast<const uint16_t *>(block + 2 + (j & 15));
        const uint32_t low = words[0] | uint32_t(words[1]) << 16, high = words[2] | uint32_t(words[3]) << 16;
        return Raw{make_uint4(low >> shift, high >> shift, 0, 0), f32_from_f16(*reinterpret_cast<const uint16_t *>(block))};
    }
    __device__ void decode(const Raw &raw, float (&values)[8]) const {
#pragma unroll
        for (int i = 0; i < 8; i++) values[i] = __fmul_rn(float(int(((i < 4 ? raw.codes.x : raw.codes.y) >> (i % 4 * 8)) & 15u) - 8), raw.scale);
    }
    __device__ void group(const WeightView &w, int64_t index, float (&values)[8]) const { decode(fetch(w, index), values); }
};

template <Scale S> struct Decoder<Codec::SIGNED8, S> {
    static constexpr int shared_values = 1;
    __device__ void prepare(const WeightView &, float *) {}
    __device__ float at(const WeightView &w, int64_t index) const {
        const uint8_t *block = w.code + (index >> 5) * sizeof(BlockQ8_0);
        return __fmul_rn(float(int8_t(block[2 + (index & 31)])), f32_from_f16(*reinterpret_cast<const uint16_t *>(block)));
    }
    __device__ void settle(Raw &, const WeightView &) const {}
    __device__ Raw fetch(const WeightView &w, int64_t index) const { return load(w, index); }
    __device__ static Raw load(const WeightView &w, int64_t index) {
        const uint8_t *block = w.code + (index >> 5) * sizeof(BlockQ8_0);
        const uint16_t *words = reinterpret_cast<const uint16_t *>(block + 2 + (index & 31));
        return Raw{make_uint4(words[0] | uint32_t(words[1]) << 16, words[2] | uint32_t(words[3]) << 16, 0, 0),
                   f32_from_f16(*reinterpret_cast<const uint16_t *>(block))};
    }
    __device__ void decode(const Raw &raw, float (&values)[8]) const {
#pragma unroll
        for (int i = 0; i < 8; i++) values[i] = __fmul_rn(float(int8_t((i < 4 ? raw.codes.x : raw.codes.y) >> (i % 4 * 8))), raw.scale);
    }
    __device__ void group(const WeightView &w, int64_t index, float (&values)[8]) const { decode(fetch(w, index), values); }
};

// Eight elements from any place, count of which exist: the fast way when it is open, else one by one.
template <class D>
__device__ __forceinline__ void decode8(const D &decoder, const WeightView &w, int64_t index, int64_t count, float (&values)[8]) {
    if (whole_groups<D> || (w.grouped && count >= 8 && (index & 7) == 0)) {
        decoder.group(w, index, values);
        return;
    }
    if constexpr (!whole_groups<D>) {
        float slow[8]; // indexed at run time, hence not in registers: one copy of at() instead of eight
#pragma unroll 1
        for (int i = 0; i < 8; i++) slow[i] = i < count ? decoder.at(w, index + i) : 0.0f;
#pragma unroll
        for (int i = 0; i < 8; i++) values[i] = slow[i];
    }
}

// Calls f(Decoder<...>()) for a format.
template <class Function> int32_t with_decoder(int32_t format, Function &&f) {
    return with_format(format, int32_t(QLORA_ERROR_FORMAT), [&](auto row) -> int32_t {
        using F = decltype(row);
        return f(typename DecoderOf<F>::type());
    });
}

} // namespace cuda
} // namespace qlora
