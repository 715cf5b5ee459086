// The adapter on the device: f32 masters and gradients of every A and B, in two buffers.
#pragma once

#include "adapter.h"
#include "model.h"

namespace finetune {

// A as PEFT begins it, uniform in +-1 / sqrt(inputs), from the seed alone; B zero.
Adapter initial_adapter(const AdapterShape &shape, float alpha, uint64_t seed);

class Trainable {
public:
    // Without gradients where it is not to be trained.
    Trainable(Device &device, const AdapterShape &shape, const Adapter &initial, bool trained = true);

    uint32_t rank() const { return shape_.rank; }
    // scale() times the unit matrix, f32[rank][rank], for products that have no factor of their own.
    qlora_span scaling() const { return scaling_.span(); }
    float scale() const { return alpha_ / float(shape_.rank); }
    const AdapterShape &shape() const { return shape_; }

    // Absent where a layer has no adapter.
    qlora_tensor a(uint32_t layer, Linear linear) const { return view(values_, layer, linear, 0); }
    qlora_tensor b(uint32_t layer, Linear linear) const { return view(values_, layer, linear, 1); }
    qlora_tensor da(uint32_t layer, Linear linear) const { return view(gradients_, layer, linear, 0); }
    qlora_tensor db(uint32_t layer, Linear linear) const { return view(gradients_, layer, linear, 1); }

    // Without state, in the order layer, linear, half (A, B): the order of qlora_gradient_norm's `norms`.
    const std::vector<qlora_parameter> &parameters() const { return parameters_; }
    uint64_t count() const { return count_; } // trained values in all
    uint64_t bytes() const { return values_.size() + gradients_.size(); }

    Adapter download(Device &device) const;

private:
    struct Place {
        uint64_t offset, rows, cols;
    };
    qlora_tensor view(const Memory &buffer, uint32_t layer, Linear linear, int half) const;

    AdapterShape shape_;
    float alpha_;
    uint64_t count_ = 0;
    std::vector<Place> places_;
    Memory values_, gradients_, scaling_;
    std::vector<qlora_parameter> parameters_;
};

} // namespace finetune
