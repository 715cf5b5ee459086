#include "stored_weight.h"

#include "decode.h"
#include "format_choice.h"
#include "packed_gptq.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace finetune {
namespace {

template <class Held> qlora_weight shape_of(const Held &held) {
    auto shape = qlora::make<qlora_weight>();
    shape.format = held.format;
    shape.block = held.block;
    shape.nested_block = held.nested_block;
    shape.flags = held.flags;
    shape.rows = held.rows;
    shape.cols = held.cols;
    shape.outliers = held.outliers;
    return shape;
}

} // namespace

qlora_weight weight_shape(const StoredWeight &stored) {
    qlora_weight shape = shape_of(stored);
    shape.tensor_scale = stored.tensor_scale;
    return shape;
}

qlora_weight weight_shape(const HostWeight &host) { return shape_of(host); }

StoredWeight view_weight(const GgufTensor &tensor) {
    StoredWeight stored;
    stored.format = format_of(*tensor.type);
    stored.cols = tensor.ne[0];
    stored.rows = tensor.elements / tensor.ne[0];
    stored.dtype = is_float(stored.format) ? stored.format : QLORA_FORMAT_F16;
    stored.planes[QLORA_PLANE_CODE] = tensor.data;
    return stored;
}

std::string tensor_scale_name(const std::string &weight_name) {
    const std::string ending = ".weight";
    const bool has = weight_name.size() > ending.size() &&
                     weight_name.compare(weight_name.size() - ending.size(), ending.size(), ending) == 0;
    return weight_name.substr(0, weight_name.size() - (has ? ending.size() : 0)) + ".scale";
}

const GgufTensor *find_tensor_scale(const Gguf &file, const GgufTensor &tensor) {
    const std::string name(tensor.name);
    const GgufTensor *found = file.find_tensor(tensor_scale_name(name));
    return found != nullptr ? found : file.find_tensor(name + ".scale");
}

StoredWeight view_weight(const Gguf &file, const GgufTensor &tensor) {
    StoredWeight stored = view_weight(tensor);
    const GgufTensor *scale = find_tensor_scale(file, tensor);
    if (scale == nullptr || stored.format == 0 || stored.rows == 1) return stored;
    if (scale->type->id != type_f32 || scale->elements != 1)
        file.reject("tensor ", shown(scale->name), " is no scale of one F32 value, which ", shown(tensor.name), " needs");
    memcpy(&stored.tensor_scale, scale->data, sizeof(float));
    if (stored.format != QLORA_FORMAT_NVFP4 && stored.tensor_scale != 1.0f)
        file.reject("tensor ", shown(scale->name), ": a scale per tensor is supported for NVFP4 only, but ",
                    shown(tensor.name), " is ", tensor.type->name);
    if (stored.format != QLORA_FORMAT_NVFP4) stored.tensor_scale = 0;
    else if (!(stored.tensor_scale >= 0x1p-100f && stored.tensor_scale <= 0x1p100f))
        file.reject("tensor ", shown(scale->name), " is ", stored.tensor_scale, ", expected a scale above zero");
    return stored;
}

float recipe_tensor_scale(const std::vector<float> &values) {
    float absmax = 0;
    for (float value : values) absmax = std::max(absmax, std::fabs(value));
    const float scale = absmax / 2688; // 6 * 448
    return scale >= 0x1p-100f ? scale : 0;
}

std::vector<float> decode_floats(const StoredWeight &weight) {
    std::vector<float> values(weight.rows * weight.cols);
    const uint8_t *data = weight.planes[QLORA_PLANE_CODE];
    if (weight.format == QLORA_FORMAT_F32) {
        memcpy(values.data(), data, values.size() * sizeof(float));
        return values;
    }
    for (float &value : values) {
        uint16_t bits;
        memcpy(&bits, data, sizeof(bits));
        data += sizeof(bits);
        value = weight.format == QLORA_FORMAT_F16 ? half_to_float(bits) : bfloat_to_float(bits);
    }
    return values;
}

namespace {

// bitsandbytes' second level of scales, decoded.
std::vector<float> plain_scales(const StoredWeight &weight, uint64_t count) {
    const std::vector<float> &table = code_table(QLORA_FORMAT_DYN8);
    const uint64_t nested_block = 256;
    float offset;
    memcpy(&offset, weight.planes[QLORA_PLANE_OFFSET], sizeof(offset));
    std::vector<float> scales(count);
    for (uint64_t i = 0; i < count; ++i) {
        float nested;
        memcpy(&nested, weight.planes[QLORA_PLANE_NESTED] + 4 * (i / nested_block), sizeof(nested));
        const float product = table[weight.planes[QLORA_PLANE_SCALE][i]] * nested;
        scales[i] = product + offset;
    }
    return scales;
}

} // namespace

void reorder_rows(StoredWeight &weight, const std::vector<uint64_t> &from, const std::string &name) {
    if (weight.gptq.qweight != nullptr) {
        reorder_gptq_rows(weight, from);
        return;
    }
    const uint64_t rows = from.size(), cols = weight.rows * weight.cols / rows;
    const bool nested = weight.format == QLORA_FORMAT_NF4_DQ || weight.format == QLORA_FORMAT_FP4_DQ,
               four_bits = nested || weight.format == QLORA_FORMAT_NF4 || weight.format == QLORA_FORMAT_FP4;
    if (!is_float(weight.format) && weight.format != QLORA_FORMAT_INT8 && !(four_bits && cols % weight.block == 0))
        fail("tensor ", shown(name), ": its rows, q, k and v of one head after the other, cannot be put in order as they are ",
             "quantized; take an F16 base and --quant");
    std::vector<float> scales;
    if (nested) scales = plain_scales(weight, rows * cols / weight.block);
    struct Plane {
        int index;
        const uint8_t *data;
        uint64_t row_bytes;
    };
    const uint64_t value_bytes = weight.format == QLORA_FORMAT_F32 ? 4 : 2;
    const bool scaled = !is_float(weight.format);
    const Plane planes[2] = {
        {QLORA_PLANE_CODE, weight.planes[QLORA_PLANE_CODE], !scaled ? cols * value_bytes : four_bits ? cols / 2 : cols},
        {QLORA_PLANE_SCALE,
         nested ? reinterpret_cast<const uint8_t *>(scales.data()) : weight.planes[QLORA_PLANE_SCALE],
         !scaled ? 0 : four_bits ? cols / weight.block * 4 : 4}};
    std::vector<float> made;
    const auto floats = [&](const Plane &plane) { return (rows * plane.row_bytes + 3) / 4; };
    made.resize(floats(planes[0]) + floats(planes[1]));
    uint8_t *to = reinterpret_cast<uint8_t *>(made.data());
    for (const Plane &plane : planes) {
        if (plane.row_bytes == 0) continue;
        for (uint64_t row = 0; row < rows; ++row)
            memcpy(to + row * plane.row_bytes, plane.data + from[row] * plane.row_bytes, plane.row_bytes);
        weight.planes[plane.index] = to;
        to += floats(plane) * 4;
    }
    if (nested) {
        weight.format -= 1;
        weight.planes[QLORA_PLANE_NESTED] = weight.planes[QLORA_PLANE_OFFSET] = nullptr;
        weight.decoded = true;
    }
    weight.made = std::move(made);
}

HostWeight host_weight(const qlora_weight &shape) {
    HostWeight host;
    host.format = shape.format;
    host.block = shape.block;
    host.flags = shape.flags;
    host.nested_block = shape.nested_block;
    host.rows = shape.rows;
    host.cols = shape.cols;
    host.outliers = shape.outliers;
    return host;
}

HostWeight download_weight(const qlora::Weight &weight) {
    HostWeight host = host_weight(*weight.get());
    for (int plane = 0; plane < QLORA_PLANE_COUNT; ++plane) host.planes[plane] = weight.read_plane(plane);
    return host;
}

void shrink_outliers(HostWeight &weight, uint64_t outliers) {
    weight.outliers = outliers;
    weight.planes[QLORA_PLANE_COLUMN].resize(outliers * 4);
    weight.planes[QLORA_PLANE_OUTLIER].resize(outliers * 2);
    if (outliers == 0) weight.planes[QLORA_PLANE_OFFSET].clear();
}

qlora::Weight upload_weight(const qlora::Context &context, const HostWeight &host) {
    qlora::Weight weight(context, shape_of(host));
    for (int plane = 0; plane < QLORA_PLANE_COUNT; ++plane)
        if (!host.planes[plane].empty()) weight.write_plane(plane, host.planes[plane].data());
    return weight;
}

qlora::Weight upload_weight(const qlora::Context &context, const StoredWeight &stored) {
    if (stored.gptq.qweight != nullptr) return import_gptq(context, stored);
    qlora::Weight weight(context, shape_of(stored));
    weight.set_tensor_scale(stored.tensor_scale);
    for (int plane = 0; plane < QLORA_PLANE_COUNT; ++plane)
        if (stored.planes[plane] != nullptr) weight.write_plane(plane, stored.planes[plane]);
    return weight;
}

} // namespace finetune
