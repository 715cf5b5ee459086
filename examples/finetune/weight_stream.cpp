#include "weight_stream.h"

#include <algorithm>

namespace finetune {

WeightStream::WeightStream(uint32_t layers, uint32_t streamed) : places_(layers) {
    streamed = std::min(streamed, layers);
    for (uint32_t layer = 0; layer < layers; ++layer) {
        const uint64_t before = uint64_t(layer) * streamed / layers, after = uint64_t(layer + 1) * streamed / layers;
        if (before == after) continue;
        places_[layer].number = int32_t(order_.size());
        order_.push_back(layer);
    }
}

void WeightStream::take(Device &device, const std::vector<uint64_t> &layer_bytes) {
    uint64_t largest = 0;
    for (uint32_t layer : order_) largest = std::max(largest, layer_bytes[layer]);
    for (size_t slot = 0; slot < std::min<size_t>(2, order_.size()); ++slot) slots_[slot] = device.take(largest);
    for (uint32_t layer : order_) places_[layer].host = device.take(layer_bytes[layer], true);
}

void WeightStream::send(Device &device, uint32_t layer) {
    int64_t &held = held_[slot_of(layer)];
    if (held == layer || device.idle()) return;
    device.copy_beside(slot(layer), host(layer), places_[layer].host.size());
    held = layer;
}

void WeightStream::bring(Device &device, uint32_t layer, bool forward) {
    if (!streams(layer)) return;
    send(device, layer);
    device.join();
    const int64_t next = places_[layer].number + (forward ? 1 : -1);
    if (next >= 0 && next < int64_t(order_.size())) send(device, order_[size_t(next)]);
}

} // namespace finetune
