// Rows of the gradient norm and of the optimizer: the adapters of a 7B model and one large tensor. Parity is asked of ref on the
// beginning of the first tensor, for a step taken after others.
#include "tests/bench/bench.h"
#include "tests/support/comparison.h"
#include "tests/support/stage.h"

#include <algorithm>
#include <chrono>
#include <cstdio>

namespace bench {
namespace {

std::string shape_name(const std::vector<uint64_t> &counts) {
    uint64_t total = 0;
    for (uint64_t count : counts) total += count;
    return std::to_string(counts.size()) + (counts.size() == 1 ? " tensor, " : " tensors, ") + std::to_string(total / 1000) + " k";
}

struct Kind {
    const char *name;
    int32_t algorithm, state_type, type; // type of values and gradients
    double state_bytes;                  // of each element
    std::string types() const { return format_name(type) + (state_type == QLORA_FORMAT_DYN8 ? "/8-bit" : "/f32"); }
    // That must move for each element: value and state both ways, gradient in.
    double bytes() const { return 3.0 * double(element_bytes(type)) + 2 * state_bytes; }
};

// A list of tensors with gradients and with state, which starts at zero.
struct Tensors {
    const Bench &bench;
    std::vector<qlora_parameter> parameters;
    qlora::Buffer values, gradients, resident, window, arena;
    uint64_t total = 0, page_bytes = 0;

    // page_bytes: of paged state; 0 = all of it is resident.
    Tensors(const Bench &bench, const std::vector<uint64_t> &counts, const Kind &kind, uint64_t page_bytes = 0) : bench(bench), page_bytes(page_bytes) {
        const uint64_t size = element_bytes(kind.type);
        uint64_t places = 0;
        auto aligned = [](uint64_t count) { return (count + 63) / 64 * 64; };
        for (uint64_t count : counts) {
            places += aligned(count);
            total += count;
        }
        values = bench.random(kind.type, places, 1, 1e-2);
        gradients = bench.random(kind.type, places, 2, 1e-3);
        places = 0;
        for (uint64_t count : counts) {
            auto parameter = qlora::make<qlora_parameter>();
            parameter.count = count;
            parameter.value_type = parameter.gradient_type = kind.type;
            parameter.state_type = kind.state_type;
            parameter.value = values.span(places * size, count * size);
            parameter.gradient = gradients.span(places * size, count * size);
            places += aligned(count);
            parameters.push_back(parameter);
        }
        if (kind.algorithm == 0) return;
        auto pager = qlora::make<qlora_pager>();
        pager.parameters = parameters.data();
        pager.parameter_count = uint32_t(parameters.size());
        pager.algorithm = kind.algorithm;
        pager.min_8bit_size = 1;
        pager.page_bytes = page_bytes;
        pager.budget_bytes = 3 * page_bytes;
        bench.context().pager_plan(pager);
        resident = qlora::Buffer(bench.context(), pager.resident_bytes);
        if (resident.size()) resident.fill(0);
        window = qlora::Buffer(bench.context(), pager.window_bytes);
        if (pager.arena_bytes) {
            arena = qlora::Buffer::on_host(bench.context(), pager.arena_bytes);
            arena.fill(0);
        }
        pager.resident = resident.span();
        pager.window = window.span();
        pager.arena = arena.span();
        bench.context().pager_place(pager);
    }
    qlora_optimizer_args args(int32_t algorithm) const {
        auto args = qlora::make<qlora_optimizer_args>();
        args.parameters = parameters.data();
        args.parameter_count = uint32_t(parameters.size());
        args.algorithm = algorithm;
        args.step = 10;
        args.learning_rate = 1e-4f;
        args.weight_decay = 0.01f;
        args.window = window.span();
        args.page_bytes = window.size() ? page_bytes : 0;
        return args;
    }
};

std::vector<uint8_t> read(const Bench &bench, const qlora_span &span, uint64_t bytes) {
    std::vector<uint8_t> found(bytes);
    auto args = qlora::make<qlora_buffer_args>();
    args.src = span;
    args.host = found.data();
    args.bytes = bytes;
    if (bytes) bench.context().buffer_read(args);
    return found;
}

// Takes a step and compares the beginning of the first tensor with ref's; infinity when codes differ by more than they may.
double parity(const Bench &bench, const Tensors &tensors, const qlora_optimizer_args &args) {
    const qlora_parameter &first = tensors.parameters[0];
    const int32_t type = first.value_type;
    const uint64_t size = element_bytes(type);
    const bool small = first.state_type == QLORA_FORMAT_DYN8;
    const uint64_t sampled = std::min<uint64_t>(first.count, 4096);
    const qlora_span spans[] = {first.state1, first.state2, first.absmax1, first.absmax2};
    uint64_t bytes[4];
    for (int i = 0; i < 4; i++) bytes[i] = spans[i].handle == 0 ? 0 : i >= 2 ? (sampled + 255) / 256 * 4 : sampled * (small ? 1 : 4);
    auto all = [&] {
        std::vector<std::vector<uint8_t>> pieces = {read(bench, first.value, sampled * size)};
        for (int i = 0; i < 4; i++) pieces.push_back(read(bench, spans[i], bytes[i]));
        return pieces;
    };
    const std::vector<std::vector<uint8_t>> before = all();
    const std::vector<uint8_t> gradient = read(bench, first.gradient, sampled * size);
    bench.context().optimizer_step(args);
    bench.context().synchronize();
    const std::vector<std::vector<uint8_t>> after = all();

    Stage stage(bench.ref());
    auto parameter = qlora::make<qlora_parameter>();
    parameter.count = sampled;
    parameter.state_type = first.state_type;
    parameter.value_type = parameter.gradient_type = type;
    parameter.gradient = stage.tensor(type, 1, sampled, unpack(type, gradient)).data;
    parameter.value = stage.output("value", type, 1, sampled, 0, unpack(type, before[0])).data;
    qlora_span *const places[] = {&parameter.state1, &parameter.state2, &parameter.absmax1, &parameter.absmax2};
    for (int i = 0; i < 4; i++) {
        if (bytes[i] == 0) continue;
        if (i < 2 && small) *places[i] = stage.output_codes("codes", before[size_t(i) + 1]);
        else *places[i] = stage.output_floats("state", bytes[i] / 4, unpack(QLORA_FORMAT_F32, before[size_t(i) + 1]));
    }
    qlora_optimizer_args again = args;
    again.scratch = again.window = {};
    again.page_bytes = 0;
    again.parameters = &parameter;
    again.parameter_count = 1;
    stage.run<QLORA_OP_OPTIMIZER_STEP>(again);
    double error = 0;
    size_t piece = 0;
    for (const Output &output : stage.outputs()) {
        while (after[piece].empty()) piece++;
        const std::vector<uint8_t> &found = after[piece++];
        if (output.type == QLORA_FORMAT_DYN8) {
            const CodeDifference codes = code_difference(found, output.bytes);
            if (codes.wrong || codes.neighbours * 1000 > found.size()) error = HUGE_VAL;
        } else {
            error = std::max(error, relative_error(unpack(output.type, found), unpack(output.type, output.bytes)));
        }
    }
    return error;
}

void gradient_norm(Bench &bench, const std::vector<uint64_t> &counts) {
    const std::string shape = shape_name(counts);
    if (!bench.wanted("gradient_norm", shape, "f32")) return;
    const Tensors tensors(bench, counts, {"", 0, QLORA_FORMAT_F32, QLORA_FORMAT_F32, 0});
    auto args = qlora::make<qlora_gradient_norm_args>();
    const qlora::Buffer norm(bench.context(), 4), norms(bench.context(), 4 * counts.size());
    args.parameters = tensors.parameters.data();
    args.parameter_count = uint32_t(counts.size());
    args.norm = norm.span();
    args.norms = norms.span();
    const qlora::Buffer scratch = bench.scratch(QLORA_OP_GRADIENT_NORM, args);
    args.scratch = scratch.span();
    Bench::Row row = {QLORA_OP_GRADIENT_NORM, QLORA_FORMAT_F32, "gradient_norm", shape, "f32", 0, {}, {}, 4.0 * double(tensors.total), 0, 0};
    row.ours = bench.time([&](uint64_t) { bench.context().gradient_norm(args); });
    // The first tensor's own, and the whole from all of their own.
    double squares = 0, sum = 0;
    for (float value : unpack(QLORA_FORMAT_F32, read(bench, tensors.parameters[0].gradient, counts[0] * 4))) squares += double(value) * value;
    const std::vector<float> found = norms.read<float>();
    for (float own : found) sum += double(own) * own;
    row.error = std::max(std::fabs(found[0] / std::sqrt(squares) - 1), std::fabs(norm.read<float>()[0] / std::sqrt(sum) - 1));
    bench.print(row);
}

// Asks whether the backend has this, by scratch and a first step.
bool has(const Bench &bench, const qlora_optimizer_args &args, const char *name) {
    const int32_t status = qlora_optimizer_step(bench.context().get(), &args);
    if (status == QLORA_ERROR_UNSUPPORTED) std::printf("SKIPPED: %s: %s\n", name, qlora_context_message(bench.context().get()));
    else bench.context().check(status);
    return status == QLORA_OK;
}

void step(Bench &bench, const std::vector<uint64_t> &counts, const Kind &kind) {
    const std::string shape = shape_name(counts), workload = std::string("optimizer_step ") + kind.name, type = kind.types();
    if (!bench.wanted(workload, shape, type)) return;
    const Tensors tensors(bench, counts, kind);
    qlora_optimizer_args args = tensors.args(kind.algorithm);
    const qlora::Buffer scratch = bench.scratch(QLORA_OP_OPTIMIZER_STEP, args);
    args.scratch = scratch.span();
    if (!has(bench, args, workload.c_str())) return;
    Bench::Row row = {QLORA_OP_OPTIMIZER_STEP, kind.type, workload, shape, type, 0, {}, {}, kind.bytes() * double(tensors.total), 0, 0};
    row.error = parity(bench, tensors, args);
    row.ours = bench.time([&](uint64_t) { bench.context().optimizer_step(args); });
    bench.print(row);
}

// All state in host memory: its time beside that of resident state, and what it adds to a training step of a 7B model at 2048
// tokens, which stands here as the matrix products of forward, recomputation and backward.
void paged(Bench &bench, const std::vector<uint64_t> &counts, const Kind &kind) {
    const std::string shape = shape_name(counts), workload = std::string("optimizer_step ") + kind.name + " paged", type = kind.types();
    if (!bench.wanted(workload, shape, type)) return;
    const uint64_t page_bytes = bench.quick() ? 16896 : uint64_t(8) << 20;
    const Tensors tensors(bench, counts, kind, page_bytes), resident(bench, counts, kind);
    qlora_optimizer_args args = tensors.args(kind.algorithm), plain = resident.args(kind.algorithm);
    const qlora::Buffer scratch = bench.scratch(QLORA_OP_OPTIMIZER_STEP, args);
    args.scratch = plain.scratch = scratch.span();
    if (!has(bench, args, workload.c_str())) return;
    Bench::Row row = {QLORA_OP_OPTIMIZER_STEP, kind.type, workload, shape + "; peer: resident", type, 0, {}, {}, kind.bytes() * double(tensors.total), 0, 0};
    row.error = parity(bench, tensors, args);
    row.peer = bench.time([&](uint64_t) { bench.context().optimizer_step(plain); });
    row.ours = bench.time([&](uint64_t) { bench.context().optimizer_step(args); });
    bench.print(row);
    if (!bench.on_gpu()) return;

    const uint64_t tokens = bench.quick() ? 8 : 2048, rows = bench.quick() ? 64 : 11008, cols = bench.quick() ? 64 : 4096;
    const double flops = 2.0 * double(tokens) * double(rows) * double(cols);
    const uint64_t products = bench.quick() ? 2 : uint64_t(3 * 2 * 6.476e9 * double(tokens) / flops); // linear weights of the model, three times over
    const int32_t bf16 = QLORA_FORMAT_BF16;
    const qlora::Buffer w = bench.random(bf16, rows * cols, 3, 0.02), x = bench.random(bf16, tokens * cols, 4), y(bench.context(), tokens * rows * 2);
    auto weight = qlora::make<qlora_weight>();
    weight.format = bf16;
    weight.rows = rows;
    weight.cols = cols;
    weight.planes[QLORA_PLANE_CODE] = w.span(0, rows * cols * 2);
    auto matmul = qlora::make<qlora_matmul_args>();
    matmul.weight = &weight;
    matmul.x = qlora::tensor(bf16, tokens, cols, x.span());
    matmul.y = qlora::tensor(bf16, tokens, rows, y.span());
    const qlora::Buffer space = bench.scratch(QLORA_OP_MATMUL, matmul);
    matmul.scratch = space.span();
    auto compute = [&] {
        for (uint64_t i = 0; i < products; i++) bench.context().weight_matmul(matmul);
    };
    row.workload = std::string("7B step with ") + kind.name + " paged";
    row.shape = shape + "; peer: without";
    row.rows = tokens;
    row.bytes = 0;
    row.flops = flops * double(products);
    // In turns, since a GPU's clock follows its work.
    auto measured = [&](bool stepping) {
        const auto start = std::chrono::steady_clock::now();
        compute();
        if (stepping) bench.context().optimizer_step(args);
        bench.context().synchronize();
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    };
    std::vector<double> with, without;
    for (int i = 0; i < (bench.quick() ? 3 : 13); i++) {
        const double second = measured(false), first = measured(true);
        if (i == 0) continue; // warms up
        without.push_back(second);
        with.push_back(first);
    }
    auto percentiles = [](std::vector<double> &seconds) {
        std::sort(seconds.begin(), seconds.end());
        const size_t n = seconds.size();
        return Time{seconds[n / 2], seconds[n / 5], seconds[n - 1 - n / 5]};
    };
    row.peer = percentiles(without);
    row.ours = percentiles(with);
    bench.print(row);
}

} // namespace

void bench_optimizer(Bench &bench) {
    // The LoRA tensors of a 7B model, r = 16 on all seven linears: 448 of them, 40 M parameters. A quarter of the layers on a CPU.
    std::vector<uint64_t> adapters, wide;
    const uint64_t layers = bench.quick() ? 1 : bench.on_gpu() ? 32 : 8, scale = bench.quick() ? 64 : 1;
    for (uint64_t layer = 0; layer < layers; layer++)
        for (uint64_t size : {4096, 4096, 4096, 4096, 4096, 4096, 4096, 4096, 4096, 11008, 4096, 11008, 11008, 4096}) {
            adapters.push_back(size * 16 / scale);
            wide.push_back(size * 64 / scale);
        }
    const std::vector<uint64_t> large = {bench.quick() ? 5000 : bench.on_gpu() ? uint64_t(131072) * 4096 : uint64_t(8192) * 4096};
    const int32_t f32 = QLORA_FORMAT_F32, bf16 = QLORA_FORMAT_BF16, small = QLORA_FORMAT_DYN8;
    const double code = 1 + 4.0 / 256; // with its part of an absmax
    const Kind kinds[] = {{"adamw", QLORA_OPTIMIZER_ADAMW, small, f32, 2 * code}, {"adamw", QLORA_OPTIMIZER_ADAMW, small, bf16, 2 * code}, {"lion", QLORA_OPTIMIZER_LION, small, f32, code},
                          {"adamw", QLORA_OPTIMIZER_ADAMW, f32, f32, 8}, {"lion", QLORA_OPTIMIZER_LION, f32, f32, 4}};
    gradient_norm(bench, adapters);
    for (const Kind &kind : kinds) {
        step(bench, adapters, kind);
        step(bench, large, kind);
    }
    paged(bench, wide, kinds[0]);
}

} // namespace bench
