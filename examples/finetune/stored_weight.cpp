#include "stored_weight.h"

#include "format_choice.h"
#include "packed_gptq.h"

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

StoredWeight view_weight(const GgufTensor &tensor) {
    StoredWeight stored;
    stored.format = format_of(*tensor.type);
    stored.cols = tensor.ne[0];
    stored.rows = tensor.elements / tensor.ne[0];
    stored.dtype = is_float(stored.format) ? stored.format : QLORA_FORMAT_F16;
    stored.planes[QLORA_PLANE_CODE] = tensor.data;
    return stored;
}

HostWeight download_weight(const qlora::Weight &weight) {
    const qlora_weight &about = *weight.get();
    HostWeight host;
    host.format = about.format;
    host.block = about.block;
    host.flags = about.flags;
    host.nested_block = about.nested_block;
    host.rows = about.rows;
    host.cols = about.cols;
    host.outliers = about.outliers;
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
    for (int plane = 0; plane < QLORA_PLANE_COUNT; ++plane)
        if (stored.planes[plane] != nullptr) weight.write_plane(plane, stored.planes[plane]);
    return weight;
}

} // namespace finetune
