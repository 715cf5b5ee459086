#include "trainable.h"

#include "rng.h"

#include <cmath>
#include <cstring>

namespace finetune {

Adapter initial_adapter(const AdapterShape &shape, float alpha, uint64_t seed) {
    Adapter adapter;
    adapter.alpha = alpha;
    for (size_t i = 0; i < shape.pairs(); ++i) {
        AdapterPair pair = {shape.linear(i).inputs, shape.linear(i).outputs, {}, {}};
        const float bound = 1 / std::sqrt(float(pair.inputs));
        Random random(seed, i);
        pair.a.resize(shape.rank * pair.inputs);
        for (float &value : pair.a) value = (2 * random.next_uniform() - 1) * bound;
        pair.b.assign(shape.rank * pair.outputs, 0.0f);
        adapter.pairs.push_back(std::move(pair));
    }
    return adapter;
}

Trainable::Trainable(Device &device, const AdapterShape &shape, const Adapter &initial, bool trained)
    : shape_(shape), alpha_(initial.alpha) {
    uint64_t bytes = 0;
    for (const AdapterPair &pair : initial.pairs)
        for (const bool half : {false, true}) {
            const Place next = half ? Place{bytes, pair.outputs, shape.rank} : Place{bytes, shape.rank, pair.inputs};
            places_.push_back(next);
            count_ += next.rows * next.cols;
            bytes += (next.rows * next.cols * 4 + 255) / 256 * 256;
        }
    for (Memory *memory : {&values_, &gradients_}) {
        if (memory == &gradients_ && !trained) continue;
        const Device::Section section(device, memory == &values_ ? "adapter" : "gradients");
        *memory = device.take(bytes);
        device.fill_zero(memory->span(), bytes);
    }
    const Device::Section section(device, "adapter");
    std::vector<float> scaling(uint64_t(rank()) * rank(), 0.0f);
    for (uint32_t i = 0; i < rank(); ++i) scaling[uint64_t(i) * (rank() + 1)] = scale();
    scaling_ = device.take(scaling.size() * sizeof(float));
    device.write(scaling_.span(), scaling.data(), scaling_.size());
    for (size_t i = 0; i < places_.size(); ++i) {
        const Place &at = places_[i];
        const uint64_t size = at.rows * at.cols * 4;
        const AdapterPair &pair = initial.pairs[i / 2];
        device.write(values_.span(at.offset, size), i % 2 == 0 ? pair.a.data() : pair.b.data(), size);
        auto parameter = qlora::make<qlora_parameter>();
        parameter.count = at.rows * at.cols;
        parameter.value = values_.span(at.offset, size);
        if (trained) parameter.gradient = gradients_.span(at.offset, size);
        parameters_.push_back(parameter);
    }
}

qlora_tensor Trainable::view(const Memory &buffer, uint32_t layer, Linear linear, int half) const {
    const size_t pair = shape_.pair(layer, linear);
    if (pair == shape_.pairs()) return {};
    const Place &at = places_[2 * pair + size_t(half)];
    return qlora::tensor(QLORA_FORMAT_F32, at.rows, at.cols, buffer.span(at.offset, at.rows * at.cols * 4));
}

Adapter Trainable::download(Device &device) const {
    std::vector<char> bytes(values_.size());
    device.read(values_.span(), bytes.data(), bytes.size());
    Adapter adapter;
    adapter.alpha = alpha_;
    for (size_t i = 0; i < shape_.pairs(); ++i) {
        AdapterPair pair = {shape_.linear(i).inputs, shape_.linear(i).outputs, {}, {}};
        for (size_t half : {0, 1}) {
            const Place &at = places_[2 * i + half];
            std::vector<float> &values = half == 0 ? pair.a : pair.b;
            values.resize(at.rows * at.cols);
            memcpy(values.data(), &bytes[at.offset], values.size() * 4);
            for (float value : values)
                if (!std::isfinite(value))
                    fail("the trained adapter holds values that are not finite; lower --learning-rate");
        }
        adapter.pairs.push_back(std::move(pair));
    }
    return adapter;
}

} // namespace finetune
