// Cases of the training operations that take no quantized weight, and of the head with its loss.
#include "tests/support/shapes.h"

namespace test {
namespace {

std::vector<float> around_one(uint64_t count, uint64_t seed) {
    std::vector<float> values = random_values(count, seed, 0.3);
    for (float &value : values) value += 1;
    return values;
}

struct Rows {
    uint64_t rows, cols;
};
constexpr Rows row_shapes[] = {{1, 1}, {1, 64}, {3, 63}, {5, 65}, {7, 257}, {129, 31}, {33, 384}, {2, 2049}, {4, 5120}};

std::string name_of(int32_t type, const Rows &shape) {
    return format_name(type) + " " + std::to_string(shape.rows) + "x" + std::to_string(shape.cols);
}

// 1 / sqrt(mean(x^2) + epsilon) of the values as the type holds them: what a forward call would have stored.
std::vector<float> rstd_of(const std::vector<float> &x, const Rows &shape, int32_t type, double epsilon, bool centered) {
    std::vector<float> rstd(shape.rows);
    for (uint64_t r = 0; r < shape.rows; r++) {
        double mean = 0, sum = 0;
        for (uint64_t c = 0; centered && c < shape.cols; c++) mean += double(round_to(type, x[r * shape.cols + c])) / double(shape.cols);
        for (uint64_t c = 0; c < shape.cols; c++) {
            const double value = round_to(type, x[r * shape.cols + c]) - mean;
            sum += value * value;
        }
        rstd[r] = float(1 / std::sqrt(sum / double(shape.cols) + epsilon));
    }
    return rstd;
}

} // namespace

template <> std::vector<Case> cases<QLORA_OP_RMS_NORM>() {
    std::vector<Case> list;
    uint32_t variant = 0;
    for (int32_t type : types)
        for (const Rows &shape : row_shapes) {
            variant++;
            // Plain, centered, accumulating and both, in turn.
            const uint32_t flags = (variant % 2 ? QLORA_FLAG_CENTERED : 0) | (variant % 7 % 2 ? QLORA_FLAG_ACCUMULATE : 0);
            if (shape.cols == 1 && flags & QLORA_FLAG_CENTERED) continue; // zero but for rounding
            list.push_back({name_of(type, shape) + " flags " + std::to_string(flags), 0, type, 0, [=](Stage &stage) {
                                qlora_rms_norm_args args = {};
                                const uint64_t stride = variant % 3 ? 0 : shape.cols + 3;
                                std::vector<float> x = random_values(shape.rows * shape.cols, 2, 2);
                                for (float &value : x) value += flags & QLORA_FLAG_CENTERED ? 1.5f : 0;
                                args.flags = flags;
                                args.weight = stage.tensor(types[variant % 3], 1, shape.cols, around_one(shape.cols, 3));
                                args.epsilon = 1e-5f;
                                if (variant % 3) args.bias = stage.tensor(types[variant % 4 % 3], 1, shape.cols, random_values(shape.cols, 7));
                                if (variant % 4 == 0 && !(flags & QLORA_FLAG_ACCUMULATE)) { // in place
                                    args.x = args.y = stage.output("y", type, shape.rows, shape.cols, stride, x);
                                } else {
                                    args.x = stage.tensor(type, shape.rows, shape.cols, x, stride);
                                    args.y = stage.output("y", type, shape.rows, shape.cols, stride, flags & QLORA_FLAG_ACCUMULATE ? random_values(shape.rows * shape.cols, 5) : std::vector<float>());
                                }
                                if (variant % 5) args.rstd = stage.output_floats("rstd", shape.rows);
                                stage.run<QLORA_OP_RMS_NORM>(args);
                            }});
        }
    return list;
}

template <> std::vector<Case> cases<QLORA_OP_RMS_NORM_GRAD>() {
    std::vector<Case> list;
    uint32_t variant = 0;
    for (int32_t type : types)
        for (const Rows &shape : row_shapes)
            for (uint32_t flags : {0u, 1u, 2u, 3u, QLORA_FLAG_CENTERED, QLORA_FLAG_CENTERED | 3u}) {
                variant++;
                if (shape.cols == 1 && (!(flags & QLORA_FLAG_ACCUMULATE) || flags & QLORA_FLAG_CENTERED)) continue; // dx is zero but for rounding
                list.push_back({name_of(type, shape) + " flags " + std::to_string(flags), 0, type, 0, [=](Stage &stage) {
                                    qlora_rms_norm_grad_args args = {};
                                    const uint64_t count = shape.rows * shape.cols, stride = variant % 3 ? 0 : shape.cols + 3;
                                    std::vector<float> x = random_values(count, 2, 2);
                                    for (float &value : x) value += flags & QLORA_FLAG_CENTERED ? 1.5f : 0;
                                    const std::vector<float> dy = random_values(count, 4);
                                    const bool in_place = variant % 4 == 1 && !(flags & QLORA_FLAG_ACCUMULATE);
                                    args.flags = flags;
                                    args.x = stage.tensor(type, shape.rows, shape.cols, x, stride);
                                    args.weight = stage.tensor(types[variant % 3], 1, shape.cols, around_one(shape.cols, 3));
                                    args.rstd = stage.floats(rstd_of(x, shape, type, 1e-5, flags & QLORA_FLAG_CENTERED));
                                    args.dx = stage.output("dx", type, shape.rows, shape.cols, stride, in_place ? dy : flags & QLORA_FLAG_ACCUMULATE ? random_values(count, 5) : std::vector<float>());
                                    args.dy = in_place ? args.dx : stage.tensor(type, shape.rows, shape.cols, dy, stride);
                                    if (variant % 5)
                                        args.dweight = stage.output_floats("dweight", shape.cols, flags & QLORA_FLAG_ACCUMULATE_GRADIENTS ? random_values(shape.cols, 6) : std::vector<float>());
                                    if (variant % 4)
                                        args.dbias = stage.output_floats("dbias", shape.cols, flags & QLORA_FLAG_ACCUMULATE_GRADIENTS ? random_values(shape.cols, 8) : std::vector<float>());
                                    stage.run<QLORA_OP_RMS_NORM_GRAD>(args);
                                }});
            }
    list.push_back({"f32 no rows", 0, QLORA_FORMAT_F32, 0, [](Stage &stage) {
                        qlora_rms_norm_grad_args args = {};
                        args.x = args.dy = stage.tensor(QLORA_FORMAT_F32, 0, 65, {});
                        args.dx = stage.output("dx", QLORA_FORMAT_F32, 0, 65);
                        args.weight = stage.tensor(QLORA_FORMAT_F32, 1, 65, around_one(65, 3));
                        args.dweight = stage.output_floats("dweight", 65, random_values(65, 6));
                        args.dbias = stage.output_floats("dbias", 65, random_values(65, 8));
                        stage.run<QLORA_OP_RMS_NORM_GRAD>(args);
                    }});
    return list;
}

template <> std::vector<Case> cases<QLORA_OP_ROPE>() {
    struct Heads {
        uint32_t heads, head_dim, rotary_dim;
    };
    std::vector<Case> list;
    uint32_t variant = 0;
    for (int32_t type : types)
        for (int32_t layout : {QLORA_ROPE_ADJACENT, QLORA_ROPE_HALF})
            for (const Heads &shape : {Heads{1, 2, 0}, Heads{3, 64, 0}, Heads{2, 80, 32}, Heads{5, 7, 6}, Heads{2, 128, 0}})
                for (uint32_t flags : {0u, QLORA_FLAG_INVERSE}) {
                    variant++;
                    list.push_back({format_name(type) + " layout " + std::to_string(layout) + " " + std::to_string(shape.heads) + "x" + std::to_string(shape.head_dim) + " rotary " +
                                        std::to_string(shape.rotary_dim) + " flags " + std::to_string(flags),
                                    0, type, 0, [=](Stage &stage) {
                                        qlora_rope_args args = {};
                                        const uint64_t tokens = 29, cols = uint64_t(shape.heads) * shape.head_dim;
                                        const uint32_t pairs = (shape.rotary_dim ? shape.rotary_dim : shape.head_dim) / 2;
                                        args.flags = flags;
                                        args.x = stage.output("x", type, tokens, cols, variant % 3 ? 0 : cols + 3, random_values(tokens * cols, 2));
                                        args.positions = stage.integers(random_integers(tokens, 3, 0, variant % 2 ? 64 : 1024));
                                        if (variant % 4 == 0) args.freq_factors = stage.floats(around_one(pairs, 4));
                                        args.head_dim = shape.head_dim;
                                        args.rotary_dim = shape.rotary_dim;
                                        args.layout = layout;
                                        if (variant % 3 == 1) args.freq_base = 500000;
                                        if (variant % 5 == 1) args.freq_scale = 0.25f;
                                        if (variant % 5 == 2) args.magnitude = 1.1f;
                                        stage.run<QLORA_OP_ROPE>(args);
                                    }});
                }
    return list;
}

namespace {

constexpr int32_t activations[] = {QLORA_ACTIVATION_SILU, QLORA_ACTIVATION_GELU, QLORA_ACTIVATION_GELU_TANH, QLORA_ACTIVATION_RELU};

// Values of the gate, some of them where exponentials overflow (near 88) and cubes are large.
std::vector<float> gate_values(uint64_t count) {
    std::vector<float> gate = random_values(count, 2, 3);
    for (uint64_t i = 5; i < count; i += 29) gate[i] = i % 2 ? 95.0f : -95.0f;
    return gate;
}

// Calls act(type, shape, activation, ungated, variant) for every kind: each shape gated and not, activations in turn.
template <class Act> std::vector<Case> activation_cases(Act &&act) {
    std::vector<Case> list;
    uint32_t variant = 0;
    for (int32_t type : types)
        for (const Rows &shape : row_shapes)
            for (bool ungated : {false, true}) {
                variant++;
                const int32_t activation = ungated ? activations[variant / 2 % 4] : activations[variant / 2 % 5 % 4];
                list.push_back({name_of(type, shape) + " activation " + std::to_string(activation) + (ungated ? " ungated" : ""), 0, type, 0,
                                [=](Stage &stage) { act(stage, type, shape, activation, ungated, variant / 2); }});
            }
    return list;
}

} // namespace

template <> std::vector<Case> cases<QLORA_OP_SWIGLU>() {
    return activation_cases([](Stage &stage, int32_t type, const Rows &shape, int32_t activation, bool ungated, uint32_t variant) {
        qlora_swiglu_args args = {};
        const uint64_t count = shape.rows * shape.cols, stride = variant % 3 ? 0 : shape.cols + 3, up_stride = variant % 2 ? stride : 0;
        const std::vector<float> gate = gate_values(count);
        args.flags = ungated ? QLORA_FLAG_UNGATED : 0;
        args.activation = activation;
        args.gate = variant % 4 == 1 ? stage.output("y", type, shape.rows, shape.cols, stride, gate) : stage.tensor(type, shape.rows, shape.cols, gate, stride);
        if (!ungated)
            args.up = variant % 4 == 2 ? stage.output("y", type, shape.rows, shape.cols, up_stride, random_values(count, 3))
                                       : stage.tensor(type, shape.rows, shape.cols, random_values(count, 3), up_stride);
        args.y = variant % 4 == 1 ? args.gate : variant % 4 == 2 && !ungated ? args.up : stage.output("y", type, shape.rows, shape.cols, stride);
        stage.run<QLORA_OP_SWIGLU>(args);
    });
}

template <> std::vector<Case> cases<QLORA_OP_SWIGLU_GRAD>() {
    return activation_cases([](Stage &stage, int32_t type, const Rows &shape, int32_t activation, bool ungated, uint32_t variant) {
        qlora_swiglu_grad_args args = {};
        const uint64_t count = shape.rows * shape.cols, stride = variant % 3 ? 0 : shape.cols + 3;
        const std::vector<float> gate = gate_values(count);
        args.flags = ungated ? QLORA_FLAG_UNGATED : 0;
        args.activation = activation;
        args.dy = stage.tensor(type, shape.rows, shape.cols, random_values(count, 4), stride);
        args.dgate = stage.output("dgate", type, shape.rows, shape.cols, stride, variant % 2 ? gate : std::vector<float>());
        args.gate = variant % 2 ? args.dgate : stage.tensor(type, shape.rows, shape.cols, gate, stride);
        if (!ungated) {
            args.dup = stage.output("dup", type, shape.rows, shape.cols, stride, variant % 2 ? random_values(count, 3) : std::vector<float>());
            args.up = variant % 2 ? args.dup : stage.tensor(type, shape.rows, shape.cols, random_values(count, 3), stride);
        }
        stage.run<QLORA_OP_SWIGLU_GRAD>(args);
    });
}

template <> std::vector<Case> cases<QLORA_OP_DROPOUT>() {
    std::vector<Case> list;
    uint32_t variant = 0;
    for (int32_t type : types)
        for (const Rows &shape : row_shapes)
            for (uint32_t flags : {0u, QLORA_FLAG_ACCUMULATE}) {
                variant++;
                list.push_back({name_of(type, shape) + " flags " + std::to_string(flags), 0, type, 0, [=](Stage &stage) {
                                    qlora_dropout_args args = {};
                                    const uint64_t count = shape.rows * shape.cols, stride = variant % 3 ? 0 : shape.cols + 3;
                                    const float probabilities[] = {0.5f, 0.05f, 0, 0.99f};
                                    const std::vector<float> x = random_values(count, 2), y = random_values(count, 3);
                                    const bool in_place = variant % 4 == 1 && !flags;
                                    args.flags = flags;
                                    args.seed = 0x123456789abcdefu * variant;
                                    args.probability = probabilities[variant % 5 % 4];
                                    args.y = stage.output("y", type, shape.rows, shape.cols, stride, in_place ? x : flags ? y : std::vector<float>());
                                    args.x = in_place ? args.y : stage.tensor(type, shape.rows, shape.cols, x, variant % 2 ? stride : 0);
                                    stage.run<QLORA_OP_DROPOUT>(args);
                                }});
            }
    return list;
}

template <> std::vector<Case> cases<QLORA_OP_CROSS_ENTROPY>() {
    std::vector<Case> list;
    for_formats_and_shapes(1, [&](int32_t format, Arithmetic arithmetic, Shape shape, uint32_t variant) {
        list.push_back({format_name(format) + " " + name_of(arithmetic) + " " + name_of(shape) + " #" + std::to_string(variant), format, arithmetic.type, arithmetic.compute_type, [=](Stage &stage) {
                            qlora_cross_entropy_args args = {};
                            const uint64_t count = shape.tokens * shape.cols;
                            args.weight = stage.weight(host_weight(format, shape.rows, shape.cols));
                            args.compute_type = arithmetic.compute_type;
                            args.x = stage.tensor(arithmetic.type, shape.tokens, shape.cols, random_values(count, 2, 1.5), variant % 3 == 2 ? shape.cols + 3 : 0);
                            if (variant % 4 != 3) args.dx = stage.output("dx", arithmetic.type, shape.tokens, shape.cols, variant % 3 == 2 ? shape.cols + 1 : 0);
                            std::vector<int32_t> targets = random_integers(shape.tokens, 3, 0, int32_t(shape.rows));
                            for (size_t i = 1; i < targets.size(); i += 3) targets[i] = i % 2 ? -100 : -1;
                            args.targets = stage.integers(targets);
                            args.losses = stage.output_floats("losses", shape.tokens);
                            args.grad_scale = 0.125f;
                            args.chunk_rows = variant % 2 ? 0 : 4;
                            if (variant % 5 == 1) args.bias = stage.floats(random_values(shape.rows, 5));
                            if (variant % 5 == 2 || variant % 10 == 1) args.soft_cap = 3;
                            stage.run<QLORA_OP_CROSS_ENTROPY>(args);
                        }});
    });
    return list;
}

} // namespace test
