// The optimizer over several steps against a loop in double, with clipping by the norm that the library computes itself.
#include "tests/support/comparison.h"
#include "tests/support/inputs.h"
#include "tests/support/targets.h"

#include <doctest/doctest.h>

using namespace test;

namespace {

struct Tensor {
    std::vector<double> value, first, second;
    qlora::Buffer value_buffer, gradient_buffer, first_buffer, second_buffer;
    float rate_scale;
};

} // namespace

TEST_SUITE_BEGIN("optim");

TEST_CASE("AdamW with clipping follows a loop in double") {
    for (const Target &target : targets()) {
        const qlora::Context &context = shared_context(target);
        const std::vector<uint64_t> counts = {8 * 384, 1, 1000003 % 70001, 8 * 1024};
        const float rate = 5e-3f, decay = 0.5f, max_norm = 1.0f, gradient_scale = 0.25f, beta1 = 0.9f, beta2 = 0.999f, epsilon = 1e-8f;
        std::vector<Tensor> tensors(counts.size());
        std::vector<qlora_parameter> parameters;
        for (size_t i = 0; i < counts.size(); i++) {
            Tensor &tensor = tensors[i];
            const std::vector<float> value = random_values(counts[i], 50 + i, 0.1), zero(counts[i], 0.0f);
            tensor.value.assign(value.begin(), value.end());
            tensor.first.assign(counts[i], 0.0);
            tensor.second.assign(counts[i], 0.0);
            tensor.value_buffer = qlora::Buffer(context, value);
            tensor.gradient_buffer = qlora::Buffer(context, zero);
            tensor.first_buffer = qlora::Buffer(context, zero);
            tensor.second_buffer = qlora::Buffer(context, zero);
            tensor.rate_scale = i % 2 ? 4.0f : 0.0f;
            auto parameter = qlora::make<qlora_parameter>();
            parameter.count = counts[i];
            parameter.value = tensor.value_buffer.span();
            parameter.gradient = tensor.gradient_buffer.span();
            parameter.state1 = tensor.first_buffer.span();
            parameter.state2 = tensor.second_buffer.span();
            parameter.learning_rate_scale = tensor.rate_scale;
            parameters.push_back(parameter);
        }
        const qlora::Buffer norm(context, 4);
        for (uint64_t step = 1; step <= 6; step++) {
            std::vector<std::vector<float>> gradients;
            double squares = 0;
            for (size_t i = 0; i < counts.size(); i++) {
                gradients.push_back(random_values(counts[i], 100 * step + i, step % 2 ? 1.0 : 0.001)); // odd steps clip
                tensors[i].gradient_buffer.write(gradients[i].data(), counts[i] * 4);
                for (float value : gradients[i]) squares += double(value) * value;
            }
            auto sum = qlora::make<qlora_gradient_norm_args>();
            sum.parameters = parameters.data();
            sum.parameter_count = uint32_t(parameters.size());
            sum.norm = norm.span();
            sum.gradient_scale = gradient_scale;
            const qlora::Buffer sum_scratch(context, context.operation_scratch(QLORA_OP_GRADIENT_NORM, sum));
            sum.scratch = sum_scratch.span();
            context.gradient_norm(sum);
            const double expected_norm = gradient_scale * std::sqrt(squares), found_norm = norm.read<float>()[0];
            CHECK_MESSAGE(std::fabs(found_norm / expected_norm - 1) <= tolerance(QLORA_OP_GRADIENT_NORM, QLORA_FORMAT_F32), text(target.name, " ", found_norm, " ", expected_norm));

            auto args = qlora::make<qlora_optimizer_args>();
            args.parameters = parameters.data();
            args.parameter_count = uint32_t(parameters.size());
            args.algorithm = QLORA_OPTIMIZER_ADAMW;
            args.step = step;
            args.norm = norm.span();
            args.max_norm = max_norm;
            args.gradient_scale = gradient_scale;
            args.learning_rate = rate;
            args.weight_decay = decay;
            const qlora::Buffer scratch(context, context.operation_scratch(QLORA_OP_OPTIMIZER_STEP, args));
            args.scratch = scratch.span();
            context.optimizer_step(args);
            context.synchronize();

            const double clip = std::min(1.0, max_norm / (expected_norm + 1e-6));
            CHECK((clip < 1) == (step % 2 == 1));
            for (size_t i = 0; i < counts.size(); i++) {
                const double lr = double(rate) * (tensors[i].rate_scale ? tensors[i].rate_scale : 1);
                for (uint64_t e = 0; e < counts[i]; e++) {
                    const double g = gradients[i][e] * gradient_scale * clip;
                    double &p = tensors[i].value[e], &m = tensors[i].first[e], &v = tensors[i].second[e];
                    p -= lr * decay * p;
                    m = beta1 * double(m) + (1 - double(beta1)) * g;
                    v = beta2 * double(v) + (1 - double(beta2)) * g * g;
                    p -= lr / (1 - std::pow(double(beta1), double(step))) * m / (std::sqrt(v) / std::sqrt(1 - std::pow(double(beta2), double(step))) + epsilon);
                }
                // Each step rounds its results to f32 once more than the loop does.
                const double allowed = double(step) * tolerance(QLORA_OP_OPTIMIZER_STEP, QLORA_FORMAT_F32);
                CHECK_MESSAGE(relative_error(tensors[i].value_buffer.read<float>(), tensors[i].value) <= allowed, text(target.name, " value ", i, " step ", step));
                CHECK_MESSAGE(relative_error(tensors[i].first_buffer.read<float>(), tensors[i].first) <= allowed, text(target.name, " state1 ", i, " step ", step));
                CHECK_MESSAGE(relative_error(tensors[i].second_buffer.read<float>(), tensors[i].second) <= allowed, text(target.name, " state2 ", i, " step ", step));
            }
        }
    }
}

TEST_SUITE_END();
