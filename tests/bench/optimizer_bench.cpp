// Rows of the optimizers: the LoRA tensors of a 7B model (r = 16 on all seven linears: 448 of them, 40 M values; a quarter of the
// layers on a CPU), and one large tensor. Parity is asked of ref on the smallest tensor's next step.
#include "tests/bench/bench.h"
#include "tests/support/comparison.h"

#include <algorithm>

namespace bench {
namespace {

struct Kind {
    const char *name;
    int32_t algorithm, state_type, type; // type of values and gradients
};

// Tensors with state on a context, all random; their pieces can be brought to another one.
struct Tensors {
    std::vector<qlora_parameter> parameters;
    std::vector<qlora::Buffer> values, gradients, states;
    uint64_t total = 0;

    Tensors(const Bench &bench, const std::vector<uint64_t> &counts, const Kind &kind) {
        for (uint64_t count : counts) {
            values.push_back(bench.random(kind.type, count, 2 * values.size(), 1e-1));
            gradients.push_back(bench.random(kind.type, count, 2 * gradients.size() + 1, 1e-3));
            add(bench.context(), count, kind);
            total += count;
        }
    }
    // Tensor i of another, with its bytes.
    Tensors(const qlora::Context &context, const Tensors &other, size_t i, const Kind &kind) {
        values.emplace_back(context, other.values[i].read<uint8_t>());
        gradients.emplace_back(context, other.gradients[i].read<uint8_t>());
        add(context, other.parameters[i].count, kind);
        const std::vector<uint8_t> bytes = other.states[i].read<uint8_t>();
        states[0].write(bytes.data(), bytes.size());
    }
    void add(const qlora::Context &context, uint64_t count, const Kind &kind) {
        auto parameter = qlora::make<qlora_parameter>();
        auto layout = qlora::make<qlora_state_layout_info>();
        parameter.count = count;
        parameter.value_type = parameter.gradient_type = kind.type;
        parameter.state_type = kind.state_type;
        parameter.value = values.back().span();
        parameter.gradient = gradients.back().span();
        layout.algorithm = kind.algorithm;
        layout.min_8bit_size = 1;
        context.check(qlora_state_layout(&parameter, &layout));
        states.emplace_back(context, layout.total_bytes);
        states.back().fill(0);
        context.check(qlora_state_place(&parameter, &layout, states.back().span()));
        parameters.push_back(parameter);
    }
    qlora_optimizer_args args(int32_t algorithm, uint64_t step) const {
        auto made = qlora::make<qlora_optimizer_args>();
        made.parameters = parameters.data();
        made.parameter_count = uint32_t(parameters.size());
        made.algorithm = algorithm;
        made.step = step;
        made.learning_rate = 1e-4f;
        return made;
    }
};

std::string name_of(const std::vector<uint64_t> &counts) {
    uint64_t total = 0;
    for (uint64_t count : counts) total += count;
    return std::to_string(counts.size()) + (counts.size() == 1 ? " tensor, " : " tensors, ") + std::to_string(total / 1000) + " k";
}

void norm(Bench &bench, const std::vector<uint64_t> &counts) {
    const std::string shape = name_of(counts);
    if (!bench.wanted("gradient_norm", shape, "f32")) return;
    const Tensors tensors(bench, counts, {"", QLORA_OPTIMIZER_LION, QLORA_FORMAT_DYN8, QLORA_FORMAT_F32});
    auto args = qlora::make<qlora_gradient_norm_args>();
    const qlora::Buffer norm(bench.context(), 4);
    args.parameters = tensors.parameters.data();
    args.parameter_count = uint32_t(tensors.parameters.size());
    args.norm = norm.span();
    const qlora::Buffer scratch = bench.scratch(QLORA_OP_GRADIENT_NORM, args);
    args.scratch = scratch.span();
    Bench::Row row = {QLORA_OP_GRADIENT_NORM, QLORA_FORMAT_F32, "gradient_norm", shape, "f32", 0, {}, {}, 4.0 * double(tensors.total), 0, 0};
    row.ours = bench.time([&](uint64_t) { bench.context().gradient_norm(args); });
    double squares = 0;
    for (const qlora::Buffer &gradient : tensors.gradients)
        for (float value : unpack(QLORA_FORMAT_F32, gradient.read<uint8_t>())) squares += double(value) * value;
    row.error = std::fabs(norm.read<float>()[0] / std::sqrt(squares) - 1);
    bench.print(row);
}

void step(Bench &bench, const std::vector<uint64_t> &counts, const Kind &kind) {
    const std::string workload = std::string("optimizer_step ") + kind.name, shape = name_of(counts), type = format_name(kind.type);
    if (!bench.wanted(workload, shape, type)) return;
    const Tensors tensors(bench, counts, kind);
    auto args = tensors.args(kind.algorithm, 1);
    const qlora::Buffer scratch = bench.scratch(QLORA_OP_OPTIMIZER_STEP, args);
    args.scratch = scratch.span();
    bench.context().optimizer_step(args); // so that states are those of training
    uint64_t state_bytes = 0; // read and written
    for (const qlora::Buffer &state : tensors.states) state_bytes += state.size();
    Bench::Row row = {QLORA_OP_OPTIMIZER_STEP, kind.type, workload, shape, type, 0, {}, {}, 3.0 * element_bytes(kind.type) * double(tensors.total) + 2.0 * double(state_bytes), 0, 0};

    const size_t least = size_t(std::min_element(counts.begin(), counts.end()) - counts.begin());
    const Tensors copy(bench.ref(), tensors, least, kind);
    args.step = 2;
    bench.context().optimizer_step(args);
    auto again = copy.args(kind.algorithm, 2);
    const qlora::Buffer ref_scratch(bench.ref(), std::max<uint64_t>(16, bench.ref().operation_scratch(QLORA_OP_OPTIMIZER_STEP, again)));
    again.scratch = ref_scratch.span();
    bench.ref().optimizer_step(again);
    row.error = relative_error(unpack(kind.type, tensors.values[least].read<uint8_t>()), unpack(kind.type, copy.values[0].read<uint8_t>()));
    row.ours = bench.time([&](uint64_t) { bench.context().optimizer_step(args); });
    bench.print(row);
}

} // namespace

void bench_optimizer(Bench &bench) {
    std::vector<uint64_t> adapters;
    const uint64_t layers = bench.quick() ? 1 : bench.on_gpu() ? 32 : 8, scale = bench.quick() ? 64 : 1;
    for (uint64_t layer = 0; layer < layers; layer++)
        for (uint64_t size : {4096, 4096, 4096, 4096, 4096, 4096, 4096, 4096, 4096, 11008, 4096, 11008, 11008, 4096}) adapters.push_back(size * 16 / scale);
    const std::vector<uint64_t> large = {bench.quick() ? 5000u : bench.on_gpu() ? 537000000u : 16000000u};
    norm(bench, adapters);
    const int32_t f32 = QLORA_FORMAT_F32, bf16 = QLORA_FORMAT_BF16, small = QLORA_FORMAT_DYN8;
    for (const std::vector<uint64_t> &counts : {adapters, large})
        for (const Kind &kind : {Kind{"adamw", QLORA_OPTIMIZER_ADAMW, f32, f32}, Kind{"adamw8bit", QLORA_OPTIMIZER_ADAMW, small, f32}, Kind{"adamw8bit", QLORA_OPTIMIZER_ADAMW, small, bf16},
                                 Kind{"lion8bit", QLORA_OPTIMIZER_LION, small, f32}})
            step(bench, counts, kind);
}

} // namespace bench
