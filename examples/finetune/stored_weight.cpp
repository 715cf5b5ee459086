#include "stored_weight.h"

#include "decode.h"
#include "format_choice.h"
#include "packed_gptq.h"

#include <cstring>

namespace finetune {

StoredWeight view_weight(const GgufTensor &tensor) {
    StoredWeight stored;
    stored.format = format_of(*tensor.type);
    stored.cols = tensor.ne[0];
    stored.rows = tensor.elements / tensor.ne[0];
    stored.dtype = is_float(stored.format) ? stored.format : QLORA_FORMAT_F16;
    stored.planes[QLORA_PLANE_CODE] = tensor.data;
    return stored;
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

HostWeight download_weight(const qlora::Weight &weight) {
    const qlora_weight &about = *weight.get();
    HostWeight host;
    host.format = about.format;
    host.block = about.block;
    host.flags = about.flags;
    host.rows = about.rows;
    host.cols = about.cols;
    for (int plane = 0; plane < QLORA_PLANE_COUNT; ++plane) host.planes[plane] = weight.read_plane(plane);
    return host;
}

qlora::Weight upload_weight(const qlora::Context &context, const HostWeight &host) {
    qlora::Weight weight(context, host.format, host.rows, host.cols, host.block, host.flags);
    for (int plane = 0; plane < QLORA_PLANE_COUNT; ++plane)
        if (!host.planes[plane].empty()) weight.write_plane(plane, host.planes[plane].data());
    return weight;
}

qlora::Weight upload_weight(const qlora::Context &context, const StoredWeight &stored) {
    if (stored.gptq.qweight != nullptr) return import_gptq(context, stored);
    qlora::Weight weight(context, stored.format, stored.rows, stored.cols, stored.block);
    for (int plane = 0; plane < QLORA_PLANE_COUNT; ++plane)
        if (stored.planes[plane] != nullptr) weight.write_plane(plane, stored.planes[plane]);
    return weight;
}

} // namespace finetune
