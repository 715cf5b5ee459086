// A weight that lies in memory of its owner, or in a buffer of its own.
#pragma once

#include "device.h"
#include "stored_weight.h"

namespace finetune {

class PlacedWeight {
public:
    PlacedWeight() = default;
    // In memory that place() will name.
    explicit PlacedWeight(const qlora_weight &shape);
    explicit PlacedWeight(qlora::Weight own) : own_(std::move(own)), layout_(own_.layout()) {}

    void place(qlora_span memory);
    // Whether the file holds all planes, in this layout; and using them there, by devices whose memory is the host's, which want
    // them aligned.
    bool is_in(const StoredWeight &stored, bool aligned) const;
    void borrow(const StoredWeight &stored);
    void set_tensor_scale(float scale) { weight_.tensor_scale = scale; }

    const qlora_weight *get() const { return own_.get()->format != 0 ? own_.get() : &weight_; }
    const qlora_weight_layout_info &layout() const { return layout_; }
    uint64_t size() const { return layout_.total_bytes; }
    uint64_t plane_bytes() const; // without padding

private:
    qlora::Weight own_; // its format is 0 where it is none
    qlora_weight weight_ = {};
    qlora_weight_layout_info layout_ = {};
};

// The plane of a weight whose planes lie in `memory` by this layout.
inline qlora_span plane_span(const qlora_weight_layout_info &layout, qlora_span memory, int plane) {
    return {memory.handle, memory.offset + layout.plane_offset[plane], layout.plane_bytes[plane]};
}

} // namespace finetune
