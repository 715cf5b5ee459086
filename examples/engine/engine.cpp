// A small engine with qlora inside: a next-letter model of one block, its base frozen in 4 bits, learns a text by its adapters.
//
//   x = embedding[letters]; h = x + down(swiglu(gate(norm(x)), up(norm(x)))); loss = cross_entropy(head, h)
//
// The engine owns memory, threads, tensors and the order of work (engine.h); the library computes on views of them.
#include "examples/engine/engine.h"

#include <cmath>
#include <cstring>
#include <string>

namespace {

using namespace engine;

constexpr uint64_t letters = 96, width = 64, inner = 128, rank = 4;
const std::string text = "What is written once is read for ever; what is learned is written every step. ";

float noise(uint64_t &state) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return float(int64_t(state) >> 40) / float(1 << 23);
}

// A frozen matrix of 4 bits: its planes are engine memory like any other.
qlora_weight frozen(Engine &engine, uint64_t rows, uint64_t cols, uint64_t seed) {
    Tensor values = engine.tensor(rows, cols);
    for (uint64_t i = 0; i < values.count(); i++) values.data[i] = noise(seed) / std::sqrt(float(cols));
    auto weight = sized<qlora_weight>();
    auto layout = sized<qlora_weight_layout_info>();
    weight.format = QLORA_FORMAT_NF4_DQ;
    weight.rows = rows;
    weight.cols = cols;
    engine.check(qlora_weight_layout(&weight, &layout));
    engine.check(qlora_weight_place(&weight, span_of(engine.memory.take(layout.total_bytes), layout.total_bytes)));
    auto args = sized<qlora_quantize_args>();
    args.weight = &weight;
    args.src = view_of(values);
    uint64_t bytes = 0;
    engine.check(qlora_operation_scratch(engine.context, QLORA_OP_QUANTIZE, &args, &bytes));
    args.scratch = span_of(engine.memory.take(bytes), bytes);
    engine.check(qlora_weight_quantize(engine.context, &args));
    return weight;
}

// A trained tensor with its gradient and the moments of the optimizer.
struct Trained {
    Tensor value, gradient, moment1, moment2;
    Trained(Engine &engine, uint64_t rows, uint64_t cols)
        : value(engine.tensor(rows, cols)), gradient(engine.tensor(rows, cols)), moment1(engine.tensor(rows, cols)), moment2(engine.tensor(rows, cols)) {}
    qlora_parameter parameter() const {
        auto made = sized<qlora_parameter>();
        made.count = value.count();
        made.value = span_of(value);
        made.gradient = span_of(gradient);
        made.state1 = span_of(moment1);
        made.state2 = span_of(moment2);
        return made;
    }
};

// A linear layer with its adapter, and the args of its two passes.
struct Linear {
    qlora_weight base;
    Trained a, b;
    Tensor xa;
    qlora_linear_args forward;
    qlora_linear_grad_args backward;

    Linear(Engine &engine, const Tensor &x, const Tensor &y, const Tensor &dx, const Tensor &dy, uint64_t seed)
        : base(frozen(engine, y.cols, x.cols, seed)), a(engine, rank, x.cols), b(engine, y.cols, rank), xa(engine.tensor(x.rows, rank)), forward(sized<qlora_linear_args>()),
          backward(sized<qlora_linear_grad_args>()) {
        for (uint64_t i = 0; i < a.value.count(); i++) a.value.data[i] = noise(seed) / 8;
        forward.weight = backward.weight = &base;
        forward.x = backward.x = view_of(x);
        forward.a = backward.a = view_of(a.value);
        forward.b = backward.b = view_of(b.value);
        forward.xa = backward.xa = span_of(xa);
        forward.scale = backward.scale = 2;
        forward.y = view_of(y);
        backward.dy = view_of(dy);
        backward.dx = view_of(dx);
        backward.da = view_of(a.gradient);
        backward.db = view_of(b.gradient);
    }
    Linear(const Linear &) = delete;
};

} // namespace

int main(int count, char **arguments) {
    const int steps = count > 1 ? std::atoi(arguments[1]) : 150;
    Engine engine(size_t(16) << 20, 3);
    if (engine.open(QLORA_BACKEND_CPU) != QLORA_OK) return 1;

    // Letters and the letters after them; both, and all below, are the engine's.
    const uint64_t tokens = text.size();
    int32_t *ids = static_cast<int32_t *>(engine.memory.take(tokens * 4)), *targets = static_cast<int32_t *>(engine.memory.take(tokens * 4));
    for (uint64_t i = 0; i < tokens; i++) ids[i] = text[i] - ' ', targets[i] = text[(i + 1) % tokens] - ' ';
    const Tensor x = engine.tensor(tokens, width), normed = engine.tensor(tokens, width), gate = engine.tensor(tokens, inner), up = engine.tensor(tokens, inner), mixed = engine.tensor(tokens, inner);
    const Tensor dh = engine.tensor(tokens, width), dmixed = engine.tensor(tokens, inner), dgate = engine.tensor(tokens, inner), dup = engine.tensor(tokens, inner), ignored = {};
    const Tensor losses = engine.tensor(1, tokens), ones = engine.tensor(1, width, 1);
    const qlora_weight table = frozen(engine, letters, width, 1), head = frozen(engine, letters, width, 2);

    // Adapters sit on the three linear layers. What lies below them is frozen, so no gradient goes past gate and up.
    Linear gate_layer(engine, normed, gate, ignored, dgate, 3), up_layer(engine, normed, up, ignored, dup, 4), down_layer(engine, mixed, x, dmixed, dh, 5);
    gate_layer.backward.dx = up_layer.backward.dx = qlora_tensor{};
    down_layer.forward.flags = QLORA_FLAG_ACCUMULATE; // x is h from here on: the residual connection

    auto embed = sized<qlora_embedding_args>();
    embed.weight = &table;
    embed.ids = span_of(ids, tokens * 4);
    embed.y = view_of(x);
    auto norm = sized<qlora_rms_norm_args>();
    norm.x = view_of(x);
    norm.weight = view_of(ones);
    norm.y = view_of(normed);
    norm.epsilon = 1e-6f;
    auto act = sized<qlora_swiglu_args>();
    act.gate = view_of(gate);
    act.up = view_of(up);
    act.y = view_of(mixed);
    auto loss = sized<qlora_cross_entropy_args>();
    loss.weight = &head;
    loss.x = view_of(x);
    loss.dx = view_of(dh);
    loss.targets = span_of(targets, tokens * 4);
    loss.losses = span_of(losses);
    loss.grad_scale = 1 / float(tokens);
    auto act_grad = sized<qlora_swiglu_grad_args>();
    act_grad.gate = view_of(gate);
    act_grad.up = view_of(up);
    act_grad.dy = view_of(dmixed);
    act_grad.dgate = view_of(dgate);
    act_grad.dup = view_of(dup);
    std::vector<qlora_parameter> parameters;
    for (const Linear *layer : {&gate_layer, &up_layer, &down_layer}) parameters.push_back(layer->a.parameter()), parameters.push_back(layer->b.parameter());
    auto step = sized<qlora_optimizer_args>();
    step.parameters = parameters.data();
    step.parameter_count = uint32_t(parameters.size());
    step.algorithm = QLORA_OPTIMIZER_ADAMW;
    step.learning_rate = 0.01f;
    step.step = 1;

    // The graph is planned once, and with it the scratch; then it only runs.
    std::vector<std::function<void()>> graph;
    engine.plan(graph, QLORA_OP_EMBEDDING, qlora_embedding_gather, embed);
    engine.plan(graph, QLORA_OP_RMS_NORM, qlora_rms_norm_forward, norm);
    engine.plan(graph, QLORA_OP_LINEAR, qlora_linear_forward, gate_layer.forward);
    engine.plan(graph, QLORA_OP_LINEAR, qlora_linear_forward, up_layer.forward);
    engine.plan(graph, QLORA_OP_SWIGLU, qlora_swiglu_forward, act);
    engine.plan(graph, QLORA_OP_LINEAR, qlora_linear_forward, down_layer.forward);
    engine.plan(graph, QLORA_OP_CROSS_ENTROPY, qlora_cross_entropy_loss, loss);
    engine.plan(graph, QLORA_OP_LINEAR_GRAD, qlora_linear_grad, down_layer.backward);
    engine.plan(graph, QLORA_OP_SWIGLU_GRAD, qlora_swiglu_grad, act_grad);
    engine.plan(graph, QLORA_OP_LINEAR_GRAD, qlora_linear_grad, gate_layer.backward);
    engine.plan(graph, QLORA_OP_LINEAR_GRAD, qlora_linear_grad, up_layer.backward);
    engine.plan(graph, QLORA_OP_OPTIMIZER_STEP, qlora_optimizer_step, step);
    engine.scratch = span_of(engine.memory.take(engine.scratch_bytes), engine.scratch_bytes);

    double first = 0, last = 0;
    for (; step.step <= uint64_t(steps); step.step++) {
        for (const auto &work : graph) engine.stream.enqueue(work);
        engine.stream.wait();
        last = 0;
        for (uint64_t i = 0; i < tokens; i++) last += losses.data[i] / double(tokens);
        if (step.step == 1) first = last;
    }
    const size_t held = engine.memory.guest_bytes();
    std::printf("loss %.3f -> %.3f in %d steps; %zu kB of engine memory, %zu kB of scratch in it, %zu bytes for the guest itself\n", first, last, steps, engine.memory.used() / 1000,
                size_t(engine.scratch_bytes) / 1000, held);
    qlora_context_destroy(engine.context);
    engine.context = nullptr;
    return last < first / 3 && engine.memory.guest_bytes() == 0 ? 0 : 1;
}
