// Planes from src: units of whole blocks in parallel; then, for nested scales, the mean of the scales in the fixed order of
// all backends and the scales themselves as dynamic 8-bit codes.
#include "backends/cpu/quantize_cpu.h"

namespace qlora {
namespace cpu {

namespace {

constexpr uint64_t sum_chunk = 4096, sum_lanes = 256;

bool is_nested(const qlora_weight &weight) { return format_row(weight.format)->scale == Scale::NESTED; }

// In a chunk lane l of 256 adds elements l, l + 256, ... in order; then a tree.
float sum_of_chunk(const float *values, uint64_t count) {
    float lane[sum_lanes] = {};
    for (uint64_t i = 0; i < count; i += sum_lanes)
        for (uint64_t l = 0; l < sum_lanes && i + l < count; l++) lane[l] += values[i + l];
    for (uint64_t half = sum_lanes / 2; half >= 1; half /= 2)
        for (uint64_t l = 0; l < half; l++) lane[l] += lane[l + half];
    return lane[0];
}

// Sum of values[count] in chunks, then of the chunks' sums, until one is left. sums holds a value per chunk.
float sum_of(Context &context, const float *values, uint64_t count, float *sums) {
    for (;;) {
        const uint64_t chunks = divide_up(count, sum_chunk);
        if (values != sums) {
            parallel(context, chunks, [&](uint64_t unit, uint32_t) { sums[unit] = sum_of_chunk(values + unit * sum_chunk, least(sum_chunk, count - unit * sum_chunk)); });
        } else {
            for (uint64_t unit = 0; unit < chunks; unit++) sums[unit] = sum_of_chunk(values + unit * sum_chunk, least(sum_chunk, count - unit * sum_chunk));
        }
        if (chunks == 1) return sums[0];
        values = sums;
        count = chunks;
    }
}

// Codes of scales[blocks] minus their mean, by nested blocks.
void nest_scales(Context &context, const qlora_weight &weight, const float *scales, uint64_t blocks, float *sums) {
    const float offset = sum_of(context, scales, blocks, sums) / float(blocks);
    *address<float>(weight.planes[QLORA_PLANE_OFFSET]) = offset;
    uint8_t *codes = address<uint8_t>(weight.planes[QLORA_PLANE_SCALE]);
    float *nested = address<float>(weight.planes[QLORA_PLANE_NESTED]);
    const auto encode = kernels_of(context).encode[format_index(QLORA_FORMAT_DYN8)];
    parallel(context, divide_up(blocks, weight.nested_block), [&](uint64_t unit, uint32_t) {
        float difference[256];
        const uint64_t begin = unit * weight.nested_block, count = least(weight.nested_block, blocks - begin);
        for (uint64_t i = 0; i < count; i++) difference[i] = scales[begin + i] - offset;
        encode(difference, begin, count, weight.nested_block, codes, nested);
    });
}

void tell_not_finite(Context &context, const qlora_quantize_args &args) {
    const uint64_t count = element_count(*args.weight);
    FirstBad bad(count);
    parallel(context, divide_up(count, unit_elements), [&](uint64_t unit, uint32_t) {
        float x[unit_elements];
        const uint64_t first = unit * unit_elements, here = least(unit_elements, count - first);
        load_elements(context, args, first, here, x);
        bad.found(kernels_of(context).find_not_finite(x, here), here, first);
    });
    const uint64_t found = bad.index.load(), first = found == count ? UINT64_MAX : found;
    std::memcpy(address<void>(args.not_finite), &first, sizeof first);
}

} // namespace

uint64_t quantize_scratch(Context &context, const qlora_quantize_args &args) {
    if (format_row(args.weight->format)->codec == Codec::NARROW) return narrow_scratch(*args.weight);
    if (format_row(args.weight->format)->codec == Codec::AFFINE) return affine_scratch(context, *args.weight);
    if (format_row(args.weight->format)->codec == Codec::BILEVEL) return bilevel_scratch(context, *args.weight);
    if (format_row(args.weight->format)->codec == Codec::ABSMAX8) return int8_scratch(*args.weight);
    if (!is_nested(*args.weight)) return 0;
    const uint64_t blocks = block_count(*args.weight);
    return align_scratch(blocks * 4) + align_scratch(divide_up(blocks, sum_chunk) * 4);
}

int32_t quantize(Context &context, const qlora_quantize_args &args) {
    const qlora_weight &weight = *args.weight;
    if (args.not_finite.handle) tell_not_finite(context, args);
    const uint32_t *importance = optional<const uint32_t>(args.importance); // the bits
    for (uint64_t c = 0; importance && c < weight.cols; c++)
        if (importance[c] >= 0x7f800000u) // the sign bit as well
            return context.fail(QLORA_ERROR_VALUE, "qlora_weight_quantize: importance element %llu is NaN, infinite or negative", (unsigned long long)c);
    if (is_searched(args)) return quantize_searched(context, args);
    if (format_row(weight.format)->codec == Codec::NARROW) return quantize_narrow(context, args);
    if (format_row(weight.format)->codec == Codec::AFFINE) return quantize_affine(context, args);
    if (format_row(weight.format)->codec == Codec::BILEVEL) return quantize_bilevel(context, args);
    if (format_row(weight.format)->codec == Codec::ABSMAX8) return quantize_int8(context, args);
    const uint64_t count = element_count(weight), blocks = block_count(weight);
    const bool nested = is_nested(weight);
    uint8_t *code = address<uint8_t>(weight.planes[QLORA_PLANE_CODE]);
    float *scales = nested ? address<float>(args.scratch) : optional<float>(weight.planes[QLORA_PLANE_SCALE]);
    const auto encode = kernels_of(context).encode[format_index(weight.format)];
    FirstBad bad(count);
    parallel(context, divide_up(count, unit_elements), [&](uint64_t unit, uint32_t) {
        float x[unit_elements];
        const uint64_t first = unit * unit_elements, here = least(unit_elements, count - first);
        load_elements(context, args, first, here, x);
        if (!bad.found(kernels_of(context).find_not_finite(x, here), here, first)) encode(x, first, here, weight.block, code, scales);
    });
    QLORA_TRY(bad.status(context, weight));
    if (nested) nest_scales(context, weight, scales, blocks, reinterpret_cast<float *>(address<char>(args.scratch) + align_scratch(blocks * 4)));
    return QLORA_OK;
}

} // namespace cpu
} // namespace qlora
