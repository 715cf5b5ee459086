#include "placed_weight.h"

#include "format_choice.h"

namespace finetune {

PlacedWeight::PlacedWeight(const qlora_weight &shape) : weight_(shape), layout_(qlora::make<qlora_weight_layout_info>()) {
    weight_.struct_size = sizeof(weight_);
    const int32_t status = qlora_weight_layout(&weight_, &layout_);
    if (status == QLORA_ERROR_ARGUMENT && weight_.block != 0)
        fail(format_name(weight_.format), " takes no block of ", weight_.block, " values");
    if (status != QLORA_OK)
        fail(format_name(weight_.format), " does not take a matrix of ", weight_.rows, " x ", weight_.cols);
}

void PlacedWeight::place(qlora_span memory) {
    if (qlora_weight_place(&weight_, memory) != QLORA_OK) fail("internal: a weight does not fit into its memory");
}

bool PlacedWeight::is_in(const StoredWeight &stored, bool aligned) const {
    if (stored.gptq.qweight != nullptr) return false;
    for (int plane = 0; plane < QLORA_PLANE_COUNT; ++plane) {
        const uint8_t *data = stored.planes[plane];
        if (layout_.plane_bytes[plane] > 0 && (data == nullptr || (aligned && reinterpret_cast<uint64_t>(data) % 4 != 0))) return false;
    }
    return true;
}

void PlacedWeight::borrow(const StoredWeight &stored) {
    for (int plane = 0; plane < QLORA_PLANE_COUNT; ++plane)
        if (layout_.plane_bytes[plane] > 0)
            weight_.planes[plane] = {reinterpret_cast<uint64_t>(stored.planes[plane]), 0, layout_.plane_bytes[plane]};
}

uint64_t PlacedWeight::plane_bytes() const {
    uint64_t bytes = 0;
    for (uint64_t plane : layout_.plane_bytes) bytes += plane;
    return bytes;
}

} // namespace finetune
