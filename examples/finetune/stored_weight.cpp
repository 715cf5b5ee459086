#include "stored_weight.h"

#include "format_choice.h"

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

qlora::Weight upload_weight(const qlora::Context &context, const StoredWeight &stored) {
    qlora::Weight weight(context, stored.format, stored.rows, stored.cols, stored.block);
    for (int plane = 0; plane < QLORA_PLANE_COUNT; ++plane)
        if (stored.planes[plane] != nullptr) weight.write_plane(plane, stored.planes[plane]);
    return weight;
}

} // namespace finetune
