// encode<F>: bitsandbytes' CUDA results and ggml's reference quantizer, one f32 operation at a time.
#include "backends/ref/blocks_ref.h"
#include "backends/ref/codebooks_ref.h"
#include "backends/search/bilevel.h"
#include "backends/search/encode_four.h"

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

// Rows with a search or a closed form in backends/search.
template <class F, class Bytes> int32_t encode_blocks(const qlora_quantize_args &args) {
    const uint64_t cols = args.src.cols;
    const float *importance = args.importance.handle ? address<const float>(args.importance) : nullptr;
    uint8_t *bytes = address<uint8_t>(args.weight->planes[QLORA_PLANE_CODE]);
    float x[F::block];
    search::Source block = {x, nullptr, 0, (args.flags & QLORA_FLAG_STOCHASTIC) != 0, args.seed, 0, args.weight->tensor_scale};
    for (uint64_t r = 0; r < args.src.rows; r++) {
        float sum = 0;
        for (uint64_t c = 0; importance && c < cols; c++) sum += get(args.src, r, c) * get(args.src, r, c);
        block.row_mean_square = sum / float(cols);
        for (uint64_t c = 0; c < cols; c += F::block, bytes += sizeof(Bytes)) {
            for (uint32_t i = 0; i < F::block; i++) x[i] = get(args.src, r, c + i);
            block.importance = importance ? importance + c : nullptr;
            block.first = r * cols + c;
            Bytes out;
            search::Encode<F>::block(block, out);
            std::memcpy(bytes, &out, sizeof out); // blocks of 17 bytes lie anywhere
        }
    }
    return QLORA_OK;
}

// One block of small floats: scale = absmax / largest value in f32, or a power of two.
template <class F> void encode_narrow(const qlora_quantize_args &args, uint64_t block) {
    const qlora_weight &weight = *args.weight;
    const uint64_t count = element_count(weight), begin = block * weight.block, end = begin + weight.block < count ? begin + weight.block : count;
    uint8_t *codes = address<uint8_t>(weight.planes[QLORA_PLANE_CODE]);
    uint32_t absmax = 0;
    for (uint64_t i = begin; i < end; i++) {
        const uint32_t magnitude = bits_of(source(args, i)) & 0x7fffffffu;
        if (magnitude > absmax) absmax = magnitude;
    }
    float inverse = 0;
    int power = 0;
    if (F::scale == Scale::F32) {
        const float largest = float_of(qlora_f32_from_narrow(F::maximum, F::bits, F::mantissa, F::bias, 0));
        float scale = float_of(absmax) / largest;
        if (scale < smallest_normal) scale = 0;
        if (scale > 0) inverse = 1.0f / scale;
        store(address<void>(weight.planes[QLORA_PLANE_SCALE]), QLORA_FORMAT_F32, block, scale);
    } else {
        const uint32_t code = qlora_e8m0_from_absmax(absmax, F::mantissa, F::bias, F::maximum, uint32_t(args.power));
        address<uint8_t>(weight.planes[QLORA_PLANE_SCALE])[block] = uint8_t(code);
        power = int(code) - 127;
    }
    for (uint64_t i = begin; i < end; i++) {
        const float value = F::scale == Scale::F32 ? source(args, i) * inverse : source(args, i);
        const bool stochastic = (args.flags & QLORA_FLAG_STOCHASTIC) != 0;
        const uint32_t noise = stochastic ? qlora_random(uint(args.seed), uint(args.seed >> 32), uint(i), uint(i >> 32)) : 0;
        const uint32_t code = qlora_narrow_from_f32(bits_of(value), power, F::bits, F::mantissa, F::bias, F::maximum, stochastic, noise);
        if (F::bits == 8) {
            codes[i] = uint8_t(code);
            continue;
        }
        uint8_t *three = codes + i / 4 * 3; // four codes of 6 bits
        const uint32_t at = uint32_t(i % 4 * 6), place = at / 8, shift = at % 8, mask = 63u << shift;
        three[place] = uint8_t((three[place] & ~mask) | code << shift);
        if (shift > 2) three[place + 1] = uint8_t((three[place + 1] & ~(mask >> 8)) | code << shift >> 8);
    }
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
    template <class F> static int32_t run(Context &, const qlora_quantize_args &args) { return encode_blocks<F, BlockQ4_0>(args); }
};
template <> struct EncodeCodec<Codec::BLOCK> {
    template <class F> static int32_t run(Context &, const qlora_quantize_args &args) { return encode_blocks<F, typename F::Bytes>(args); }
};
template <> struct EncodeCodec<Codec::NARROW> {
    template <class F> static int32_t run(Context &, const qlora_quantize_args &args) {
        for (uint64_t b = 0; b < block_count(*args.weight); b++) encode_narrow<F>(args, b);
        return QLORA_OK;
    }
};
template <> struct EncodeCodec<Codec::AFFINE> {
    template <class F> static int32_t run(Context &context, const qlora_quantize_args &args) {
        const qlora_weight &weight = *args.weight;
        Grid room(context, 1, weight.cols);
        QLORA_TRY(room.status());
        float *w = reinterpret_cast<float *>(room.data);
        search::clear_stream_end(address<uint8_t>(weight.planes[QLORA_PLANE_CODE]), element_count(weight), F::bits);
        search::clear_stream_end(address<uint8_t>(weight.planes[QLORA_PLANE_ZERO]), weight.rows * group_count(weight), F::bits);
        for (uint64_t r = 0; r < weight.rows; r++)
            for (uint64_t begin = 0, group = 0; begin < weight.cols; begin += weight.block, group++) {
                const uint64_t end = begin + weight.block < weight.cols ? begin + weight.block : weight.cols, at = r * group_count(weight) + group;
                for (uint64_t c = begin; c < end; c++) w[c] = get(args.src, r, c);
                const search::AffineGrid grid = search::affine_fit(w + begin, end - begin, F::bits, args.flags & QLORA_FLAG_SYMMETRIC, args.flags & QLORA_FLAG_SEARCH);
                std::memcpy(address<char>(weight.planes[QLORA_PLANE_SCALE]) + at * 2, &grid.half, 2);
                search::put_code(address<uint8_t>(weight.planes[QLORA_PLANE_ZERO]), at, F::bits, grid.zero);
                for (uint64_t c = begin; c < end; c++)
                    search::put_code(address<uint8_t>(weight.planes[QLORA_PLANE_CODE]), r * weight.cols + c, F::bits, search::affine_code(w[c], grid, F::bits));
            }
        for (uint64_t c = 0; (weight.flags & QLORA_WEIGHT_INDEXED) && c < weight.cols; c++)
            address<int32_t>(weight.planes[QLORA_PLANE_INDEX])[c] = int32_t(c / weight.block);
        return QLORA_OK;
    }
};
template <> struct EncodeCodec<Codec::BILEVEL> {
    template <class F> static int32_t run(Context &context, const qlora_quantize_args &args) {
        const qlora_weight &weight = *args.weight;
        const uint64_t tile = weight.nested_block < weight.rows ? weight.nested_block : weight.rows;
        Grid ranges(context, 1, tile), grids(context, 1, tile), row(context, 1, weight.cols);
        for (Grid *grid : {&ranges, &grids, &row}) QLORA_TRY(grid->status());
        float *w = reinterpret_cast<float *>(row.data);
        const search::BilevelPlanes planes(weight);
        planes.begin();
        for (uint64_t first = 0; first < weight.rows; first += tile)
            search::round_tile(planes, first, first + tile < weight.rows ? tile : weight.rows - first, reinterpret_cast<search::BilevelRange *>(ranges.data),
                               reinterpret_cast<search::BilevelGrid *>(grids.data), [&](uint64_t r, uint64_t c, uint64_t count) {
                                   for (uint64_t i = 0; i < count; i++) w[i] = get(args.src, r, c + i);
                                   return w;
                               });
        return QLORA_OK;
    }
};
template <> struct EncodeCodec<Codec::ABSMAX8> {
    template <class F> static int32_t run(Context &, const qlora_quantize_args &args) {
        const qlora_weight &weight = *args.weight;
        const uint64_t count = element_count(weight), group = one_scale(weight) ? count : weight.cols;
        for (uint64_t begin = 0; begin < count; begin += group) {
            float absmax = absmax_of(args, begin, begin + group);
            if (absmax < int8_least) absmax = 0;
            store(address<void>(weight.planes[QLORA_PLANE_SCALE]), QLORA_FORMAT_F32, begin / group, absmax);
            for (uint64_t i = begin; i < begin + group; i++)
                address<int8_t>(weight.planes[QLORA_PLANE_CODE])[i] = int8_code(source(args, i), int8_inverse(absmax));
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
    if (args.not_finite.handle) {
        uint64_t first = 0;
        while (first < element_count(*args.weight) && (bits_of(source(args, first)) & 0x7f800000u) != 0x7f800000u) first++;
        if (first == element_count(*args.weight)) first = UINT64_MAX;
        std::memcpy(address<void>(args.not_finite), &first, sizeof first);
    }
    QLORA_TRY(refuse_not_finite(context, "qlora_weight_quantize", args.src));
    for (uint64_t c = 0; args.importance.handle && c < args.src.cols; c++)
        if (bits_of(address<const float>(args.importance)[c]) >= 0x7f800000u) // the sign bit as well
            return context.fail(QLORA_ERROR_VALUE, "qlora_weight_quantize: importance element %llu is NaN, infinite or negative", (unsigned long long)c);
    return with_format(args.weight->format, QLORA_ERROR_FORMAT, [&](auto row) -> int32_t {
        using F = decltype(row);
        return EncodeCodec<F::codec>::template run<F>(context, args);
    });
}

} // namespace ref
} // namespace qlora
