// Cases of the gradient norm and of the optimizer, over lists of tensors of awkward sizes.
#include "tests/support/shapes.h"

namespace test {
namespace {

// Lists of element counts: one, none, many, and more elements than one block or chunk of any backend.
const std::vector<std::vector<uint64_t>> &lists() {
    static const std::vector<std::vector<uint64_t>> all = {
        {1}, {255, 256, 257}, {8, 3072, 1, 70001, 31}, {262145}, std::vector<uint64_t>(130, 37), {5, 0, 7},
    };
    return all;
}

std::string name_of(const std::vector<uint64_t> &counts) { return std::to_string(counts.size()) + " tensors from " + std::to_string(counts[0]); }

} // namespace

template <> std::vector<Case> cases<QLORA_OP_GRADIENT_NORM>() {
    std::vector<Case> list;
    for (const std::vector<uint64_t> &counts : lists())
        for (bool each : {false, true})
            list.push_back({name_of(counts) + (each ? " each" : ""), 0, QLORA_FORMAT_F32, 0, [=](Stage &stage) {
                                qlora_gradient_norm_args args = {};
                                std::vector<qlora_parameter> parameters;
                                for (uint64_t count : counts) {
                                    auto parameter = qlora::make<qlora_parameter>();
                                    parameter.count = count;
                                    parameter.gradient = stage.floats(random_values(count, 3 + parameters.size(), 0.01));
                                    parameters.push_back(parameter);
                                }
                                args.parameters = parameters.data();
                                args.parameter_count = uint32_t(parameters.size());
                                args.norm = stage.output_floats("norm", 1);
                                if (each) args.norms = stage.output_floats("norms", parameters.size());
                                if (each) args.gradient_scale = 0.25f;
                                stage.run<QLORA_OP_GRADIENT_NORM>(args);
                            }});
    list.push_back({"empty list", 0, QLORA_FORMAT_F32, 0, [](Stage &stage) {
                        qlora_gradient_norm_args args = {};
                        args.norm = stage.output_floats("norm", 1);
                        stage.run<QLORA_OP_GRADIENT_NORM>(args);
                    }});
    return list;
}

namespace {

// How one case of the optimizer differs from the plain one.
struct Way {
    std::string name;
    int32_t algorithm = QLORA_OPTIMIZER_ADAMW, value_type = QLORA_FORMAT_F32, gradient_type = QLORA_FORMAT_F32, state_type = QLORA_FORMAT_F32;
    uint32_t flags = 0;
    uint64_t step = 7;
    float max_unorm = 0;
    uint32_t percentile = 0;
    bool norm = false, norms = false, paged = false, wild = false; // wild: gradients with zeros, NaN and infinity
    std::vector<uint64_t> counts = {257, 4096 + 300, 1, 0, 9000};
};

// State that a step may find: 8-bit codes of which none is negative where the algorithm's state is not.
std::vector<uint8_t> some_codes(uint64_t count, uint64_t seed, bool positive) {
    std::vector<uint8_t> codes(count);
    for (uint64_t i = 0; i < count; i++) codes[i] = uint8_t(positive ? 127 + mix(seed, i) % 129 : mix(seed, i));
    return codes;
}

void act(const Way &way, Stage &stage) {
    qlora_optimizer_args args = {};
    std::vector<qlora_parameter> parameters;
    const bool small = way.state_type == QLORA_FORMAT_DYN8;
    for (uint64_t count : way.counts) {
        auto parameter = qlora::make<qlora_parameter>();
        auto layout = qlora::make<qlora_state_layout_info>();
        const uint64_t seed = 20 * parameters.size();
        const std::string number = " " + std::to_string(parameters.size());
        parameter.count = count;
        parameter.value_type = way.value_type;
        parameter.gradient_type = way.gradient_type;
        parameter.state_type = layout.state_type = way.state_type;
        layout.algorithm = way.algorithm;
        layout.min_8bit_size = 1;
        qlora_state_layout(&parameter, &layout);
        std::vector<float> gradient = random_values(count, seed + 1, 0.01);
        for (uint64_t i = 0; i < count && way.wild; i++)
            if (i % 11 == 3) gradient[i] = i % 2 ? 0.0f : -0.0f;
            else if (i % 97 == 5 && small) gradient[i] = i % 2 ? HUGE_VALF : NAN;
        const bool zeroed = way.flags & QLORA_FLAG_ZERO_GRADIENTS;
        parameter.gradient = zeroed ? stage.output("gradient" + number, way.gradient_type, 1, count, 0, gradient).data : stage.tensor(way.gradient_type, 1, count, gradient).data;
        parameter.value = stage.output("value" + number, way.value_type, 1, count, 0, random_values(count, seed + 2, 0.1)).data;
        qlora_span *const spans[QLORA_STATE_COUNT] = {&parameter.state1, &parameter.state2, &parameter.state3, &parameter.absmax1, &parameter.absmax2, &parameter.absmax3};
        for (int piece = 0; piece < QLORA_STATE_COUNT; piece++) {
            const std::string name = "piece " + std::to_string(piece) + number;
            if (layout.piece_bytes[piece] == 0) continue;
            const bool squares = piece % 3 == 1 || way.algorithm == QLORA_OPTIMIZER_RMSPROP || way.algorithm == QLORA_OPTIMIZER_ADAGRAD;
            std::vector<float> values = random_values(layout.piece_bytes[piece] / 4, seed + 3 + uint64_t(piece), 1e-2);
            for (float &value : values) value = squares ? value * value : piece >= QLORA_STATE_ABSMAX1 ? std::fabs(value) : value;
            if (small && piece < QLORA_STATE_ABSMAX1) *spans[piece] = stage.output_codes(name, some_codes(count, seed + 3 + uint64_t(piece), squares && piece != 1));
            else *spans[piece] = stage.output_floats(name, values.size(), values);
        }
        if (way.percentile) {
            std::vector<float> history = random_values(100, seed + 15, 0.5);
            for (float &value : history) value = std::fabs(value);
            parameter.history = stage.output_floats("history" + number, 100, history);
        }
        if (parameters.size() % 2) parameter.learning_rate_scale = 4;
        if (parameters.size() == 4) parameter.flags |= QLORA_PARAMETER_NO_DECAY;
        if (way.paged && parameters.size() != 2) parameter.flags |= QLORA_PARAMETER_PAGED;
        parameters.push_back(parameter);
    }
    args.flags = way.flags;
    args.parameters = parameters.data();
    args.parameter_count = uint32_t(parameters.size());
    args.algorithm = way.algorithm;
    args.step = way.step;
    args.learning_rate = 5e-3f;
    args.weight_decay = 0.1f;
    args.epsilon = 1e-6f;
    args.max_unorm = way.max_unorm;
    args.percentile = way.percentile;
    args.seed = 0x123456789abcdefu;
    args.gradient_scale = 0.5f;
    if (way.norm) { // clips, or is no number at all
        args.norm = stage.floats({way.flags & QLORA_FLAG_SKIP_STEP ? NAN : 3.5f});
        args.max_norm = 1;
    }
    if (way.norms) {
        std::vector<float> norms = random_values(parameters.size(), 5, 0.5);
        for (float &norm : norms) norm = std::fabs(norm);
        if (way.flags & QLORA_FLAG_SKIP_TENSORS) norms[1] = HUGE_VALF;
        args.norms = stage.floats(norms);
    }
    args.skipped = stage.output_integers("skipped", parameters.size());
    args.factors = stage.output_floats("factors", parameters.size());
    if (way.paged) args.window = stage.workspace(3 * (args.page_bytes = 3 * (small ? 8448 : 32768)));
    stage.run<QLORA_OP_OPTIMIZER_STEP>(args);
}

} // namespace

template <> std::vector<Case> cases<QLORA_OP_OPTIMIZER_STEP>() {
    std::vector<Case> list;
    auto add = [&](const Way &way) { list.push_back({way.name, 0, way.value_type, 0, [=](Stage &stage) { act(way, stage); }}); };
    static const struct { int32_t number; const char *name; } algorithms[] = {
        {QLORA_OPTIMIZER_ADAMW, "adamw"}, {QLORA_OPTIMIZER_ADAM, "adam"}, {QLORA_OPTIMIZER_STABLE_ADAMW, "stable adamw"}, {QLORA_OPTIMIZER_LION, "lion"}, {QLORA_OPTIMIZER_MOMENTUM, "momentum"},
        {QLORA_OPTIMIZER_RMSPROP, "rmsprop"}, {QLORA_OPTIMIZER_ADAGRAD, "adagrad"}, {QLORA_OPTIMIZER_LAMB, "lamb"}, {QLORA_OPTIMIZER_LARS, "lars"}, {QLORA_OPTIMIZER_ADEMAMIX, "ademamix"}};
    const int32_t f32 = QLORA_FORMAT_F32, f16 = QLORA_FORMAT_F16, bf16 = QLORA_FORMAT_BF16, small = QLORA_FORMAT_DYN8;
    for (const auto &algorithm : algorithms) {
        const std::string name = algorithm.name;
        Way way;
        way.algorithm = algorithm.number;
        auto with = [&](const std::string &what, int32_t value, int32_t gradient, int32_t state, uint32_t flags, uint64_t step = 7) {
            Way other = way;
            other.name = name + " " + what;
            other.value_type = value;
            other.gradient_type = gradient;
            other.state_type = state;
            other.flags = flags;
            other.step = step;
            add(other);
        };
        with("f32", f32, f32, f32, 0);
        with("f32 step 1", f32, f32, f32, 0, 1);
        with("8-bit", f32, f32, small, 0, 100);
        with("bf16 8-bit", bf16, bf16, small, 0);
        with("f16 values, f32 gradients", f16, f32, f32, QLORA_FLAG_ZERO_GRADIENTS);
        way.paged = true;
        with("paged", f32, bf16, f32, 0);
        with("paged 8-bit", f32, f32, small, 0);
        way.paged = false;
        way.wild = true;
        with("zeros and worse", f32, f32, small, 0);
        with("zeros skipped", f32, f16, f32, QLORA_FLAG_SKIP_ZEROS);
        with("zeros skipped 8-bit", bf16, f32, small, QLORA_FLAG_SKIP_ZEROS | QLORA_FLAG_ZERO_GRADIENTS);
        way.wild = false;
        if (algorithm.number == QLORA_OPTIMIZER_STABLE_ADAMW) continue;
        for (int32_t type : types) {
            with("theirs " + format_name(type), type, type, f32, QLORA_FLAG_BITSANDBYTES);
            with("theirs 8-bit " + format_name(type), type, type, small, QLORA_FLAG_BITSANDBYTES, 1);
        }
    }
    for (int32_t algorithm : {QLORA_OPTIMIZER_ADAMW, QLORA_OPTIMIZER_ADAM, QLORA_OPTIMIZER_MOMENTUM, QLORA_OPTIMIZER_RMSPROP})
        for (int32_t state : {f32, small}) {
            Way way;
            way.name = "max_unorm #" + std::to_string(algorithm) + (state == small ? " 8-bit" : "");
            way.algorithm = algorithm;
            way.state_type = state;
            way.max_unorm = 0.03f;
            add(way);
            way.name += " theirs";
            way.flags = QLORA_FLAG_BITSANDBYTES;
            add(way);
        }
    for (int32_t type : {f16, bf16})
        for (int32_t state : {f32, small}) {
            Way way;
            way.name = "stochastic " + format_name(type) + (state == small ? " 8-bit" : "");
            way.value_type = way.gradient_type = type;
            way.state_type = state;
            way.flags = QLORA_FLAG_STOCHASTIC;
            add(way);
            way.name += " paged";
            way.paged = true;
            add(way);
        }
    for (const std::vector<uint64_t> &counts : lists())
        for (uint64_t step : {1, 100000}) {
            Way way;
            way.name = name_of(counts) + " step " + std::to_string(step);
            way.counts = counts;
            way.step = step;
            way.norm = step == 1;
            add(way);
            way.name += " 8-bit";
            way.state_type = small;
            add(way);
        }
    Way way;
    way.norm = way.norms = true;
    way.name = "step skipped";
    way.flags = QLORA_FLAG_SKIP_STEP | QLORA_FLAG_ZERO_GRADIENTS;
    add(way);
    way.name = "tensor skipped";
    way.flags = QLORA_FLAG_SKIP_TENSORS;
    add(way);
    for (uint32_t percentile : {1u, 50u, 99u})
        for (uint64_t step : {1, 30, 205}) {
            way.name = "percentile " + std::to_string(percentile) + " step " + std::to_string(step);
            way.percentile = percentile;
            way.step = step;
            add(way);
        }
    return list;
}

} // namespace test
