// encode<F>, selected by codec: codebooks with their planes of scales, ggml blocks, plain floats.
#include "backends/vulkan/int8_vulkan.h"

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

// Scales of small floats with f32 scales: absmax in stages of at most 2^11, the maxima between them in scratch.
constexpr uint32_t stage_shift = 11;
uint32_t stages_of(uint32_t shift) { return (shift + stage_shift - 1) / stage_shift; }

uint64_t maxima_bytes(uint64_t elements, uint32_t shift) {
    uint64_t bytes = 0;
    for (uint32_t stages = stages_of(shift); stages > 1; stages--) {
        const uint32_t now = (shift + stages - 1) / stages;
        elements = groups_of(elements, uint64_t(1) << now);
        shift -= now;
        bytes += align_scratch(elements * 4);
    }
    return bytes;
}

int32_t enqueue_absmax(Context &context, const qlora_quantize_args &args, uint32_t shift, uint32_t largest, const qlora_span &scales) {
    qlora_tensor src = args.src;
    uint64_t elements = src.rows * src.cols, used = 0;
    for (uint32_t stages = stages_of(shift); stages > 0; stages--) {
        const uint32_t now = (shift + stages - 1) / stages;
        const uint64_t maxima = groups_of(elements, uint64_t(1) << now);
        const qlora_span out = stages == 1 ? scales : part(args.scratch, used, maxima * 4);
        QLORA_TRY(enqueue(context, args.stream, Shader::quantize_absmax, {uint32_t(src.type), src.stride == src.cols || src.rows == 1, now, stages == 1 ? largest : 0},
                          {exact(src), out}, EncodePush{{}, uint32_t(elements), uint32_t(src.cols), uint32_t(src.stride)}, groups_of(elements, 2048)));
        used += align_scratch(maxima * 4);
        shift -= now;
        elements = maxima;
        src = float_tensor(out, 1, maxima);
    }
    return QLORA_OK;
}

template <class F> int32_t encode_narrow(Context &context, const qlora_quantize_args &args) {
    struct Push {
        PushHeader header;
        uint32_t elements, cols, stride, rule, seed_low, seed_high;
    };
    const qlora_weight &weight = *args.weight;
    const WeightSpans planes = spans_of(weight);
    const qlora_tensor &src = args.src;
    const uint64_t elements = element_count(weight);
    if (F::scale == Scale::F32) QLORA_TRY(enqueue_absmax(context, args, shift_of(weight.block), narrow_bits<F>(F::maximum), planes.scale));
    return enqueue(context, args.stream, Shader::quantize_narrow,
                   {uint32_t(src.type), src.stride == src.cols || src.rows == 1, shift_of(weight.block), F::scale == Scale::E8M0, (args.flags & QLORA_FLAG_STOCHASTIC) != 0, F::bits,
                    F::mantissa, F::bias, F::maximum},
                   {exact(src), planes.code, planes.scale},
                   Push{{}, uint32_t(elements), uint32_t(src.cols), uint32_t(src.stride), uint32_t(args.power), uint32_t(args.seed), uint32_t(args.seed >> 32)}, groups_of(elements, 32 * 64));
}

template <class F> int32_t encode_inline(Context &context, const qlora_quantize_args &args) {
    const uint64_t blocks = block_count(*args.weight);
    return enqueue(context, args.stream, Shader::quantize_inline, {uint32_t(F::codec), uint32_t(args.src.type)}, {exact(args.src), spans_of(*args.weight).code},
                   EncodePush{{}, uint32_t(blocks), uint32_t(args.src.cols), uint32_t(args.src.stride)}, groups_of(blocks, 128));
}

// Interleaved formats whose encoder is a closed form, quantize_closed_vulkan.comp. The others search, which runs on the host.
template <class F> struct Closed { static constexpr bool value = false; };
template <> struct Closed<Format<QLORA_FORMAT_Q4_1>> { static constexpr bool value = true; };
template <> struct Closed<Format<QLORA_FORMAT_Q5_0>> { static constexpr bool value = true; };
template <> struct Closed<Format<QLORA_FORMAT_Q5_1>> { static constexpr bool value = true; };
template <> struct Closed<Format<QLORA_FORMAT_MXFP4>> { static constexpr bool value = true; };
template <> struct Closed<Format<QLORA_FORMAT_NVFP4>> { static constexpr bool value = true; };

int32_t absent(Context &context, const char *what) {
    return context.fail(QLORA_ERROR_UNSUPPORTED, "qlora_weight_quantize: vulkan has no search for %s; quantize on cpu and write the planes to the device", what);
}

template <class F> int32_t encode_closed(Context &context, const qlora_quantize_args &args) {
    struct Push {
        PushHeader header;
        uint32_t blocks, cols, stride, each, seed_low, seed_high, tensor_scale;
    };
    if (!Closed<F>::value) return absent(context, F::row.name);
    const uint64_t blocks = block_count(*args.weight);
    const uint32_t each = F::block_bytes % 4 == 0 ? 1 : F::block_bytes % 2 == 0 ? 2 : 4; // blocks of a whole number of words
    return enqueue(context, args.stream, Shader::quantize_closed,
                   {uint32_t(F::row.format), uint32_t(args.src.type), F::block, F::block_bytes, F::bits, (args.flags & QLORA_FLAG_STOCHASTIC) != 0},
                   {exact(args.src), spans_of(*args.weight).code},
                   Push{{}, uint32_t(blocks), uint32_t(args.src.cols), uint32_t(args.src.stride), each, uint32_t(args.seed), uint32_t(args.seed >> 32),
                        args.weight->tensor_scale != 0 ? factor_bits(*args.weight) : 0u}, groups_of(blocks, 64 * each));
}

template <Codec C> struct EncodeCodec; // a new codec must be written here

template <> struct EncodeCodec<Codec::FLOAT> {
    template <class F> static int32_t run(Context &context, const qlora_quantize_args &args) {
        const qlora_tensor dst = {F::row.format, 0, args.src.rows, args.src.cols, args.src.cols, args.weight->planes[QLORA_PLANE_CODE]};
        return enqueue_dequantize(context, args.stream, "qlora_weight_quantize", weight_of(args.src), args.src.stride, Gather{}, dst);
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
template <> struct EncodeCodec<Codec::BLOCK> {
    template <class F> static int32_t run(Context &context, const qlora_quantize_args &args) { return encode_closed<F>(context, args); }
};
template <> struct EncodeCodec<Codec::ABSMAX8> {
    template <class F> static int32_t run(Context &context, const qlora_quantize_args &args) {
        const WeightSpans planes = spans_of(*args.weight);
        const uint64_t bytes = args.src.rows * 4;
        RowCodes job = {};
        job.x = args.src;
        job.one = one_scale(*args.weight);
        job.absmax = planes.scale;
        job.inverse = part(args.scratch, 0, bytes);
        job.maxima = part(args.scratch, align_scratch(bytes), bytes);
        job.codes = planes.code;
        job.padded = args.src.cols;
        return enqueue_row_codes(context, args.stream, "qlora_weight_quantize", job);
    }
};
template <> struct EncodeCodec<Codec::NARROW> {
    template <class F> static int32_t run(Context &context, const qlora_quantize_args &args) { return encode_narrow<F>(context, args); }
};
template <> struct EncodeCodec<Codec::AFFINE> {
    template <class F> static int32_t run(Context &context, const qlora_quantize_args &) { return absent(context, F::row.name); }
};
template <> struct EncodeCodec<Codec::BILEVEL> {
    template <class F> static int32_t run(Context &context, const qlora_quantize_args &) { return absent(context, F::row.name); }
};

int32_t enqueue_not_finite(Context &context, const qlora_quantize_args &args) {
    const uint64_t elements = args.src.rows * args.src.cols;
    for (uint32_t begins : {1u, 0u})
        QLORA_TRY(enqueue(context, args.stream, Shader::not_finite, {uint32_t(args.src.type), args.src.stride == args.src.cols || args.src.rows == 1, begins},
                          {exact(args.src), part(args.not_finite, 0, 8)}, EncodePush{{}, uint32_t(elements), uint32_t(args.src.cols), uint32_t(args.src.stride)},
                          begins ? 1 : groups_of(elements, 256 * 8)));
    return QLORA_OK;
}

} // namespace

bool encodes(int32_t format) {
    return with_format(format, false, [](auto row) {
        using F = decltype(row);
        return F::codec != Codec::AFFINE && F::codec != Codec::BILEVEL && (F::codec != Codec::BLOCK || Closed<F>::value);
    });
}

uint64_t quantize_scratch(Context &, const qlora_quantize_args &args) {
    const FormatRow &row = *format_row(args.weight->format);
    if (row.codec == Codec::NARROW && row.scale == Scale::F32) return maxima_bytes(element_count(*args.weight), shift_of(args.weight->block));
    if (row.scale == Scale::ROW) return 2 * align_scratch(args.weight->rows * 4);
    if (row.scale != Scale::NESTED) return 0;
    const uint64_t blocks = block_count(*args.weight);
    return align_scratch(blocks * 4) + sums_bytes(blocks);
}

int32_t quantize(Context &context, const qlora_quantize_args &args) {
    QLORA_TRY(check_elements(context, "qlora_weight_quantize", args.src.rows * args.src.stride));
    if (args.not_finite.handle) QLORA_TRY(enqueue_not_finite(context, args));
    return with_format(args.weight->format, QLORA_ERROR_FORMAT, [&](auto row) -> int32_t {
        using F = decltype(row);
        // With importance these search; NVFP4, MXFP4 and all that is not ggml's do not look at it.
        constexpr bool searches = F::codec == Codec::OFFSET4 || (F::codec == Codec::BLOCK && !F::row.stochastic);
        if (searches && args.importance.handle) return absent(context, "blocks with importance");
        return EncodeCodec<F::codec>::template run<F>(context, args);
    });
}

} // namespace vulkan
} // namespace qlora
