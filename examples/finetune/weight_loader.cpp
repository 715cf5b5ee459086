#include "weight_loader.h"

#include "format_choice.h"
#include "packed_gptq.h"

#include <algorithm>

namespace finetune {
namespace {

const uint64_t part_bytes = uint64_t(64) << 20; // of values that are on the device at a time, where parts are possible

// A weight's layout if it were this many rows.
qlora_weight_layout_info layout_of(qlora_weight weight, uint64_t rows) {
    auto layout = qlora::make<qlora_weight_layout_info>();
    weight.rows = rows;
    qlora_weight_layout(&weight, &layout);
    return layout;
}

// Whether every plane of so many rows has its share of the bytes, so that they can be quantized apart from the others.
bool is_apart(const PlacedWeight &weight, uint64_t rows) {
    const qlora_weight_layout_info part = layout_of(*weight.get(), rows);
    for (int plane = 0; plane < QLORA_PLANE_COUNT; ++plane) {
        const uint64_t whole = weight.layout().plane_bytes[plane];
        if (part.plane_bytes[plane] * weight.get()->rows != whole * rows || part.plane_bytes[plane] % 4 != 0) return false;
    }
    return true;
}

uint64_t rows_at_a_time(const PlacedWeight &weight, uint64_t row_bytes) {
    const uint64_t rows = weight.get()->rows, most = std::max<uint64_t>(64, part_bytes / row_bytes / 64 * 64);
    if (most >= rows) return rows;
    return is_apart(weight, most) && (rows % most == 0 || is_apart(weight, rows % most)) ? most : rows;
}

qlora_weight part_of(const qlora_weight &weight, uint64_t first, uint64_t rows) {
    qlora_weight part = weight;
    part.rows = rows;
    for (qlora_span &plane : part.planes)
        if (rows != weight.rows)
            plane = {plane.handle, plane.offset + plane.size * first / weight.rows, plane.size * rows / weight.rows};
    return part;
}

} // namespace

std::vector<float> decode_weight(const StoredWeight &stored) {
    const qlora::Context context(QLORA_BACKEND_CPU);
    const qlora::Weight weight = upload_weight(context, stored);
    std::vector<float> values(stored.rows * stored.cols);
    auto args = qlora::make<qlora_dequantize_args>();
    args.weight = weight.get();
    args.dst = qlora::tensor(QLORA_FORMAT_F32, stored.rows, stored.cols,
                             {reinterpret_cast<uint64_t>(values.data()), 0, values.size() * sizeof(float)});
    const qlora::Buffer scratch(context, context.operation_scratch(QLORA_OP_DEQUANTIZE, args));
    args.scratch = scratch.span();
    context.weight_dequantize(args);
    return values;
}

void load_ready(Device &device, const HostWeight &ready, const PlacedWeight &weight, qlora_span home) {
    for (int plane = 0; plane < QLORA_PLANE_COUNT; ++plane)
        device.write(plane_span(weight.layout(), home, plane), ready.planes[plane].data(), ready.planes[plane].size());
}

void load_stored(Device &device, const BaseTensor &tensor, const PlacedWeight &weight, qlora_span home) {
    if (device.idle()) return;
    const StoredWeight &stored = tensor.weight;
    if (stored.gptq.qweight != nullptr) return load_ready(device, import_gptq_planes(stored), weight, home);
    for (int plane = 0; plane < QLORA_PLANE_COUNT; ++plane)
        if (stored.planes[plane] != nullptr)
            device.write(plane_span(weight.layout(), home, plane), stored.planes[plane], weight.layout().plane_bytes[plane]);
}

void load_quantized(Device &device, const BaseTensor &tensor, const PlacedWeight &weight, qlora_span home, bool on_host) {
    const StoredWeight &given = tensor.weight;
    const int32_t from = is_float(given.format) ? given.format : int32_t(QLORA_FORMAT_F32);
    const uint64_t rows = given.rows, row_bytes = given.cols * type_bytes(from);
    const uint64_t most = rows_at_a_time(weight, row_bytes);
    const Device::Passing passing(device);
    const Memory source = device.take(most * row_bytes);
    qlora_weight target = *weight.get();
    Memory made;
    if (on_host) {
        made = device.take(weight.size());
        qlora_weight_place(&target, made.span());
    }
    std::vector<float> decoded;
    const uint8_t *values = given.planes[QLORA_PLANE_CODE];
    if (from != given.format && !device.idle()) {
        decoded = decode_weight(given);
        values = reinterpret_cast<const uint8_t *>(decoded.data());
    }
    try {
        for (uint64_t first = 0; first < rows; first += most) {
            const uint64_t count = std::min(most, rows - first);
            const qlora_weight part = part_of(target, first, count);
            device.write(source.span(), values + first * row_bytes, count * row_bytes);
            auto args = qlora::make<qlora_quantize_args>();
            args.weight = &part;
            args.src = qlora::tensor(from, count, given.cols, source.span());
            device.quantize(args, first);
        }
    } catch (const std::runtime_error &error) { fail("tensor ", shown(tensor.own_name), " cannot be quantized: ", error.what()); }
    if (on_host) device.copy(home, made.span(), weight.size());
}

} // namespace finetune
