// One tensor under an optimizer on a context: buffers, state and steps, for tests that take many of them.
#pragma once
#include "cpp/qlora.hpp"
#include "tests/support/inputs.h"

#include <cstring>

namespace test {

class Training {
public:
    qlora_optimizer_args args = qlora::make<qlora_optimizer_args>();
    qlora_parameter parameter = qlora::make<qlora_parameter>();

    Training(const qlora::Context &context, int32_t algorithm, const std::vector<float> &value, int32_t value_type = QLORA_FORMAT_F32, bool small = false)
        : context_(context), value_(context, pack(value_type, value)), gradient_(context, value.size() * 4) {
        auto layout = qlora::make<qlora_state_layout_info>();
        parameter.count = value.size();
        parameter.value = value_.span();
        parameter.value_type = value_type;
        parameter.gradient = gradient_.span();
        parameter.state_type = small ? QLORA_FORMAT_DYN8 : QLORA_FORMAT_F32;
        layout.algorithm = args.algorithm = algorithm;
        layout.min_8bit_size = 1;
        context.check(qlora_state_layout(&parameter, &layout));
        state_ = qlora::Buffer(context, layout.total_bytes);
        state_.fill(0);
        context.check(qlora_state_place(&parameter, &layout, state_.span()));
    }

    std::vector<float> value() const { return unpack(parameter.value_type, value_.read<uint8_t>()); }
    std::vector<uint8_t> state() const { return state_.read<uint8_t>(); }

    void step(const std::vector<float> &gradient) {
        gradient_.write(gradient.data(), gradient.size() * 4);
        args.parameters = &parameter;
        args.parameter_count = 1;
        args.step++;
        args.scratch = qlora_span{};
        const uint64_t needed = context_.operation_scratch(QLORA_OP_OPTIMIZER_STEP, args);
        if (needed > scratch_.size()) scratch_ = qlora::Buffer(context_, needed);
        args.scratch = scratch_.span();
        context_.optimizer_step(args);
    }

private:
    const qlora::Context &context_;
    qlora::Buffer value_, gradient_, state_, scratch_;
};

inline double root_mean_square(const std::vector<float> &values) {
    double sum = 0;
    for (float value : values) sum += double(value) * value;
    return std::sqrt(sum / double(values.size()));
}

} // namespace test
