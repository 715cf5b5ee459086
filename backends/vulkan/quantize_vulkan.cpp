// encode<F>, selected by codec: codebooks with their planes of scales, ggml blocks, plain floats.
#include "backends/vulkan/weight_vulkan.h"

namespace qlora {
namespace vulkan {
namespace {

constexpr uint64_t mean_chunk = 4096; // fixed: it decides the bits of the mean

struct EncodePush {
    PushHeader header;
    uint32_t elements, cols, stride;
};

int32_t enqueue_codes(Context &context, uint64_t stream, Table table, uint32_t bits, uint32_t block, const qlora_tensor &src, const qlora_span &codes, const qlora_span &scales,
                      const qlora_span &mean) {
    const uint64_t elements = src.rows * src.cols, group = block == 4096 ? 4096 : 2048;
    const bool contiguous = src.stride == src.cols || src.rows == 1;
    return enqueue(context, stream, Shader::quantize,
                   {uint32_t(table), 1u << bits, uint32_t(src.type), bits, shift_of(block), mean.handle != 0, contiguous,
                    contiguous && src.data.offset % 16 == 0 && mean.handle == 0},
                   {exact(src), codes, scales, mean}, EncodePush{{}, uint32_t(elements), uint32_t(src.cols), uint32_t(src.stride)}, groups_of(elements, group));
}

// mean(scales) into offset, through levels of chunk sums in scratch.
int32_t enqueue_mean(Context &context, uint64_t stream, const qlora_span &scales, uint64_t blocks, const qlora_span &sums, const qlora_span &offset) {
    struct Push {
        PushHeader header;
        uint32_t values, mean_of;
    };
    qlora_span level = scales;
    uint64_t count = blocks, used = 0;
    while (true) {
        const uint64_t chunks = groups_of(count, mean_chunk);
        const bool last = chunks == 1;
        const qlora_span out = last ? offset : part(sums, used, chunks * 4);
        QLORA_TRY(enqueue(context, stream, Shader::quantize_mean, {}, {level, out}, Push{{}, uint32_t(count), uint32_t(last ? blocks : 0)}, chunks));
        if (last) return QLORA_OK;
        used += align_scratch(chunks * 4);
        level = out;
        count = chunks;
    }
}

uint64_t sums_bytes(uint64_t blocks) {
    uint64_t bytes = 0;
    for (uint64_t count = groups_of(blocks, mean_chunk); count > 1; count = groups_of(count, mean_chunk)) bytes += align_scratch(count * 4);
    return bytes;
}

template <class F> int32_t encode_codebook(Context &context, const qlora_quantize_args &args) {
    const qlora_weight &weight = *args.weight;
    const WeightSpans planes = spans_of(weight);
    const Table table = Codebook<F>::table;
    if (F::scale != Scale::NESTED) return enqueue_codes(context, args.stream, table, F::bits, weight.block, args.src, planes.code, planes.scale, qlora_span{});
    const uint64_t blocks = block_count(weight);
    const qlora_span scales = part(args.scratch, 0, blocks * 4), sums = part(args.scratch, align_scratch(blocks * 4), sums_bytes(blocks));
    QLORA_TRY(enqueue_codes(context, args.stream, table, F::bits, weight.block, args.src, planes.code, scales, qlora_span{}));
    QLORA_TRY(enqueue_mean(context, args.stream, scales, blocks, sums, planes.offset));
    return enqueue_codes(context, args.stream, Table::DYN8, 8, weight.nested_block, float_tensor(scales, 1, blocks), planes.scale, planes.nested, planes.offset);
}

template <class F> int32_t encode_inline(Context &context, const qlora_quantize_args &args) {
    const uint64_t blocks = block_count(*args.weight);
    return enqueue(context, args.stream, Shader::quantize_inline, {uint32_t(F::codec), uint32_t(args.src.type)}, {exact(args.src), spans_of(*args.weight).code},
                   EncodePush{{}, uint32_t(blocks), uint32_t(args.src.cols), uint32_t(args.src.stride)}, groups_of(blocks, 128));
}

template <Codec C> struct EncodeCodec; // a new codec must be written here

template <> struct EncodeCodec<Codec::FLOAT> {
    template <class F> static int32_t run(Context &context, const qlora_quantize_args &args) {
        const qlora_tensor dst = {F::row.format, 0, args.src.rows, args.src.cols, args.src.cols, args.weight->planes[QLORA_PLANE_CODE]};
        return enqueue_dequantize(context, args.stream, "qlora_weight_quantize", weight_of(args.src), args.src.stride, qlora_span{}, dst);
    }
};
template <> struct EncodeCodec<Codec::CODEBOOK4> {
    template <class F> static int32_t run(Context &context, const qlora_quantize_args &args) { return encode_codebook<F>(context, args); }
};
template <> struct EncodeCodec<Codec::CODEBOOK8> {
    template <class F> static int32_t run(Context &context, const qlora_quantize_args &args) { return encode_codebook<F>(context, args); }
};
template <> struct EncodeCodec<Codec::OFFSET4> {
    template <class F> static int32_t run(Context &context, const qlora_quantize_args &args) { return encode_inline<F>(context, args); }
};
template <> struct EncodeCodec<Codec::SIGNED8> {
    template <class F> static int32_t run(Context &context, const qlora_quantize_args &args) { return encode_inline<F>(context, args); }
};

} // namespace

uint64_t quantize_scratch(Context &, const qlora_quantize_args &args) {
    if (format_row(args.weight->format)->scale != Scale::NESTED) return 0;
    const uint64_t blocks = block_count(*args.weight);
    return align_scratch(blocks * 4) + sums_bytes(blocks);
}

int32_t quantize(Context &context, const qlora_quantize_args &args) {
    QLORA_TRY(check_elements(context, "qlora_weight_quantize", args.src.rows * args.src.stride));
    return with_format(args.weight->format, QLORA_ERROR_FORMAT, [&](auto row) -> int32_t {
        using F = decltype(row);
        return EncodeCodec<F::codec>::template run<F>(context, args);
    });
}

} // namespace vulkan
} // namespace qlora
