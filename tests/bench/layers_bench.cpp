// Rows of the training operations. Parity is asked of ref on a part that stands for itself: some rows, one head group, the
// beginning of a sequence.
#include "tests/bench/bench.h"
#include "tests/support/comparison.h"
#include "tests/support/stage.h"

#include <algorithm>

namespace bench {
namespace {

struct Shape {
    uint64_t rows, cols;
    std::string name() const { return std::to_string(rows) + "x" + std::to_string(cols); }
};

std::vector<float> part_of(const qlora::Buffer &buffer, int32_t type, uint64_t first, uint64_t count) {
    std::vector<uint8_t> bytes(count * element_bytes(type));
    buffer.read(bytes.data(), bytes.size(), first * element_bytes(type));
    return unpack(type, bytes);
}

// Outputs of an act on ref.
std::vector<float> by_ref(const Bench &bench, const std::function<void(Stage &)> &act) {
    Stage stage(bench.ref());
    act(stage);
    std::vector<float> all;
    for (const Output &output : stage.outputs()) {
        const std::vector<float> values = unpack(output.type, output.bytes);
        all.insert(all.end(), values.begin(), values.end());
    }
    return all;
}

int32_t activations(const Bench &bench) { return bench.on_gpu() ? QLORA_FORMAT_BF16 : QLORA_FORMAT_F32; }

// Buffers of one shape in rotation.
struct Ring {
    std::vector<qlora::Buffer> buffers;
    Shape shape;
    int32_t type;
    Ring(const Bench &bench, int32_t element, const Shape &of, size_t copies, uint64_t seed) : shape(of), type(element) {
        for (size_t i = 0; i < copies; i++) buffers.push_back(bench.random(type, shape.rows * shape.cols, seed + i));
    }
    qlora_tensor at(uint64_t i) const { return qlora::tensor(type, shape.rows, shape.cols, buffers[i % buffers.size()].span()); }
    std::vector<float> first(uint64_t rows) const { return part_of(buffers[0], type, 0, rows * shape.cols); }
};

// RMSNorm, or with a flag and a bias LayerNorm.
void norm(Bench &bench, const Shape &shape, int32_t type, uint32_t flags) {
    const std::string name = flags & QLORA_FLAG_CENTERED ? "layer_norm" : "rms_norm";
    const uint64_t bytes = shape.rows * shape.cols * element_bytes(type), sampled = std::min<uint64_t>(shape.rows, 4);
    const size_t copies = bench.rotation(3 * bytes);
    const Ring x(bench, type, shape, copies, 1), y(bench, type, shape, copies, 2), dx(bench, type, shape, copies, 3);
    const qlora::Buffer weight = bench.random(QLORA_FORMAT_F32, shape.cols, 4), rstd(bench.context(), shape.rows * 4);
    auto forward = qlora::make<qlora_rms_norm_args>();
    forward.weight = qlora::tensor(QLORA_FORMAT_F32, 1, shape.cols, weight.span());
    forward.rstd = rstd.span();
    forward.epsilon = 1e-5f;
    forward.flags = flags;
    if (flags & QLORA_FLAG_CENTERED) forward.bias = forward.weight;
    forward.x = x.at(0);
    forward.y = y.at(0);
    const qlora::Buffer forward_scratch = bench.scratch(QLORA_OP_RMS_NORM, forward);
    forward.scratch = forward_scratch.span();
    Bench::Row row = {QLORA_OP_RMS_NORM, type, name + " forward", shape.name(), format_name(type), shape.rows, {}, {}, 2.0 * double(bytes), 0, 0};
    const std::vector<float> xs = x.first(sampled), gain = part_of(weight, QLORA_FORMAT_F32, 0, shape.cols);
    if (bench.wanted(row.workload, row.shape, row.type)) {
        row.ours = bench.time([&](uint64_t i) {
            forward.x = x.at(i);
            forward.y = y.at(i);
            bench.context().rms_norm_forward(forward);
        });
        row.error = relative_error(y.first(sampled), by_ref(bench, [&](Stage &stage) {
                                       qlora_rms_norm_args args = {};
                                       args.x = stage.tensor(type, sampled, shape.cols, xs);
                                       args.weight = stage.tensor(QLORA_FORMAT_F32, 1, shape.cols, gain);
                                       args.y = stage.output("y", type, sampled, shape.cols);
                                       args.epsilon = 1e-5f;
                                       args.flags = flags;
                                       if (flags & QLORA_FLAG_CENTERED) args.bias = args.weight;
                                       stage.run<QLORA_OP_RMS_NORM>(args);
                                   }));
        bench.print(row);
    }
    row.workload = name + " backward";
    row.operation = QLORA_OP_RMS_NORM_GRAD;
    if (!bench.wanted(row.workload, row.shape, row.type)) return;
    forward.x = x.at(0);
    forward.y = dx.at(0);
    bench.context().rms_norm_forward(forward); // rstd of the first x
    auto backward = qlora::make<qlora_rms_norm_grad_args>();
    backward.weight = forward.weight;
    backward.flags = flags;
    backward.rstd = rstd.span();
    backward.x = x.at(0);
    backward.dy = y.at(0);
    backward.dx = dx.at(0);
    const qlora::Buffer backward_scratch = bench.scratch(QLORA_OP_RMS_NORM_GRAD, backward);
    backward.scratch = backward_scratch.span();
    row.bytes = 3.0 * double(bytes);
    row.ours = bench.time([&](uint64_t i) {
        backward.x = x.at(i);
        backward.dy = y.at(i);
        backward.dx = dx.at(i);
        bench.context().rms_norm_grad(backward);
    });
    row.error = relative_error(dx.first(sampled), by_ref(bench, [&](Stage &stage) {
                                   qlora_rms_norm_grad_args args = {};
                                   args.x = stage.tensor(type, sampled, shape.cols, xs);
                                   args.weight = stage.tensor(QLORA_FORMAT_F32, 1, shape.cols, gain);
                                   args.dy = stage.tensor(type, sampled, shape.cols, y.first(sampled));
                                   args.rstd = stage.floats(part_of(rstd, QLORA_FORMAT_F32, 0, sampled));
                                   args.dx = stage.output("dx", type, sampled, shape.cols);
                                   args.flags = flags;
                                   stage.run<QLORA_OP_RMS_NORM_GRAD>(args);
                               }));
    bench.print(row);
}

// An activation that gates, or UNGATED stands alone.
void activation(Bench &bench, const std::string &name, int32_t kind, uint32_t flags, const Shape &shape, int32_t type) {
    const bool gated = !(flags & QLORA_FLAG_UNGATED);
    const uint64_t bytes = shape.rows * shape.cols * element_bytes(type), sampled = std::min<uint64_t>(shape.rows, 4);
    const size_t copies = bench.rotation(3 * bytes);
    const Ring gate(bench, type, shape, copies, 1), up(bench, type, shape, copies, 2), y(bench, type, shape, copies, 3);
    Bench::Row row = {QLORA_OP_SWIGLU, type, name + " forward", shape.name(), format_name(type), shape.rows, {}, {}, (gated ? 3.0 : 2.0) * double(bytes), 0, 0};
    auto forward = qlora::make<qlora_swiglu_args>();
    forward.flags = flags;
    forward.activation = kind;
    forward.gate = gate.at(0);
    if (gated) forward.up = up.at(0);
    forward.y = y.at(0);
    const qlora::Buffer forward_scratch = bench.scratch(QLORA_OP_SWIGLU, forward);
    forward.scratch = forward_scratch.span();
    if (bench.wanted(row.workload, row.shape, row.type)) {
        row.ours = bench.time([&](uint64_t i) {
            forward.gate = gate.at(i);
            if (gated) forward.up = up.at(i);
            forward.y = y.at(i);
            bench.context().swiglu_forward(forward);
        });
        row.error = relative_error(y.first(sampled), by_ref(bench, [&](Stage &stage) {
                                       qlora_swiglu_args args = {};
                                       args.flags = flags;
                                       args.activation = kind;
                                       args.gate = stage.tensor(type, sampled, shape.cols, gate.first(sampled));
                                       if (gated) args.up = stage.tensor(type, sampled, shape.cols, up.first(sampled));
                                       args.y = stage.output("y", type, sampled, shape.cols);
                                       stage.run<QLORA_OP_SWIGLU>(args);
                                   }));
        bench.print(row);
    }
    row.workload = name + " backward";
    row.operation = QLORA_OP_SWIGLU_GRAD;
    if (!bench.wanted(row.workload, row.shape, row.type)) return;
    const Ring dgate(bench, type, shape, copies, 4), dup(bench, type, shape, copies, 5);
    auto backward = qlora::make<qlora_swiglu_grad_args>();
    backward.flags = flags;
    backward.activation = kind;
    backward.gate = gate.at(0);
    backward.dy = y.at(0);
    backward.dgate = dgate.at(0);
    if (gated) {
        backward.up = up.at(0);
        backward.dup = dup.at(0);
    }
    const qlora::Buffer backward_scratch = bench.scratch(QLORA_OP_SWIGLU_GRAD, backward);
    backward.scratch = backward_scratch.span();
    row.bytes = (gated ? 5.0 : 3.0) * double(bytes);
    row.ours = bench.time([&](uint64_t i) {
        backward.gate = gate.at(i);
        backward.dy = y.at(i);
        backward.dgate = dgate.at(i);
        if (gated) {
            backward.up = up.at(i);
            backward.dup = dup.at(i);
        }
        bench.context().swiglu_grad(backward);
    });
    std::vector<float> found = dgate.first(sampled);
    const std::vector<float> second = gated ? dup.first(sampled) : std::vector<float>();
    found.insert(found.end(), second.begin(), second.end());
    row.error = relative_error(found, by_ref(bench, [&](Stage &stage) {
                                   qlora_swiglu_grad_args args = {};
                                   args.flags = flags;
                                   args.activation = kind;
                                   args.gate = stage.tensor(type, sampled, shape.cols, gate.first(sampled));
                                   if (gated) args.up = stage.tensor(type, sampled, shape.cols, up.first(sampled));
                                   args.dy = stage.tensor(type, sampled, shape.cols, y.first(sampled));
                                   args.dgate = stage.output("dgate", type, sampled, shape.cols);
                                   if (gated) args.dup = stage.output("dup", type, sampled, shape.cols);
                                   stage.run<QLORA_OP_SWIGLU_GRAD>(args);
                               }));
    bench.print(row);
}

void dropout(Bench &bench, const Shape &shape, int32_t type) {
    const uint64_t bytes = shape.rows * shape.cols * element_bytes(type), sampled = std::min<uint64_t>(shape.rows, 4);
    Bench::Row row = {QLORA_OP_DROPOUT, type, "dropout", shape.name(), format_name(type), shape.rows, {}, {}, 2.0 * double(bytes), 0, 0};
    if (!bench.wanted(row.workload, row.shape, row.type)) return;
    const size_t copies = bench.rotation(2 * bytes);
    const Ring x(bench, type, shape, copies, 1), y(bench, type, shape, copies, 2);
    auto args = qlora::make<qlora_dropout_args>();
    args.seed = 1;
    args.probability = 0.1f;
    row.ours = bench.time([&](uint64_t i) {
        args.x = x.at(i);
        args.y = y.at(i);
        bench.context().dropout_apply(args);
    });
    row.error = relative_error(y.first(sampled), by_ref(bench, [&](Stage &stage) {
                                   qlora_dropout_args one = {};
                                   one.seed = args.seed;
                                   one.probability = args.probability;
                                   one.x = stage.tensor(type, sampled, shape.cols, x.first(sampled));
                                   one.y = stage.output("y", type, sampled, shape.cols);
                                   stage.run<QLORA_OP_DROPOUT>(one);
                               }));
    bench.print(row);
}

void rope(Bench &bench, const Shape &shape, uint32_t head_dim, int32_t type) {
    const uint64_t bytes = shape.rows * shape.cols * element_bytes(type), sampled = std::min<uint64_t>(shape.rows, 4);
    Bench::Row row = {QLORA_OP_ROPE, type, "rope", shape.name(), format_name(type), shape.rows, {}, {}, 2.0 * double(bytes), 0, 0};
    if (!bench.wanted(row.workload, row.shape, row.type)) return;
    const Ring x(bench, type, shape, bench.rotation(bytes), 1);
    std::vector<int32_t> positions(shape.rows);
    for (uint64_t i = 0; i < shape.rows; i++) positions[i] = int32_t(i);
    const qlora::Buffer places(bench.context(), positions);
    auto args = qlora::make<qlora_rope_args>();
    args.positions = places.span();
    args.head_dim = head_dim;
    const std::vector<float> before = x.first(sampled);
    args.x = x.at(0);
    const qlora::Buffer scratch = bench.scratch(QLORA_OP_ROPE, args);
    args.scratch = scratch.span();
    bench.context().rope_apply(args);
    row.error = relative_error(x.first(sampled), by_ref(bench, [&](Stage &stage) {
                                   qlora_rope_args again = {};
                                   again.x = stage.output("x", type, sampled, shape.cols, 0, before);
                                   again.positions = stage.integers(std::vector<int32_t>(positions.begin(), positions.begin() + std::ptrdiff_t(sampled)));
                                   again.head_dim = head_dim;
                                   stage.run<QLORA_OP_ROPE>(again);
                               }));
    row.ours = bench.time([&](uint64_t i) {
        args.x = x.at(i);
        bench.context().rope_apply(args);
    });
    bench.print(row);
}

// Causal attention of one sequence; with a window, of the newest keys alone.
void attention(Bench &bench, uint64_t tokens, uint32_t window, uint32_t kv_heads) {
    const int32_t type = activations(bench);
    const uint32_t heads = bench.quick() ? 2 : 32, head_dim = bench.quick() ? 32 : 128;
    const uint64_t q_cols = uint64_t(heads) * head_dim, k_cols = uint64_t(kv_heads) * head_dim;
    const Shape q_shape = {tokens, q_cols}, k_shape = {tokens, k_cols};
    const std::string shape = std::to_string(heads) + "/" + std::to_string(kv_heads) + "x" + std::to_string(head_dim) + (window ? " window " + std::to_string(window) : " causal");
    if (!bench.wanted("attention forward backward", shape, format_name(type))) return;
    const Ring q(bench, type, q_shape, 1, 1), k(bench, type, k_shape, 1, 2), v(bench, type, k_shape, 1, 3), y(bench, type, q_shape, 1, 4), dy(bench, type, q_shape, 1, 5), dq(bench, type, q_shape, 1, 6),
        dk(bench, type, k_shape, 1, 7), dv(bench, type, k_shape, 1, 8);
    const qlora::Buffer lse(bench.context(), tokens * heads * 4), table(bench.context(), std::vector<int32_t>{0, int32_t(tokens), 0, int32_t(tokens)});
    auto describe = [&](auto &args, uint32_t h, uint32_t kv) {
        args.sequence_count = 1;
        args.heads = h;
        args.kv_heads = kv;
        args.head_dim = head_dim;
        args.window = window;
    };
    auto forward = qlora::make<qlora_attention_args>();
    describe(forward, heads, kv_heads);
    forward.q = q.at(0);
    forward.k = k.at(0);
    forward.v = v.at(0);
    forward.y = y.at(0);
    forward.lse = lse.span();
    forward.sequences = table.span();
    const qlora::Buffer forward_scratch = bench.scratch(QLORA_OP_ATTENTION, forward);
    forward.scratch = forward_scratch.span();
    const double hidden = window && window < tokens ? double(tokens - window) : 0; // keys that the last query does not see
    const double pairs = (double(tokens) * double(tokens + 1) - hidden * (hidden + 1)) / 2 * heads, bytes = double(tokens * (2 * q_cols + 2 * k_cols) * element_bytes(type));
    Bench::Row row = {QLORA_OP_ATTENTION, type, "attention forward", shape, format_name(type), tokens, {}, {}, bytes, 4 * pairs * head_dim, 0};
    row.ours = bench.time([&](uint64_t) { bench.context().attention_forward(forward); });

    // Parity: of the first group of heads the first tokens, which see nothing later, or the last ones with the keys of their window.
    const uint64_t sampled = std::min<uint64_t>(tokens, 96), q_first = window ? tokens - sampled : 0, k_first = hidden > 0 ? q_first - std::min<uint64_t>(q_first, window - 1) : 0;
    const uint64_t k_sampled = q_first + sampled - k_first;
    const uint32_t group = heads / kv_heads;
    auto columns = [&](const Ring &ring, uint64_t count) {
        const bool keys = ring.shape.cols == k_cols;
        const uint64_t first = keys ? k_first : q_first, end = first + (keys ? k_sampled : sampled);
        const std::vector<float> all = ring.first(end);
        std::vector<float> some;
        for (uint64_t r = first; r < end; r++) some.insert(some.end(), all.begin() + std::ptrdiff_t(r * ring.shape.cols), all.begin() + std::ptrdiff_t(r * ring.shape.cols + count));
        return some;
    };
    const uint64_t q_some = uint64_t(group) * head_dim, k_some = head_dim;
    const std::vector<int32_t> rows = {0, int32_t(sampled), 0, int32_t(k_sampled)};
    row.error = relative_error(columns(y, q_some), by_ref(bench, [&](Stage &stage) {
                                   qlora_attention_args args = {};
                                   describe(args, group, 1);
                                   args.q = stage.tensor(type, sampled, q_some, columns(q, q_some));
                                   args.k = stage.tensor(type, k_sampled, k_some, columns(k, k_some));
                                   args.v = stage.tensor(type, k_sampled, k_some, columns(v, k_some));
                                   args.y = stage.output("y", type, sampled, q_some);
                                   args.sequences = stage.integers(rows);
                                   stage.run<QLORA_OP_ATTENTION>(args);
                               }));
    bench.print(row);

    auto backward = qlora::make<qlora_attention_grad_args>();
    describe(backward, heads, kv_heads);
    backward.q = forward.q;
    backward.k = forward.k;
    backward.v = forward.v;
    backward.y = forward.y;
    backward.dy = dy.at(0);
    backward.dq = dq.at(0);
    backward.dk = dk.at(0);
    backward.dv = dv.at(0);
    backward.lse = lse.span();
    backward.sequences = table.span();
    const qlora::Buffer backward_scratch = bench.scratch(QLORA_OP_ATTENTION_GRAD, backward);
    backward.scratch = backward_scratch.span();
    row.workload = "attention backward";
    row.operation = QLORA_OP_ATTENTION_GRAD;
    row.bytes = double(tokens * (4 * q_cols + 4 * k_cols) * element_bytes(type));
    row.flops = 10 * pairs * head_dim;
    row.ours = bench.time([&](uint64_t) { bench.context().attention_grad(backward); });
    // dq of those tokens depends on nothing else.
    std::vector<float> lse_some;
    const std::vector<float> lse_all = part_of(lse, QLORA_FORMAT_F32, q_first * heads, sampled * heads);
    for (uint64_t r = 0; r < sampled; r++) lse_some.insert(lse_some.end(), lse_all.begin() + std::ptrdiff_t(r * heads), lse_all.begin() + std::ptrdiff_t(r * heads + group));
    std::vector<float> expected = by_ref(bench, [&](Stage &stage) {
        qlora_attention_grad_args args = {};
        describe(args, group, 1);
        args.dq = stage.output("dq", type, sampled, q_some);
        args.q = stage.tensor(type, sampled, q_some, columns(q, q_some));
        args.k = stage.tensor(type, k_sampled, k_some, columns(k, k_some));
        args.v = stage.tensor(type, k_sampled, k_some, columns(v, k_some));
        args.y = stage.tensor(type, sampled, q_some, columns(y, q_some));
        args.dy = stage.tensor(type, sampled, q_some, columns(dy, q_some));
        args.dk = stage.output("dk", type, k_sampled, k_some);
        args.dv = stage.output("dv", type, k_sampled, k_some);
        args.lse = stage.floats(lse_some);
        args.sequences = stage.integers(rows);
        stage.run<QLORA_OP_ATTENTION_GRAD>(args);
    });
    expected.resize(sampled * q_some);
    row.error = relative_error(columns(dq, q_some), expected);
    bench.print(row);
}

} // namespace

void bench_elementwise(Bench &bench) {
    const int32_t type = activations(bench);
    const uint64_t tokens = bench.quick() ? 5 : bench.on_gpu() ? 8192 : 2048;
    for (uint32_t flags : {0u, QLORA_FLAG_CENTERED}) norm(bench, {tokens, bench.quick() ? 128u : 4096u}, type, flags);
    const Shape hidden = {tokens, bench.quick() ? 128u : 11008u};
    activation(bench, "swiglu", QLORA_ACTIVATION_SILU, 0, hidden, type);
    activation(bench, "gelu_tanh gated", QLORA_ACTIVATION_GELU_TANH, 0, hidden, type);
    activation(bench, "gelu_tanh", QLORA_ACTIVATION_GELU_TANH, QLORA_FLAG_UNGATED, hidden, type);
    activation(bench, "gelu", QLORA_ACTIVATION_GELU, QLORA_FLAG_UNGATED, hidden, type);
    dropout(bench, {tokens, bench.quick() ? 64u : 4096u}, type);
    rope(bench, {tokens, bench.quick() ? 128u : 4096u}, bench.quick() ? 64 : 128, type);
}

void bench_attention(Bench &bench) {
    const uint32_t kv_heads = bench.quick() ? 1 : 8;
    attention(bench, bench.quick() ? 40 : bench.on_gpu() ? 2048 : 512, 0, kv_heads);
    attention(bench, bench.quick() ? 120 : 2048, bench.quick() ? 9 : 512, kv_heads);
    if (bench.on_gpu() && !bench.quick()) attention(bench, 512, 0, 32); // of a 7B model's short step
}

void bench_cross_entropy(Bench &bench) {
    const int32_t type = activations(bench);
    const uint64_t tokens = bench.quick() ? 6 : bench.on_gpu() ? 2048 : 64, cols = bench.quick() ? 64 : 4096, vocabulary = bench.quick() ? 97 : bench.on_gpu() ? 128256 : 32000;
    const std::string shape = std::to_string(vocabulary) + "x" + std::to_string(cols);
    const int32_t format = bench.on_gpu() ? QLORA_FORMAT_BF16 : QLORA_FORMAT_F16;
    const std::string type_name = format_name(format) + "/" + format_name(type);
    if (!bench.wanted("cross_entropy", shape, type_name)) return;
    const Ring x(bench, type, {tokens, cols}, 1, 1), dx(bench, type, {tokens, cols}, 1, 2);
    const qlora::Buffer head = bench.random(format, vocabulary * cols, 3, 0.02), losses(bench.context(), tokens * 4);
    const std::vector<int32_t> targets = random_integers(tokens, 4, 0, int32_t(vocabulary));
    const qlora::Buffer ids(bench.context(), targets);
    auto weight = qlora::make<qlora_weight>();
    weight.format = format;
    weight.rows = vocabulary;
    weight.cols = cols;
    weight.planes[QLORA_PLANE_CODE] = head.span(0, vocabulary * cols * 2);
    auto args = qlora::make<qlora_cross_entropy_args>();
    args.weight = &weight;
    args.x = x.at(0);
    args.dx = dx.at(0);
    args.targets = ids.span();
    args.losses = losses.span();
    args.grad_scale = 1;
    const qlora::Buffer scratch = bench.scratch(QLORA_OP_CROSS_ENTROPY, args);
    args.scratch = scratch.span();
    const double work = 4.0 * double(tokens) * double(vocabulary) * double(cols), bytes = double(vocabulary * cols * 2);
    Bench::Row row = {QLORA_OP_CROSS_ENTROPY, type, "cross_entropy", shape, type_name, tokens, {}, {}, bytes, work, 0};
    row.ours = bench.time([&](uint64_t) { bench.context().cross_entropy_loss(args); });
    const std::vector<uint8_t> planes = head.read<uint8_t>();
    HostWeight copy = {weight, {}};
    copy.planes[QLORA_PLANE_CODE].assign(planes.begin(), planes.begin() + std::ptrdiff_t(vocabulary * cols * 2));
    const std::vector<float> expected = by_ref(bench, [&](Stage &stage) {
        qlora_cross_entropy_args again = {};
        again.weight = stage.weight(copy);
        again.x = stage.tensor(type, 1, cols, x.first(1));
        again.dx = stage.output("dx", type, 1, cols);
        again.targets = stage.integers({targets[0]});
        again.losses = stage.output_floats("losses", 1);
        again.grad_scale = 1;
        stage.run<QLORA_OP_CROSS_ENTROPY>(again);
    });
    std::vector<float> found = dx.first(1);
    found.push_back(part_of(losses, QLORA_FORMAT_F32, 0, 1)[0]);
    row.error = relative_error(found, expected);
    bench.print(row);
}

} // namespace bench
