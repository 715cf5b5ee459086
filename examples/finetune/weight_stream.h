// Layers whose weights stay in host memory and pass through two slots on the device: while one layer is computed, the next
// streamed one arrives in the other slot. Streamed layers are spread evenly among the resident ones, so that a transfer has
// as many layers' time as can be had; what both slots hold at a turn of direction is not sent again.
#pragma once

#include "device.h"

namespace finetune {

class WeightStream {
public:
    WeightStream() = default;
    // `streamed` of `layers` layers.
    WeightStream(uint32_t layers, uint32_t streamed);

    bool any() const { return !order_.empty(); }
    bool streams(uint32_t layer) const { return layer < places_.size() && places_[layer].number >= 0; }
    // Takes the slots, and host memory for each streamed layer, whose weights are of these bytes.
    void take(Device &device, const std::vector<uint64_t> &layer_bytes);
    qlora_span host(uint32_t layer) const { return places_[layer].host.span(); }
    qlora_span slot(uint32_t layer) const { return slots_[slot_of(layer)].span(0, places_[layer].host.size()); }

    // Operations enqueued from now on find the layer's weights in their slot. Then the streamed layer that follows in this
    // direction is sent on its way.
    void bring(Device &device, uint32_t layer, bool forward);

private:
    struct Place {
        int32_t number = -1; // among streamed layers
        Memory host;
    };
    size_t slot_of(uint32_t layer) const { return size_t(places_[layer].number) % 2; }
    void send(Device &device, uint32_t layer);

    std::vector<Place> places_;
    std::vector<uint32_t> order_; // streamed layers
    Memory slots_[2];
    int64_t held_[2] = {-1, -1}; // layers
};

} // namespace finetune
