#include "weight_stream.h"

#include <algorithm>

namespace finetune {
namespace {

// Whether number i is one of `some` that are spread evenly among `all`.
bool is_one_of(uint64_t i, uint64_t some, uint64_t all) { return i * some / all != (i + 1) * some / all; }

} // namespace

WeightStream::WeightStream(uint32_t layers, uint32_t streamed, uint32_t from_file) : places_(layers) {
    streamed = std::min(streamed, layers);
    from_file = std::min(from_file, streamed);
    for (uint32_t layer = 0; layer < layers; ++layer) {
        if (!is_one_of(layer, streamed, layers)) continue;
        places_[layer].number = int32_t(order_.size());
        places_[layer].from_file = is_one_of(order_.size(), from_file, streamed);
        order_.push_back(layer);
    }
}

void WeightStream::take(Device &device, const std::vector<uint64_t> &layer_bytes) {
    uint64_t largest = 0;
    for (uint32_t layer : order_) largest = std::max(largest, places_[layer].bytes = layer_bytes[layer]);
    for (size_t slot = 0; slot < std::min<size_t>(2, order_.size()); ++slot) slots_[slot] = device.take(largest);
    for (uint32_t layer : order_)
        if (!places_[layer].from_file) places_[layer].host = device.take(layer_bytes[layer], true);
}

void WeightStream::send(Device &device, uint32_t layer) {
    int64_t &held = held_[slot_of(layer)];
    if (held == layer || device.idle()) return;
    const Place &place = places_[layer];
    if (place.from_file) {
        for (const Source &source : place.sources) device.write(part(slot(layer), source.offset, source.bytes), source.data, source.bytes);
    } else {
        device.copy_beside(slot(layer), host(layer), place.bytes);
    }
    held = layer;
}

void WeightStream::bring(Device &device, uint32_t layer, bool forward) {
    if (!streams(layer)) return;
    send(device, layer);
    device.join();
    // What is written in the order of the work is not written before it is needed: the device would wait for it sooner.
    const int64_t next = places_[layer].number + (forward ? 1 : -1);
    if (next >= 0 && next < int64_t(order_.size()) && !places_[order_[size_t(next)]].from_file) send(device, order_[size_t(next)]);
}

} // namespace finetune
