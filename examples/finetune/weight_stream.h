// Layers whose weights stay in host memory and pass through two slots on the device: while one layer is computed, the next
// streamed one arrives in the other slot. Streamed layers are spread evenly among the resident ones, so that a transfer has
// as many layers' time as can be had; what both slots hold at a turn of direction is not sent again. Some of them, evenly again,
// may have no copy in host memory: theirs come from the mapped file by way of two places that the device copies from. Host,
// transfer and device then work on three layers at a time.
#pragma once

#include "device.h"

namespace finetune {

class WeightStream {
public:
    WeightStream() = default;
    // `streamed` of `layers` layers, `from_file` of them without a copy.
    WeightStream(uint32_t layers, uint32_t streamed, uint32_t from_file = 0);

    bool any() const { return !order_.empty(); }
    bool streams(uint32_t layer) const { return layer < places_.size() && places_[layer].number >= 0; }
    bool reads_file(uint32_t layer) const { return streams(layer) && places_[layer].from_file; }
    // Takes the slots, and host memory for each streamed layer that has a copy; a layer's weights are of these bytes.
    void take(Device &device, const std::vector<uint64_t> &layer_bytes);
    qlora_span host(uint32_t layer) const { return places_[layer].host.span(); }
    qlora_span slot(uint32_t layer) const { return slots_[slot_of(layer)].span(0, places_[layer].bytes); }
    // Bytes of a layer that reads the file, and where in its slot they belong.
    void add_source(uint32_t layer, const uint8_t *data, uint64_t offset, uint64_t bytes) {
        places_[layer].sources.push_back({data, offset, bytes});
    }

    // Operations enqueued from now on find the layer's weights in their slot. Then the streamed layer that follows in this
    // direction is sent on its way.
    void bring(Device &device, uint32_t layer, bool forward);

private:
    struct Source {
        const uint8_t *data;
        uint64_t offset, bytes;
    };
    struct Place {
        int32_t number = -1; // among streamed layers
        bool from_file = false;
        uint64_t bytes = 0;
        Memory host;
        std::vector<Source> sources;
    };
    // Where a layer's bytes wait on their way from the file.
    struct Passage {
        Memory memory;
        bool busy = false; // a transfer from it may not be done
    };
    size_t slot_of(uint32_t layer) const { return size_t(places_[layer].number) % 2; }
    bool is_held(uint32_t layer) const { return held_[slot_of(layer)] == layer; }
    void prepare(Device &device, uint32_t layer);
    void send(Device &device, uint32_t layer);

    std::vector<Place> places_;
    std::vector<uint32_t> order_; // streamed layers
    Memory slots_[2];
    Passage passages_[2];
    size_t passage_ = 0; // that the next layer takes
    int64_t held_[2] = {-1, -1}; // layers
};

} // namespace finetune
