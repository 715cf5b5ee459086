// One training step on memory of somebody else's: forward, gradients, norm and AdamW of a LoRA layer, enqueued on a stream of
// somebody else's. For tests of hosts that record work and replay it.
#pragma once
#include "cpp/qlora.hpp"
#include "tests/support/inputs.h"

#include <functional>
#include <vector>

namespace test {

class Step {
public:
    static constexpr uint64_t tokens = 9, rows = 40, cols = 96, rank = 4;

    // take gives device memory; write and read move bytes when nothing is under way.
    Step(const qlora::Context &context, std::function<qlora_span(uint64_t)> take, std::function<void(qlora_span, const void *)> write, std::function<void(qlora_span, void *)> read)
        : context_(context), write_(std::move(write)), read_(std::move(read)) {
        auto layout = qlora::make<qlora_weight_layout_info>();
        weight_.format = QLORA_FORMAT_NF4_DQ;
        weight_.rows = rows;
        weight_.cols = cols;
        qlora_weight_layout(&weight_, &layout);
        qlora_weight_place(&weight_, take(layout.total_bytes));
        for (uint64_t count : {tokens * cols, tokens * rows, tokens * rank, rank * cols, rows * rank, rank * cols, rows * rank, rank * cols, rows * rank, rank * cols, rows * rank, tokens * cols, uint64_t(1), rows * cols})
            spans_.push_back(take(count * 4));
        scratch_ = take(scratch_bytes);
        reset();
        auto quantize = qlora::make<qlora_quantize_args>();
        quantize.weight = &weight_;
        quantize.src = qlora::tensor(QLORA_FORMAT_F32, rows, cols, spans_[13]);
        quantize.scratch = scratch_;
        context.weight_quantize(quantize);
        context.synchronize();
    }

    // All as before the first step.
    void reset() {
        const std::vector<std::vector<float>> values = {random_values(tokens * cols, 1), {}, {}, random_values(rank * cols, 2, 0.1), random_values(rows * rank, 3, 0.1)};
        for (size_t i = 0; i < spans_.size(); i++) {
            std::vector<float> value(spans_[i].size / 4);
            if (i < values.size() && !values[i].empty()) value = values[i];
            if (i == 13) value = random_values(rows * cols, 4);
            write_(spans_[i], value.data());
        }
    }

    void enqueue(uint64_t stream) const {
        auto tensor = [&](int at, uint64_t r, uint64_t c) { return qlora::tensor(QLORA_FORMAT_F32, r, c, spans_[size_t(at)]); };
        auto forward = qlora::make<qlora_linear_args>();
        forward.stream = stream;
        forward.scratch = scratch_;
        forward.weight = &weight_;
        forward.x = tensor(0, tokens, cols);
        forward.y = tensor(1, tokens, rows);
        forward.xa = spans_[2];
        forward.a = tensor(3, rank, cols);
        forward.b = tensor(4, rows, rank);
        forward.scale = 2;
        context_.linear_forward(forward);
        auto backward = qlora::make<qlora_linear_grad_args>();
        backward.stream = stream;
        backward.scratch = scratch_;
        backward.weight = &weight_;
        backward.x = forward.x;
        backward.dy = forward.y; // the goal is zero
        backward.dx = tensor(11, tokens, cols);
        backward.xa = forward.xa;
        backward.a = forward.a;
        backward.b = forward.b;
        backward.da = tensor(5, rank, cols);
        backward.db = tensor(6, rows, rank);
        backward.scale = 2;
        context_.linear_grad(backward);
        qlora_parameter parameters[2] = {qlora::make<qlora_parameter>(), qlora::make<qlora_parameter>()};
        for (int i = 0; i < 2; i++) {
            parameters[i].count = spans_[size_t(3 + i)].size / 4;
            parameters[i].value = spans_[size_t(3 + i)];
            parameters[i].gradient = spans_[size_t(5 + i)];
            parameters[i].state1 = spans_[size_t(7 + i)];
            parameters[i].state2 = spans_[size_t(9 + i)];
        }
        auto norm = qlora::make<qlora_gradient_norm_args>();
        norm.stream = stream;
        norm.scratch = scratch_;
        norm.parameters = parameters;
        norm.parameter_count = 2;
        norm.norm = spans_[12];
        context_.gradient_norm(norm);
        auto optimizer = qlora::make<qlora_optimizer_args>();
        optimizer.stream = stream;
        optimizer.scratch = scratch_;
        optimizer.parameters = parameters;
        optimizer.parameter_count = 2;
        optimizer.algorithm = QLORA_OPTIMIZER_ADAMW;
        optimizer.step = 1;
        optimizer.norm = spans_[12];
        optimizer.max_norm = 1;
        optimizer.learning_rate = 0.01f;
        context_.optimizer_step(optimizer);
    }

    // Everything that a step writes.
    std::vector<std::vector<float>> results() const {
        std::vector<std::vector<float>> found;
        for (size_t i = 1; i < 13; i++) {
            found.emplace_back(spans_[i].size / 4);
            read_(spans_[i], found.back().data());
        }
        return found;
    }

private:
    static constexpr uint64_t scratch_bytes = uint64_t(1) << 20;
    const qlora::Context &context_;
    std::function<void(qlora_span, const void *)> write_;
    std::function<void(qlora_span, void *)> read_;
    qlora_weight weight_ = qlora::make<qlora_weight>();
    std::vector<qlora_span> spans_;
    qlora_span scratch_ = {};
};

} // namespace test
