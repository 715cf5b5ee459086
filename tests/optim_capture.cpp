// Steps in CUDA graphs: a captured step, resident or paged, replayed, gives the bits of the same calls.
#include "tests/support/cuda_graph.h"
#include "tests/support/inputs.h"
#include "tests/support/targets.h"

#include <doctest/doctest.h>

using namespace test;

namespace {

// A list of tensors with 8-bit state and room for factors, at its start.
struct Trained {
    const qlora::Context &context;
    std::vector<qlora_parameter> parameters;
    std::vector<qlora::Buffer> values, gradients;
    qlora::Buffer resident, window, arena, norm, norm_scratch, scratch;
    qlora_gradient_norm_args sum = qlora::make<qlora_gradient_norm_args>();
    qlora_optimizer_args args = qlora::make<qlora_optimizer_args>();

    Trained(const qlora::Context &context, int32_t algorithm, bool paged) : context(context), norm(context, 4) {
        const std::vector<uint64_t> counts = {70001, 8192, 300, 40000};
        for (uint64_t count : counts) {
            auto parameter = qlora::make<qlora_parameter>();
            parameter.count = count;
            parameter.state_type = QLORA_FORMAT_DYN8;
            values.emplace_back(context, random_values(count, 2 * values.size()));
            gradients.emplace_back(context, random_values(count, 2 * gradients.size() + 1, 0.01));
            parameter.value = values.back().span();
            parameter.gradient = gradients.back().span();
            parameters.push_back(parameter);
        }
        auto pager = qlora::make<qlora_pager>();
        pager.parameters = parameters.data();
        pager.parameter_count = uint32_t(parameters.size());
        pager.algorithm = algorithm;
        pager.page_bytes = paged ? 36864 : 0; // of f32 state, which small tensors get, a granule
        pager.budget_bytes = 3 * pager.page_bytes;
        context.pager_plan(pager);
        resident = qlora::Buffer(context, pager.resident_bytes);
        window = qlora::Buffer(context, pager.window_bytes);
        arena = qlora::Buffer::on_host(context, pager.arena_bytes);
        if (resident.size()) resident.fill(0);
        if (arena.size()) arena.fill(0);
        pager.resident = resident.span();
        pager.window = window.span();
        pager.arena = arena.span();
        context.pager_place(pager);
        sum.parameters = args.parameters = parameters.data();
        sum.parameter_count = args.parameter_count = uint32_t(parameters.size());
        sum.norm = args.norm = norm.span();
        norm_scratch = qlora::Buffer(context, context.operation_scratch(QLORA_OP_GRADIENT_NORM, sum));
        sum.scratch = norm_scratch.span();
        args.max_norm = 1;
        args.algorithm = algorithm;
        args.step = 3;
        args.learning_rate = 1e-2f;
        args.weight_decay = 0.1f;
        args.window = window.span();
        args.page_bytes = window.size() ? pager.page_bytes : 0;
        scratch = qlora::Buffer(context, context.operation_scratch(QLORA_OP_OPTIMIZER_STEP, args));
        args.scratch = scratch.span();
    }
    void step(void *stream) {
        sum.stream = args.stream = uint64_t(reinterpret_cast<uintptr_t>(stream));
        context.gradient_norm(sum);
        context.optimizer_step(args);
    }
    std::vector<std::vector<uint8_t>> bytes() const {
        std::vector<std::vector<uint8_t>> all;
        for (const qlora::Buffer &value : values) all.push_back(value.read<uint8_t>());
        all.push_back(resident.read<uint8_t>());
        all.push_back(arena.read<uint8_t>());
        return all;
    }
};

} // namespace

TEST_SUITE_BEGIN("optim");

TEST_CASE("a captured step does what the call does") {
    for (const Target &target : targets()) {
        if (target.backend != QLORA_BACKEND_CUDA) continue;
        if (!cuda_library()) {
            std::printf("%s: SKIPPED: no libcuda.so.1 to capture with\n", target.name.c_str());
            continue;
        }
        const qlora::Context &context = shared_context(target);
        const CudaStream stream;
        for (int32_t algorithm : {QLORA_OPTIMIZER_ADAMW, QLORA_OPTIMIZER_LAMB})
            for (bool paged : {false, true}) {
                Trained called(context, algorithm, paged), captured(context, algorithm, paged);
                REQUIRE((called.arena.size() > 0) == paged);
                context.synchronize();
                for (int i = 0; i < 2; i++) called.step(stream.get());
                stream.synchronize();
                const CudaGraph graph(stream, [&] { captured.step(stream.get()); });
                for (int i = 0; i < 2; i++) graph.launch();
                stream.synchronize();
                CHECK_MESSAGE(called.bytes() == captured.bytes(), text(target.name, " algorithm ", algorithm, paged ? " paged" : ""));
            }
    }
}

TEST_SUITE_END();
