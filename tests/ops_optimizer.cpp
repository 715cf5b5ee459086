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

template <> std::vector<Case> cases<QLORA_OP_OPTIMIZER_STEP>() {
    std::vector<Case> list;
    for (const std::vector<uint64_t> &counts : lists())
        for (uint32_t variant = 0; variant < 3; variant++)
            list.push_back({name_of(counts) + " #" + std::to_string(variant), 0, QLORA_FORMAT_F32, 0, [=](Stage &stage) {
                                qlora_optimizer_args args = {};
                                std::vector<qlora_parameter> parameters;
                                for (uint64_t count : counts) {
                                    auto parameter = qlora::make<qlora_parameter>();
                                    const uint64_t seed = 10 * parameters.size();
                                    const std::string number = std::to_string(parameters.size());
                                    std::vector<float> second = random_values(count, seed + 4, 1e-3);
                                    for (float &value : second) value *= value;
                                    parameter.count = count;
                                    parameter.gradient = stage.floats(random_values(count, seed + 1, 0.01));
                                    parameter.value = stage.output_floats("value " + number, count, random_values(count, seed + 2));
                                    parameter.state1 = stage.output_floats("state1 " + number, count, variant ? random_values(count, seed + 3, 1e-3) : std::vector<float>(count, 0.0f));
                                    parameter.state2 = stage.output_floats("state2 " + number, count, variant ? second : std::vector<float>(count, 0.0f));
                                    if (parameters.size() % 2) parameter.learning_rate_scale = 16;
                                    parameters.push_back(parameter);
                                }
                                args.parameters = parameters.data();
                                args.parameter_count = uint32_t(parameters.size());
                                args.algorithm = QLORA_OPTIMIZER_ADAMW;
                                args.step = variant == 0 ? 1 : variant == 1 ? 7 : 100000;
                                args.learning_rate = 5e-3f;
                                if (variant == 1) args.weight_decay = 0.5f;
                                if (variant == 2) { args.beta1 = 0.8f; args.beta2 = 0.95f; args.epsilon = 1e-6f; args.gradient_scale = 0.5f; }
                                if (variant) { // one clips, one does not
                                    args.norm = stage.floats({variant == 1 ? 3.5f : 0.5f});
                                    args.max_norm = 1;
                                }
                                stage.run<QLORA_OP_OPTIMIZER_STEP>(args);
                            }});
    return list;
}

} // namespace test
