// Where optimizer state lies: sizes, places, budgets, and that paged state gives the bits of resident state. And schedules.
#include "tests/support/comparison.h"
#include "tests/support/inputs.h"
#include "tests/support/targets.h"

#include <doctest/doctest.h>

using namespace test;

namespace {

struct Pieces {
    int32_t status;
    qlora_state_layout_info layout;
};
Pieces layout_of(int32_t algorithm, int32_t state_type, uint64_t count, uint32_t min_size) {
    auto parameter = qlora::make<qlora_parameter>();
    Pieces pieces = {0, qlora::make<qlora_state_layout_info>()};
    parameter.count = count;
    parameter.state_type = state_type;
    pieces.layout.algorithm = algorithm;
    pieces.layout.min_8bit_size = min_size;
    pieces.status = qlora_state_layout(&parameter, &pieces.layout);
    return pieces;
}

// A list of tensors under an optimizer, its state under a budget.
struct List {
    const qlora::Context &context;
    std::vector<qlora_parameter> parameters;
    std::vector<qlora::Buffer> values, gradients;
    qlora_pager pager = qlora::make<qlora_pager>();
    qlora::Buffer resident, window, arena, scratch;

    List(const qlora::Context &context, const std::vector<uint64_t> &counts, int32_t algorithm, bool small, uint64_t budget) : context(context) {
        for (uint64_t count : counts) {
            values.emplace_back(context, random_values(count, 7 + values.size(), 0.1));
            gradients.emplace_back(context, count * 4);
            auto parameter = qlora::make<qlora_parameter>();
            parameter.count = count;
            parameter.value = values.back().span();
            parameter.gradient = gradients.back().span();
            parameter.state_type = small ? QLORA_FORMAT_DYN8 : QLORA_FORMAT_F32;
            parameters.push_back(parameter);
        }
        pager.parameters = parameters.data();
        pager.parameter_count = uint32_t(parameters.size());
        pager.algorithm = algorithm;
        pager.budget_bytes = budget;
        context.pager_plan(pager);
        auto take = [&](qlora::Buffer &buffer, uint64_t bytes, bool host, qlora_span &span) {
            if (bytes == 0) return;
            buffer = host ? qlora::Buffer::on_host(context, bytes) : qlora::Buffer(context, bytes);
            buffer.fill(0);
            span = buffer.span();
        };
        take(resident, pager.resident_bytes, false, pager.resident);
        take(window, pager.window_bytes, false, pager.window);
        take(arena, pager.arena_bytes, true, pager.arena);
        context.pager_place(pager);
    }
    void step(uint64_t number) {
        for (size_t i = 0; i < gradients.size(); i++) {
            const std::vector<float> g = random_values(parameters[i].count, 1000 * number + i, 0.01);
            gradients[i].write(g.data(), g.size() * 4);
        }
        auto args = qlora::make<qlora_optimizer_args>();
        args.parameters = parameters.data();
        args.parameter_count = uint32_t(parameters.size());
        args.algorithm = pager.algorithm;
        args.step = number;
        args.learning_rate = 1e-2f;
        args.weight_decay = 0.1f;
        args.window = pager.window;
        args.page_bytes = pager.page_bytes;
        const uint64_t needed = context.operation_scratch(QLORA_OP_OPTIMIZER_STEP, args);
        if (needed > scratch.size()) scratch = qlora::Buffer(context, needed);
        args.scratch = scratch.span();
        context.optimizer_step(args);
    }
    // Every value, and every state wherever it lies.
    std::vector<uint8_t> everything() const {
        std::vector<uint8_t> all;
        auto append = [&](const qlora_span &span) {
            if (span.size == 0) return;
            const size_t at = all.size();
            all.resize(at + span.size);
            auto args = qlora::make<qlora_buffer_args>();
            args.src = span;
            args.host = all.data() + at;
            args.bytes = span.size;
            context.buffer_read(args);
        };
        for (const qlora_parameter &parameter : parameters)
            for (const qlora_span &span : {parameter.value, parameter.state1, parameter.state2, parameter.state3, parameter.absmax1, parameter.absmax2, parameter.absmax3}) append(span);
        return all;
    }
};

} // namespace

TEST_SUITE_BEGIN("optim");

TEST_CASE("pieces of state") {
    const Pieces adam = layout_of(QLORA_OPTIMIZER_ADAMW, QLORA_FORMAT_DYN8, 4133, 0);
    CHECK(adam.status == QLORA_OK);
    CHECK(adam.layout.state_type == QLORA_FORMAT_DYN8);
    CHECK(adam.layout.piece_bytes[QLORA_STATE_1] == 4133);
    CHECK(adam.layout.piece_bytes[QLORA_STATE_3] == 0);
    CHECK(adam.layout.piece_bytes[QLORA_STATE_ABSMAX2] == 17 * 4);
    CHECK(adam.layout.total_bytes % 256 == 0);
    CHECK(layout_of(QLORA_OPTIMIZER_ADAMW, QLORA_FORMAT_DYN8, 4095, 0).layout.state_type == QLORA_FORMAT_F32);
    CHECK(layout_of(QLORA_OPTIMIZER_ADAMW, QLORA_FORMAT_DYN8, 4095, 0).layout.piece_bytes[QLORA_STATE_2] == 4 * 4095);
    CHECK(layout_of(QLORA_OPTIMIZER_ADAMW, QLORA_FORMAT_DYN8, 4095, 1).layout.state_type == QLORA_FORMAT_DYN8);
    CHECK(layout_of(QLORA_OPTIMIZER_LION, 0, 10, 0).layout.piece_bytes[QLORA_STATE_2] == 0);
    CHECK(layout_of(QLORA_OPTIMIZER_ADEMAMIX, 0, 10, 0).layout.piece_bytes[QLORA_STATE_3] == 40);
    CHECK(layout_of(QLORA_OPTIMIZER_ADAMW, 0, 0, 0).layout.total_bytes == 0);
    CHECK(layout_of(0, 0, 10, 0).status == QLORA_ERROR_ARGUMENT);
    CHECK(layout_of(99, 0, 10, 0).status == QLORA_ERROR_ARGUMENT);
    CHECK(layout_of(QLORA_OPTIMIZER_ADAMW, QLORA_FORMAT_F16, 10, 0).status == QLORA_ERROR_FORMAT);
    CHECK(layout_of(QLORA_OPTIMIZER_ADAMW, 0, UINT64_MAX / 8, 0).status == QLORA_ERROR_SHAPE);

    auto parameter = qlora::make<qlora_parameter>();
    parameter.count = 4133;
    parameter.state_type = QLORA_FORMAT_DYN8;
    CHECK(qlora_state_place(&parameter, &adam.layout, qlora_span{4096, 0, adam.layout.total_bytes - 1}) == QLORA_ERROR_SCRATCH);
    CHECK(qlora_state_place(&parameter, &adam.layout, qlora_span{4096, 512, adam.layout.total_bytes}) == QLORA_OK);
    CHECK(parameter.state1.offset == 512);
    CHECK(parameter.state2.offset == 512 + adam.layout.piece_offset[QLORA_STATE_2]);
    CHECK(parameter.absmax2.size == 17 * 4);
    CHECK(parameter.state3.handle == 0);
}

TEST_CASE("the plan of a budget") {
    const qlora::Context &context = shared_context(reference());
    std::vector<qlora_parameter> parameters(40, qlora::make<qlora_parameter>());
    for (qlora_parameter &parameter : parameters) parameter.count = 100000;
    auto pager = qlora::make<qlora_pager>();
    pager.parameters = parameters.data();
    pager.parameter_count = 40;
    pager.algorithm = QLORA_OPTIMIZER_ADAMW;
    context.pager_plan(pager);
    CHECK(pager.resident_count == 40);
    CHECK(pager.arena_bytes == 0);
    CHECK(pager.window_bytes == 0);
    const uint64_t all = pager.state_bytes;
    CHECK(all >= 40 * 800000u);
    pager.budget_bytes = all;
    context.pager_plan(pager);
    CHECK(pager.resident_bytes == all);
    uint64_t before = 41;
    for (uint64_t budget = all - 1; budget > all / 20; budget -= all / 20) {
        pager.budget_bytes = budget;
        pager.page_bytes = 0;
        context.pager_plan(pager);
        CHECK(pager.resident_bytes + pager.window_bytes <= budget);
        CHECK(pager.resident_bytes + pager.arena_bytes == all);
        CHECK(pager.window_bytes == 3 * pager.page_bytes);
        CHECK(pager.resident_count <= before);
        before = pager.resident_count;
    }
    pager.budget_bytes = 100;
    pager.page_bytes = 0;
    CHECK(qlora_pager_plan(context.get(), &pager) == QLORA_ERROR_SCRATCH);
    CHECK(std::string(qlora_context_message(context.get())).find("give at least 98304") != std::string::npos);
    pager.algorithm = 0;
    CHECK(qlora_pager_plan(context.get(), &pager) == QLORA_ERROR_ARGUMENT);
    CHECK(qlora_pager_plan(context.get(), nullptr) == QLORA_ERROR_ARGUMENT);
    CHECK(qlora_pager_plan(nullptr, &pager) == QLORA_ERROR_ARGUMENT);
}

TEST_CASE("paged state gives the bits of resident state") {
    const std::vector<uint64_t> counts = {70000, 300, 4096, 5000, 1, 40000, 8192, 0, 9000};
    for (const Target &target : targets()) {
        const qlora::Context &context = shared_context(target);
        for (int32_t algorithm : {QLORA_OPTIMIZER_ADAMW, QLORA_OPTIMIZER_LAMB, QLORA_OPTIMIZER_ADEMAMIX, QLORA_OPTIMIZER_LION})
            for (bool small : {false, true}) {
                List whole(context, counts, algorithm, small, 0), paged(context, counts, algorithm, small, whole.pager.state_bytes / (small ? 2 : 4));
                CHECK(whole.pager.window_bytes == 0);
                CHECK(paged.pager.arena_bytes > 0);
                for (uint64_t step = 1; step <= 3; step++) {
                    whole.step(step);
                    paged.step(step);
                }
                CHECK_MESSAGE(whole.everything() == paged.everything(), text(target.name, " algorithm ", algorithm, small ? " 8-bit" : ""));
            }
    }
}

TEST_CASE("what a step refuses") {
    for (const Target &target : targets()) {
        const qlora::Context &context = shared_context(target);
        List list(context, {5000}, QLORA_OPTIMIZER_ADAMW, true, 0);
        const qlora::Buffer number(context, 16), scratch(context, 1 << 16);
        auto good = qlora::make<qlora_optimizer_args>();
        good.parameters = list.parameters.data();
        good.parameter_count = 1;
        good.algorithm = QLORA_OPTIMIZER_ADAMW;
        good.step = 1;
        good.scratch = scratch.span();
        auto status = [&](const qlora_optimizer_args &args, const char *word) {
            const int32_t found = qlora_optimizer_step(context.get(), &args);
            CHECK_MESSAGE(std::string(qlora_context_message(context.get())).find(word) != std::string::npos, text(word, ": ", qlora_context_message(context.get())));
            return found;
        };
        auto args = good;
        args.algorithm = 11;
        CHECK(status(args, "algorithm") == QLORA_ERROR_ARGUMENT);
        args = good;
        args.flags = QLORA_FLAG_SKIP_STEP;
        CHECK(status(args, "norm") == QLORA_ERROR_ARGUMENT);
        args.flags = QLORA_FLAG_SKIP_TENSORS;
        CHECK(status(args, "norms") == QLORA_ERROR_ARGUMENT);
        args.flags = QLORA_FLAG_BITSANDBYTES | QLORA_FLAG_STOCHASTIC;
        CHECK(status(args, "BITSANDBYTES") == QLORA_ERROR_ARGUMENT);
        args.flags = QLORA_FLAG_INVERSE;
        CHECK(status(args, "flags") == QLORA_ERROR_ARGUMENT);
        args = good;
        args.percentile = 100;
        CHECK(status(args, "percentile") == QLORA_ERROR_ARGUMENT);
        args.percentile = 5;
        args.norms = number.span();
        CHECK(status(args, "history") == QLORA_ERROR_ARGUMENT);
        args = good;
        args.max_unorm = -1;
        CHECK(status(args, "max_unorm") == QLORA_ERROR_ARGUMENT);
        args.max_unorm = 1;
        args.algorithm = QLORA_OPTIMIZER_LION;
        CHECK(status(args, "max_unorm") == QLORA_ERROR_ARGUMENT);
        args = good;
        args.beta3 = 1;
        CHECK(status(args, "beta") == QLORA_ERROR_ARGUMENT);
        args = good;
        args.alpha = HUGE_VALF;
        CHECK(status(args, "finite") == QLORA_ERROR_VALUE);
        args = good;
        args.algorithm = QLORA_OPTIMIZER_ADEMAMIX; // state3 is absent
        CHECK(status(args, "state3") == QLORA_ERROR_ARGUMENT);
        qlora_parameter spoilt = list.parameters[0];
        args = good;
        args.parameters = &spoilt;
        spoilt.absmax2.size = 4;
        CHECK(status(args, "absmax2") == QLORA_ERROR_SHAPE);
        spoilt = list.parameters[0];
        spoilt.value_type = QLORA_FORMAT_NF4;
        CHECK(status(args, "value_type") == QLORA_ERROR_FORMAT);
        spoilt = list.parameters[0];
        spoilt.state_type = QLORA_FORMAT_F16;
        CHECK(status(args, "state_type") == QLORA_ERROR_FORMAT);
        spoilt = list.parameters[0];
        spoilt.flags = 4;
        CHECK(status(args, "flags") == QLORA_ERROR_ARGUMENT);
        spoilt.flags = QLORA_PARAMETER_PAGED;
        CHECK(status(args, "window") == QLORA_ERROR_ARGUMENT);
        args.window = scratch.span();
        args.page_bytes = 256;
        CHECK(status(args, "page_bytes") == QLORA_ERROR_ARGUMENT);
    }
}

TEST_CASE("learning rates") {
    auto schedule = qlora::make<qlora_schedule>();
    auto rate = [&](uint64_t step) {
        double value = -1;
        CHECK(qlora_schedule_rate(&schedule, step, &value) == QLORA_OK);
        return value;
    };
    schedule.learning_rate = 2;
    CHECK(rate(1) == 2);
    CHECK(rate(1000000) == 2);
    schedule.warmup = 4;
    CHECK(rate(1) == 0.5);
    CHECK(rate(4) == 2);
    CHECK(rate(5) == 2);
    schedule.kind = QLORA_SCHEDULE_LINEAR;
    schedule.steps = 12;
    CHECK(rate(5) == 2);
    CHECK(rate(9) == 1);
    CHECK(rate(13) == 0);
    CHECK(rate(1000) == 0);
    schedule.min_ratio = 0.25;
    CHECK(rate(9) == 1.25);
    CHECK(rate(1000) == 0.5);
    schedule.kind = QLORA_SCHEDULE_COSINE;
    CHECK(rate(9) == doctest::Approx(1.25));
    CHECK(rate(5) == 2);
    CHECK(rate(1000) == 0.5);
    schedule.cycles = 2;
    CHECK(rate(7) == doctest::Approx(1.25)); // half of the first cycle
    CHECK(rate(9) == 2);                     // the second begins
    CHECK(rate(11) == doctest::Approx(1.25));
    CHECK(rate(13) == 0.5);
    double value;
    CHECK(qlora_schedule_rate(&schedule, 0, &value) == QLORA_ERROR_ARGUMENT);
    CHECK(qlora_schedule_rate(&schedule, 1, nullptr) == QLORA_ERROR_ARGUMENT);
    CHECK(qlora_schedule_rate(nullptr, 1, &value) == QLORA_ERROR_ARGUMENT);
    schedule.kind = QLORA_SCHEDULE_LINEAR; // which has no cycles
    CHECK(qlora_schedule_rate(&schedule, 1, &value) == QLORA_ERROR_ARGUMENT);
    schedule.cycles = 0;
    schedule.min_ratio = 2;
    CHECK(qlora_schedule_rate(&schedule, 1, &value) == QLORA_ERROR_ARGUMENT);
    schedule.min_ratio = 0;
    schedule.steps = 0;
    CHECK(qlora_schedule_rate(&schedule, 9, &value) == QLORA_ERROR_ARGUMENT);
    schedule.kind = 3;
    CHECK(qlora_schedule_rate(&schedule, 1, &value) == QLORA_ERROR_ARGUMENT);
}

TEST_SUITE_END();
