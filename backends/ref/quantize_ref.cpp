// encode<F>: bitsandbytes' CUDA results and ggml's reference quantizer, one f32 operation at a time.
#include "backends/ref/codebooks_ref.h"

#include <cmath>

namespace qlora {
namespace ref {
namespace {

constexpr float smallest_normal = 1.17549435e-38f; // an absmax below it counts as zero

// 1 / scale of a ggml block; a scale so small that this overflows is zero as f16 and counts as zero.
float inverse_of(float scale) {
    const float inverse = scale != 0 ? 1.0f / scale : 0.0f;
    return std::isfinite(inverse) ? inverse : 0.0f;
}

float source(const qlora_quantize_args &args, uint64_t index) {
    return get(args.src, index / args.src.cols, index % args.src.cols);
}

float absmax_of(const qlora_quantize_args &args, uint64_t begin, uint64_t end) {
    float absmax = 0;
    for (uint64_t i = begin; i < end; i++) absmax = std::fmax(absmax, std::fabs(source(args, i)));
    return absmax < smallest_normal ? 0.0f : absmax;
}

// Sum of count values in the order that every backend keeps: chunks of 4096, in each 256 strided lanes and a tree.
void sum_chunks(float *values, uint64_t count) {
    while (count > 1) {
        uint64_t chunks = 0;
        for (uint64_t begin = 0; begin < count; begin += 4096, chunks++) {
            const uint64_t end = begin + 4096 < count ? begin + 4096 : count;
            float lanes[256] = {};
            for (uint64_t i = begin; i < end; i++) lanes[(i - begin) % 256] += values[i];
            for (int half = 128; half >= 1; half /= 2)
                for (int l = 0; l < half; l++) lanes[l] += lanes[l + half];
            values[chunks] = lanes[0];
        }
        count = chunks;
    }
}

// Replaces the f32 scales by codes, nested scales and offset.
int32_t nest_scales(Context &context, const qlora_weight &weight, const float *scales, uint64_t blocks) {
    float *sums = static_cast<float *>(context.allocate(size_t(blocks) * 4, "ref sums"));
    if (!sums) return context.fail(QLORA_ERROR_MEMORY, "qlora_weight_quantize: no host memory for sums");
    std::memcpy(sums, scales, size_t(blocks) * 4);
    sum_chunks(sums, blocks);
    const float offset = sums[0] / float(blocks);
    context.release(sums, size_t(blocks) * 4);
    store(address<void>(weight.planes[QLORA_PLANE_OFFSET]), QLORA_FORMAT_F32, 0, offset);
    uint8_t *codes = address<uint8_t>(weight.planes[QLORA_PLANE_SCALE]);
    for (uint64_t begin = 0; begin < blocks; begin += weight.nested_block) {
        const uint64_t end = begin + weight.nested_block < blocks ? begin + weight.nested_block : blocks;
        float absmax = 0;
        for (uint64_t i = begin; i < end; i++) absmax = std::fmax(absmax, std::fabs(scales[i] - offset));
        if (absmax < smallest_normal) absmax = 0;
        store(address<void>(weight.planes[QLORA_PLANE_NESTED]), QLORA_FORMAT_F32, begin / weight.nested_block, absmax);
        const float inverse = absmax > 0 ? 1.0f / absmax : 0;
        for (uint64_t i = begin; i < end; i++) {
            const float difference = scales[i] - offset;
            codes[i] = uint8_t(absmax > 0 ? nearest_code(dyn8_table, difference * inverse) : 0);
        }
    }
    return QLORA_OK;
}

template <class F> int32_t encode_codebook(Context &context, const qlora_quantize_args &args) {
    const qlora_weight &weight = *args.weight;
    const uint64_t count = element_count(weight), blocks = block_count(weight);
    uint8_t *codes = address<uint8_t>(weight.planes[QLORA_PLANE_CODE]);
    float *scales = static_cast<float *>(context.allocate(size_t(blocks) * 4, "ref scales"));
    if (!scales) return context.fail(QLORA_ERROR_MEMORY, "qlora_weight_quantize: no host memory for scales");
    for (uint64_t b = 0; b < blocks; b++) {
        const uint64_t begin = b * weight.block, end = begin + weight.block < count ? begin + weight.block : count;
        const float absmax = absmax_of(args, begin, end), inverse = absmax > 0 ? 1.0f / absmax : 0;
        scales[b] = absmax;
        const uint64_t padded = F::bits == 4 ? (end + 1) / 2 * 2 : end; // the odd nibble encodes 0.0
        for (uint64_t i = begin; i < padded; i++) {
            const uint32_t code = absmax > 0 ? Codebook<F>::code(i < end ? source(args, i) * inverse : 0.0f) : 0;
            if (F::bits == 8) codes[i] = uint8_t(code);
            else codes[i / 2] = uint8_t(i % 2 ? (codes[i / 2] & 0xf0u) | code : code << 4);
        }
    }
    int32_t status = QLORA_OK;
    if (F::scale == Scale::NESTED) status = nest_scales(context, weight, scales, blocks);
    else std::memcpy(address<void>(weight.planes[QLORA_PLANE_SCALE]), scales, size_t(blocks) * 4);
    context.release(scales, size_t(blocks) * 4);
    return status;
}

template <Codec C> struct EncodeCodec; // deleted primary: a new codec must be written here

template <> struct EncodeCodec<Codec::FLOAT> {
    template <class F> static int32_t run(Context &, const qlora_quantize_args &args) {
        for (uint64_t i = 0; i < element_count(*args.weight); i++)
            store(address<void>(args.weight->planes[QLORA_PLANE_CODE]), F::row.format, i, source(args, i));
        return QLORA_OK;
    }
};
template <> struct EncodeCodec<Codec::CODEBOOK4> {
    template <class F> static int32_t run(Context &context, const qlora_quantize_args &args) { return encode_codebook<F>(context, args); }
};
template <> struct EncodeCodec<Codec::CODEBOOK8> {
    template <class F> static int32_t run(Context &context, const qlora_quantize_args &args) { return encode_codebook<F>(context, args); }
};
template <> struct EncodeCodec<Codec::OFFSET4> {
    template <class F> static int32_t run(Context &, const qlora_quantize_args &args) {
        for (uint64_t b = 0; b < block_count(*args.weight); b++) {
            BlockQ4_0 &block = address<BlockQ4_0>(args.weight->planes[QLORA_PLANE_CODE])[b];
            float extreme = 0; // of largest magnitude, with its sign; the first wins
            for (uint64_t j = 0; j < 32; j++) {
                const float value = source(args, b * 32 + j);
                if (std::fabs(value) > std::fabs(extreme)) extreme = value;
            }
            const float scale = extreme / -8, inverse = inverse_of(scale);
            block.scale = uint16_t(qlora_f16_from_f32(bits_of(scale)));
            uint32_t codes[32];
            for (uint64_t j = 0; j < 32; j++) {
                const float scaled = source(args, b * 32 + j) * inverse;
                const int32_t code = int32_t(scaled + 8.5f);
                codes[j] = uint32_t(code > 15 ? 15 : code);
            }
            for (int j = 0; j < 16; j++) block.codes[j] = uint8_t(codes[j] | codes[j + 16] << 4);
        }
        return QLORA_OK;
    }
};
template <> struct EncodeCodec<Codec::SIGNED8> {
    template <class F> static int32_t run(Context &, const qlora_quantize_args &args) {
        for (uint64_t b = 0; b < block_count(*args.weight); b++) {
            BlockQ8_0 &block = address<BlockQ8_0>(args.weight->planes[QLORA_PLANE_CODE])[b];
            float absmax = 0;
            for (uint64_t j = 0; j < 32; j++) absmax = std::fmax(absmax, std::fabs(source(args, b * 32 + j)));
            const float scale = absmax / 127, inverse = inverse_of(scale);
            block.scale = uint16_t(qlora_f16_from_f32(bits_of(scale)));
            for (uint64_t j = 0; j < 32; j++) block.codes[j] = int8_t(std::round(source(args, b * 32 + j) * inverse));
        }
        return QLORA_OK;
    }
};

} // namespace

uint64_t quantize_scratch(Context &, const qlora_quantize_args &) { return 0; }

int32_t quantize(Context &context, const qlora_quantize_args &args) {
    for (uint64_t i = 0; i < element_count(*args.weight); i++)
        if ((bits_of(source(args, i)) & 0x7f800000u) == 0x7f800000u)
            return context.fail(QLORA_ERROR_VALUE, "qlora_weight_quantize: src element %llu (row %llu, column %llu) is NaN or infinite; clean the tensor first",
                                (unsigned long long)i, (unsigned long long)(i / args.src.cols), (unsigned long long)(i % args.src.cols));
    return with_format(args.weight->format, QLORA_ERROR_FORMAT, [&](auto row) -> int32_t {
        using F = decltype(row);
        return EncodeCodec<F::codec>::template run<F>(context, args);
    });
}

} // namespace ref
} // namespace qlora
