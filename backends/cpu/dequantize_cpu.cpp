// dst[rows][cols] = W, decoded in f32 and rounded once.
#include "backends/cpu/cpu.h"

namespace qlora {
namespace cpu {

namespace {

constexpr uint64_t piece = 1024;           // decoded at a time before it is rounded to 16 bits
constexpr uint64_t unit_elements = 1 << 16; // per task

uint32_t log2_of(uint32_t value) {
    uint32_t bits = 0;
    while (value > 1) value >>= 1, bits++;
    return bits;
}

} // namespace

Planes planes_of(const qlora_weight &weight) {
    Planes planes = {};
    planes.code = optional<const uint8_t>(weight.planes[QLORA_PLANE_CODE]);
    planes.scale = optional<const void>(weight.planes[QLORA_PLANE_SCALE]);
    planes.nested = optional<const float>(weight.planes[QLORA_PLANE_NESTED]);
    if (format_row(weight.format)->scale == Scale::NESTED && planes.nested) planes.offset = *address<const float>(weight.planes[QLORA_PLANE_OFFSET]);
    planes.factor = weight.tensor_scale != 0 ? weight.tensor_scale : 1.0f;
    planes.row = one_scale(weight) ? UINT64_MAX : weight.block;
    planes.block_bits = log2_of(weight.block);
    planes.nested_bits = log2_of(weight.nested_block);
    if (has_groups(*format_row(weight.format)) && planes.code) {
        planes.code_end = planes.code + stream_bytes(element_count(weight), format_row(weight.format)->bits);
        planes.zero = address<const uint8_t>(weight.planes[QLORA_PLANE_ZERO]);
        if (weight.flags & QLORA_WEIGHT_INDEXED) planes.index = address<const int32_t>(weight.planes[QLORA_PLANE_INDEX]);
        planes.cols = weight.cols;
        planes.groups = group_count(weight);
        planes.block = weight.block;
    }
    planes.nested_block = weight.nested_block;
    if (weight.outliers && planes.code) {
        planes.outliers = weight.outliers;
        planes.outlier_offsets = address<const uint32_t>(weight.planes[QLORA_PLANE_OFFSET]);
        planes.outlier_columns = address<const uint32_t>(weight.planes[QLORA_PLANE_COLUMN]);
        planes.outlier_values = address<const uint8_t>(weight.planes[QLORA_PLANE_OUTLIER]);
    }
    return planes;
}

void decode_row(const Kernels &kernels, const Planes &planes, const qlora_weight &weight, uint64_t first, uint64_t count, int32_t type, void *dst) {
    const auto decode = kernels.decode[format_index(weight.format)];
    if (type == QLORA_FORMAT_F32) return decode(planes, first, count, static_cast<float *>(dst));
    float values[piece];
    for (uint64_t i = 0; i < count; i += piece) {
        const uint64_t here = least(piece, count - i);
        decode(planes, first + i, here, values);
        kernels.store[type_index(type)](values, here, static_cast<char *>(dst) + i * 2);
    }
}

uint64_t dequantize_scratch(Context &, const qlora_dequantize_args &) { return 0; }

int32_t dequantize(Context &context, const qlora_dequantize_args &args) {
    const qlora_weight &weight = *args.weight;
    const Planes planes = planes_of(weight);
    const uint64_t count = element_count(weight);
    parallel(context, divide_up(count, unit_elements), [&](uint64_t unit, uint32_t) {
        const uint64_t end = least((unit + 1) * unit_elements, count);
        for (uint64_t i = unit * unit_elements; i < end;) {
            const uint64_t r = i / weight.cols, c = i % weight.cols, here = least(weight.cols - c, end - i);
            decode_row(kernels_of(context), planes, weight, i, here, args.dst.type, element(args.dst, r, c));
            i += here;
        }
    });
    return QLORA_OK;
}

} // namespace cpu
} // namespace qlora
