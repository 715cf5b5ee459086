#include "weight_stream.h"

#include <algorithm>
#include <cstring>
#include <system_error>
#include <thread>

namespace finetune {
namespace {

// Whether number i is one of `some` that are spread evenly among `all`.
bool is_one_of(uint64_t i, uint64_t some, uint64_t all) { return i * some / all != (i + 1) * some / all; }

// Pages of a mapped file come in faster to several threads than to one.
void copy_large(uint8_t *dst, const uint8_t *src, uint64_t bytes) {
    const uint64_t piece = uint64_t(8) << 20, most = std::max(1u, std::min(4u, std::thread::hardware_concurrency()));
    const uint64_t threads = std::min(most, 1 + bytes / piece), share = (bytes / threads + 4095) / 4096 * 4096;
    std::vector<std::thread> others;
    others.reserve(size_t(threads));
    for (uint64_t first = share; first < bytes; first += share) {
        const auto copy = [=] { memcpy(dst + first, src + first, std::min(share, bytes - first)); };
        try {
            others.emplace_back(copy);
        } catch (const std::system_error &) { // no thread is to be had
            copy();
        }
    }
    memcpy(dst, src, std::min(share, bytes));
    for (std::thread &other : others) other.join();
}

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
    uint64_t largest = 0, largest_of_file = 0;
    for (uint32_t layer : order_) {
        Place &place = places_[layer];
        place.bytes = layer_bytes[layer];
        largest = std::max(largest, place.bytes);
        if (place.from_file) largest_of_file = std::max(largest_of_file, place.bytes);
    }
    for (size_t slot = 0; slot < std::min<size_t>(2, order_.size()); ++slot) slots_[slot] = device.take(largest);
    for (Passage &passage : passages_) passage.memory = device.take(largest_of_file, true);
    for (uint32_t layer : order_)
        if (!places_[layer].from_file) places_[layer].host = device.take(places_[layer].bytes, true);
}

// The host copies a layer from the file while the device computes what was enqueued. What waits for the other passage's transfer
// comes after it, so that its place is free when the layer after this one needs it.
void WeightStream::prepare(Device &device, uint32_t layer) {
    if (!places_[layer].from_file || device.idle()) return;
    const auto wait = [&] {
        device.context().synchronize();
        for (Passage &passage : passages_) passage.busy = false;
    };
    Passage &here = passages_[passage_], &other = passages_[1 - passage_];
    if (here.busy) wait();
    for (const Source &source : places_[layer].sources) copy_large(here.memory.host() + source.offset, source.data, source.bytes);
    if (other.busy) wait();
}

void WeightStream::send(Device &device, uint32_t layer) {
    if (device.idle()) return;
    const Place &place = places_[layer];
    Passage &passage = passages_[passage_];
    device.copy_beside(slot(layer), place.from_file ? passage.memory.span(0, place.bytes) : place.host.span(), place.bytes);
    if (place.from_file) {
        passage.busy = true;
        passage_ = 1 - passage_;
    }
    held_[slot_of(layer)] = layer;
}

void WeightStream::bring(Device &device, uint32_t layer, bool forward) {
    if (!streams(layer)) return;
    if (!is_held(layer)) {
        prepare(device, layer);
        send(device, layer);
    }
    const int64_t number = places_[layer].number + (forward ? 1 : -1);
    const bool more = number >= 0 && number < int64_t(order_.size()) && !is_held(order_[size_t(number)]);
    if (more) prepare(device, order_[size_t(number)]);
    device.join();
    if (more) send(device, order_[size_t(number)]);
}

} // namespace finetune
