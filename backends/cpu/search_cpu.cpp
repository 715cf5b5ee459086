// encode<F> of interleaved blocks by backends/search: plain C++ outside every target region, so that files do not depend on
// the machine that wrote them. Rows run in parallel with importance, which looks at whole rows; runs of blocks without.
#include "backends/cpu/quantize_cpu.h"
#include "backends/search/encode_four.h"

namespace qlora {
namespace cpu {

namespace {

// blocks consecutive blocks of a row from src on; MXFP4 blocks lie at odd addresses.
template <class F, class Bytes> void encode_blocks(search::Source source, uint64_t blocks, uint8_t *code) {
    for (uint64_t b = 0; b < blocks; b++, code += sizeof(Bytes)) {
        Bytes bytes;
        search::Encode<F>::block(source, bytes);
        std::memcpy(code, &bytes, sizeof bytes);
        source.x += F::block;
        source.first += F::block;
        if (source.importance) source.importance += F::block;
    }
}
typedef void (*EncodeBlocks)(search::Source source, uint64_t blocks, uint8_t *code);

template <class F, Codec C = F::codec> struct Searched {
    static constexpr EncodeBlocks encode = nullptr;
};
template <class F> struct Searched<F, Codec::BLOCK> {
    static constexpr EncodeBlocks encode = encode_blocks<F, typename F::Bytes>;
};
template <class F> struct Searched<F, Codec::OFFSET4> {
    static constexpr EncodeBlocks encode = encode_blocks<F, BlockQ4_0>;
};

EncodeBlocks encoder(int32_t format) {
    return with_format(format, EncodeBlocks(nullptr), [](auto row) { return Searched<decltype(row)>::encode; });
}

} // namespace

bool is_searched(const qlora_quantize_args &args) {
    const Codec codec = format_row(args.weight->format)->codec;
    return codec == Codec::BLOCK || (codec == Codec::OFFSET4 && args.importance.handle);
}

int32_t quantize_searched(Context &context, const qlora_quantize_args &args) {
    const qlora_weight &weight = *args.weight;
    const FormatRow &row = *format_row(weight.format);
    const float *importance = optional<const float>(args.importance);
    const EncodeBlocks encode = encoder(weight.format);
    uint8_t *code = address<uint8_t>(weight.planes[QLORA_PLANE_CODE]);
    // A unit is a row, or a run of elements whose end may lie in any row: blocks do not straddle them.
    const uint64_t count = element_count(weight), unit_size = importance ? weight.cols : unit_elements;
    FirstBad bad(count);
    parallel(context, divide_up(count, unit_size), [&](uint64_t unit, uint32_t) {
        const uint64_t begin = unit * unit_size, end = least(begin + unit_size, count);
        float x[unit_elements], sum = 0; // of squares, from the row's first element to its last
        for (uint64_t i = begin; importance && i < end; i += unit_elements) {
            const uint64_t here = least(unit_elements, end - i);
            load_elements(context, args, i, here, x);
            for (uint64_t j = 0; j < here; j++) sum += x[j] * x[j];
        }
        for (uint64_t i = begin; i < end; i += unit_elements) {
            const uint64_t here = least(unit_elements, end - i);
            load_elements(context, args, i, here, x);
            if (bad.found(kernels_of(context).find_not_finite(x, here), here, i)) return;
            const float *of_columns = importance ? importance + (i - begin) : nullptr;
            encode(search::Source{x, of_columns, importance ? sum / float(weight.cols) : 0.0f, (args.flags & QLORA_FLAG_STOCHASTIC) != 0, args.seed, i, weight.tensor_scale},
                   here / row.block, code + i / row.block * row.block_bytes);
        }
    });
    return bad.status(context, weight);
}

} // namespace cpu
} // namespace qlora
