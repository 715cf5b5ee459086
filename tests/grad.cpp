// Gradients of ref against finite differences of ref's forward operations. A difference with step h and one with 2h are
// extrapolated to zero, and their distance, with the rounding of f32 results, is the error that the gradient is allowed: the
// difference judges itself, no tolerance is chosen.
#include "tests/support/inputs.h"
#include "tests/support/stage.h"
#include "tests/support/targets.h"

#include <doctest/doctest.h>

#include <map>
#include <stdexcept>

using namespace test;

namespace {

using Values = std::vector<float>;

// Runs an act on ref; gives the outputs by name.
std::map<std::string, Values> run(const std::function<void(Stage &)> &act) {
    Stage stage(shared_context(reference()));
    act(stage);
    if (stage.status() != QLORA_OK) throw std::runtime_error(stage.last_message());
    std::map<std::string, Values> named;
    for (const Output &output : stage.outputs()) named[output.name] = unpack(output.type, output.bytes);
    return named;
}

// sum(y * dy) in double, and a bound of what rounding each y to f32 makes of it.
struct Loss {
    double value, rounding;
};
Loss weighted(const Values &y, const Values &dy) {
    Loss loss = {0, 0};
    for (size_t i = 0; i < y.size(); i++) {
        loss.value += double(y[i]) * dy[i];
        loss.rounding += std::pow(double(y[i]) * dy[i] * 6e-8, 2);
    }
    loss.rounding = std::sqrt(loss.rounding);
    return loss;
}

// Checks gradient against differences of loss(x) in every element of x.
void check_gradient(const char *what, const Values &x, const Values &gradient, double step, const std::function<Loss(const Values &)> &loss) {
    REQUIRE(x.size() == gradient.size());
    double difference = 0, allowed = 0, norm = 0;
    for (size_t i = 0; i < x.size(); i++) {
        double slopes[2], rounding = 0;
        for (int k = 0; k < 2; k++) {
            Values moved = x;
            moved[i] = float(x[i] + step * (k + 1));
            const double above = moved[i];
            const Loss up = loss(moved);
            moved[i] = float(x[i] - step * (k + 1));
            const Loss down = loss(moved);
            slopes[k] = (up.value - down.value) / (above - moved[i]);
            rounding = std::max(rounding, (up.rounding + down.rounding) / (above - moved[i]));
        }
        const double slope = (4 * slopes[0] - slopes[1]) / 3;
        const double error = std::fabs(slopes[0] - slopes[1]) / 3 + 2 * rounding + 1e-7 * std::fabs(slope);
        difference += (gradient[i] - slope) * (gradient[i] - slope);
        allowed += error * error;
        norm += slope * slope;
    }
    INFO(text(what, ": |gradient - slope| ", std::sqrt(difference), ", its own error ", std::sqrt(allowed), ", |slope| ", std::sqrt(norm)));
    CHECK(norm > 0);
    CHECK(difference <= allowed);
    CHECK_MESSAGE(allowed < 1e-4 * norm, "the differences are too coarse to say anything"); // below 1 %
}

} // namespace

TEST_SUITE_BEGIN("grad");

TEST_CASE("matmul_grad") {
    const Values x = random_values(3 * 65, 1), dy = random_values(3 * 7, 2);
    const HostWeight &host = host_weight(QLORA_FORMAT_NF4_DQ, 7, 65);
    auto forward = [&](const Values &moved) {
        return weighted(run([&](Stage &stage) {
                            qlora_matmul_args args = {};
                            args.weight = stage.weight(host);
                            args.x = stage.tensor(QLORA_FORMAT_F32, 3, 65, moved);
                            args.y = stage.output("y", QLORA_FORMAT_F32, 3, 7);
                            stage.run<QLORA_OP_MATMUL>(args);
                        })["y"],
                        dy);
    };
    const Values dx = run([&](Stage &stage) {
        qlora_matmul_args args = {};
        args.weight = stage.weight(host);
        args.y = stage.tensor(QLORA_FORMAT_F32, 3, 7, dy);
        args.x = stage.output("dx", QLORA_FORMAT_F32, 3, 65);
        stage.run<QLORA_OP_MATMUL_GRAD>(args);
    })["dx"];
    check_gradient("dx", x, dx, 0.5, forward);
}

TEST_CASE("linear_grad") {
    const uint64_t tokens = 3, rows = 7, cols = 33, rank = 4;
    const HostWeight &host = host_weight(QLORA_FORMAT_NF4, rows, cols);
    std::map<std::string, Values> at = {{"x", random_values(tokens * cols, 1)}, {"a", random_values(rank * cols, 2)}, {"b", random_values(rows * rank, 3)}, {"bias", random_values(rows, 4)}};
    const Values dy = random_values(tokens * rows, 5);
    auto forward = [&](const std::map<std::string, Values> &point) {
        return run([&](Stage &stage) {
            qlora_linear_args args = {};
            args.weight = stage.weight(host);
            args.x = stage.tensor(QLORA_FORMAT_F32, tokens, cols, point.at("x"));
            args.a = stage.tensor(QLORA_FORMAT_F32, rank, cols, point.at("a"));
            args.b = stage.tensor(QLORA_FORMAT_F32, rows, rank, point.at("b"));
            args.bias = stage.floats(point.at("bias"));
            args.xa = stage.output_floats("xa", tokens * rank);
            args.y = stage.output("y", QLORA_FORMAT_F32, tokens, rows);
            args.scale = 0.5f;
            stage.run<QLORA_OP_LINEAR>(args);
        });
    };
    for (bool recompute : {false, true}) {
        auto gradients = run([&](Stage &stage) {
            qlora_linear_grad_args args = {};
            args.weight = stage.weight(host);
            args.x = stage.tensor(QLORA_FORMAT_F32, tokens, cols, at["x"]);
            args.dy = stage.tensor(QLORA_FORMAT_F32, tokens, rows, dy);
            args.a = stage.tensor(QLORA_FORMAT_F32, rank, cols, at["a"]);
            args.b = stage.tensor(QLORA_FORMAT_F32, rows, rank, at["b"]);
            if (!recompute) args.xa = stage.floats(forward(at)["xa"]);
            args.dx = stage.output("x", QLORA_FORMAT_F32, tokens, cols);
            args.da = stage.output("a", QLORA_FORMAT_F32, rank, cols);
            args.db = stage.output("b", QLORA_FORMAT_F32, rows, rank);
            args.dbias = stage.output_floats("bias", rows);
            args.scale = 0.5f;
            stage.run<QLORA_OP_LINEAR_GRAD>(args);
        });
        for (const auto &entry : at)
            check_gradient(entry.first.c_str(), entry.second, gradients[entry.first], 0.5, [&](const Values &moved) {
                auto point = at;
                point[entry.first] = moved;
                return weighted(forward(point)["y"], dy);
            });
    }
}

TEST_CASE("rms_norm_grad") {
    const uint64_t rows = 4, cols = 13;
    for (uint32_t flags : {0u, QLORA_FLAG_CENTERED}) {
        std::map<std::string, Values> at = {{"x", random_values(rows * cols, 1)}, {"weight", random_values(cols, 2)}, {"bias", random_values(cols, 4)}};
        for (float &value : at["x"]) value += 0.5f;
        const Values dy = random_values(rows * cols, 3);
        auto forward = [&](const std::map<std::string, Values> &point) {
            return run([&](Stage &stage) {
                qlora_rms_norm_args args = {};
                args.flags = flags;
                args.x = stage.tensor(QLORA_FORMAT_F32, rows, cols, point.at("x"));
                args.weight = stage.tensor(QLORA_FORMAT_F32, 1, cols, point.at("weight"));
                args.bias = stage.tensor(QLORA_FORMAT_F32, 1, cols, point.at("bias"));
                args.y = stage.output("y", QLORA_FORMAT_F32, rows, cols);
                args.rstd = stage.output_floats("rstd", rows);
                args.epsilon = 1e-5f;
                stage.run<QLORA_OP_RMS_NORM>(args);
            });
        };
        auto gradients = run([&](Stage &stage) {
            qlora_rms_norm_grad_args args = {};
            args.flags = flags;
            args.x = stage.tensor(QLORA_FORMAT_F32, rows, cols, at["x"]);
            args.weight = stage.tensor(QLORA_FORMAT_F32, 1, cols, at["weight"]);
            args.dy = stage.tensor(QLORA_FORMAT_F32, rows, cols, dy);
            args.rstd = stage.floats(forward(at)["rstd"]);
            args.dx = stage.output("x", QLORA_FORMAT_F32, rows, cols);
            args.dweight = stage.output_floats("weight", cols);
            args.dbias = stage.output_floats("bias", cols);
            stage.run<QLORA_OP_RMS_NORM_GRAD>(args);
        });
        for (const auto &entry : at)
            check_gradient(entry.first.c_str(), entry.second, gradients[entry.first], 0.01, [&](const Values &moved) {
                auto point = at;
                point[entry.first] = moved;
                return weighted(forward(point)["y"], dy);
            });
    }
}

TEST_CASE("a centered norm is LayerNorm, and accumulates") {
    const Values x = {1, 2, 3, 6};
    auto outputs = run([&](Stage &stage) {
        qlora_rms_norm_args args = {};
        args.flags = QLORA_FLAG_CENTERED | QLORA_FLAG_ACCUMULATE;
        args.x = stage.tensor(QLORA_FORMAT_F32, 1, 4, x);
        args.weight = stage.tensor(QLORA_FORMAT_F32, 1, 4, {1, 1, 1, 2});
        args.bias = stage.tensor(QLORA_FORMAT_F32, 1, 4, {0, 0, 0, 1});
        args.y = stage.output("y", QLORA_FORMAT_F32, 1, 4, 0, {0, 0, 10, 10});
        stage.run<QLORA_OP_RMS_NORM>(args);
    });
    const double deviation = std::sqrt(3.5); // of 1 2 3 6 about 3
    const double expected[] = {-2 / deviation, -1 / deviation, 10, 11 + 2 * 3 / deviation};
    for (size_t i = 0; i < 4; i++) CHECK(outputs["y"][i] == doctest::Approx(expected[i]).epsilon(1e-6));
}

TEST_CASE("rope and its inverse") {
    const uint64_t tokens = 5, heads = 2, head_dim = 8;
    const Values x = random_values(tokens * heads * head_dim, 1), dy = random_values(x.size(), 2);
    for (int32_t layout : {QLORA_ROPE_ADJACENT, QLORA_ROPE_HALF}) {
        auto turned = [&](const Values &values, uint32_t flags) {
            return run([&](Stage &stage) {
                qlora_rope_args args = {};
                args.flags = flags;
                args.x = stage.output("x", QLORA_FORMAT_F32, tokens, heads * head_dim, 0, values);
                args.positions = stage.integers({0, 1, 5, 77, 500});
                args.freq_factors = stage.floats({1, 1.5f, 2});
                args.head_dim = uint32_t(head_dim);
                args.rotary_dim = 6;
                args.layout = layout;
                args.magnitude = 1.25f;
                stage.run<QLORA_OP_ROPE>(args);
            })["x"];
        };
        check_gradient("rope", x, turned(dy, QLORA_FLAG_INVERSE), 0.5, [&](const Values &moved) { return weighted(turned(moved, 0), dy); });
    }
}

TEST_CASE("swiglu_grad") {
    const uint64_t rows = 3, cols = 11;
    for (int32_t activation : {QLORA_ACTIVATION_SILU, QLORA_ACTIVATION_GELU, QLORA_ACTIVATION_GELU_TANH, QLORA_ACTIVATION_RELU})
        for (uint32_t flags : {0u, QLORA_FLAG_UNGATED}) {
            std::map<std::string, Values> at = {{"gate", random_values(rows * cols, 1, 2)}};
            for (float &value : at["gate"]) value += value < 0 ? -0.1f : 0.1f; // no difference reaches over the bend of RELU
            if (!flags) at["up"] = random_values(rows * cols, 2);
            const Values dy = random_values(rows * cols, 3);
            auto gradients = run([&](Stage &stage) {
                qlora_swiglu_grad_args args = {};
                args.flags = flags;
                args.activation = activation;
                args.gate = stage.tensor(QLORA_FORMAT_F32, rows, cols, at["gate"]);
                args.dy = stage.tensor(QLORA_FORMAT_F32, rows, cols, dy);
                args.dgate = stage.output("gate", QLORA_FORMAT_F32, rows, cols);
                if (!flags) args.up = stage.tensor(QLORA_FORMAT_F32, rows, cols, at["up"]);
                if (!flags) args.dup = stage.output("up", QLORA_FORMAT_F32, rows, cols);
                stage.run<QLORA_OP_SWIGLU_GRAD>(args);
            });
            for (const auto &entry : at)
                check_gradient(entry.first.c_str(), entry.second, gradients[entry.first], 0.02, [&](const Values &moved) {
                    auto point = at;
                    point[entry.first] = moved;
                    return weighted(run([&](Stage &stage) {
                                        qlora_swiglu_args args = {};
                                        args.flags = flags;
                                        args.activation = activation;
                                        args.gate = stage.tensor(QLORA_FORMAT_F32, rows, cols, point["gate"]);
                                        if (!flags) args.up = stage.tensor(QLORA_FORMAT_F32, rows, cols, point["up"]);
                                        args.y = stage.output("y", QLORA_FORMAT_F32, rows, cols);
                                        stage.run<QLORA_OP_SWIGLU>(args);
                                    })["y"],
                                    dy);
                });
        }
}

TEST_CASE("dropout drops its share, scales the rest, and knows places by seed") {
    const uint64_t rows = 64, cols = 513, count = rows * cols;
    const float probability = 0.3f;
    const auto dropped = [&](uint64_t seed, uint64_t stride) {
        return run([&](Stage &stage) {
            qlora_dropout_args args = {};
            args.seed = seed;
            args.probability = probability;
            args.x = stage.tensor(QLORA_FORMAT_F32, rows, cols, Values(count, 2), stride);
            args.y = stage.output("y", QLORA_FORMAT_F32, rows, cols, stride);
            stage.run<QLORA_OP_DROPOUT>(args);
        })["y"];
    };
    const Values y = dropped(7, 0), other = dropped(7 + (uint64_t(1) << 32), 0);
    uint64_t zeros = 0, common = 0;
    for (uint64_t i = 0; i < count; i++) {
        zeros += y[i] == 0;
        common += y[i] == 0 && other[i] == 0;
        if (y[i] != 0) REQUIRE(y[i] == 2 * float(1 / (1 - double(probability))));
    }
    // Binomial, and within four of its deviations.
    CHECK(std::fabs(double(zeros) - 0.3 * double(count)) < 4 * std::sqrt(0.21 * double(count)));
    CHECK(std::fabs(double(common) - 0.09 * double(count)) < 4 * std::sqrt(0.0819 * double(count)));
    CHECK(dropped(7, cols + 5) == y);
}

TEST_CASE("activations at known points") {
    // torch.nn.functional.gelu(1), gelu(1, approximate="tanh"), silu(1), relu(1)
    for (auto [activation, expected] : {std::pair<int32_t, double>{QLORA_ACTIVATION_GELU, 0.8413447460685429}, {QLORA_ACTIVATION_GELU_TANH, 0.8411919906082768},
                                        {QLORA_ACTIVATION_SILU, 0.7310585786300049}, {QLORA_ACTIVATION_RELU, 1.0}}) {
        auto outputs = run([&](Stage &stage) {
            qlora_swiglu_args args = {};
            args.flags = QLORA_FLAG_UNGATED;
            args.activation = activation;
            args.gate = stage.tensor(QLORA_FORMAT_F32, 1, 2, {1, 0});
            args.y = stage.output("y", QLORA_FORMAT_F32, 1, 2);
            stage.run<QLORA_OP_SWIGLU>(args);
        });
        CHECK(outputs["y"][0] == doctest::Approx(expected).epsilon(1e-7));
        CHECK(outputs["y"][1] == 0);
    }
}

TEST_CASE("attention_grad") {
    const uint64_t q_rows = 9, k_rows = 12;
    const uint32_t heads = 4, kv_heads = 2, head_dim = 5;
    // A prompt of its own, and queries at the end of a longer cache.
    const std::vector<int32_t> sequences = {0, 5, 0, 5, 5, 4, 5, 7};
    std::map<std::string, Values> at = {{"q", random_values(q_rows * heads * head_dim, 1)}, {"k", random_values(k_rows * kv_heads * head_dim, 2)}, {"v", random_values(k_rows * kv_heads * head_dim, 3)}};
    const Values dy = random_values(q_rows * heads * head_dim, 4);
    for (uint32_t scores : {0u, 1u, 2u, 4u, 7u}) { // bits: soft cap, ALiBi, window
        auto describe = [&](Stage &stage, auto &args, const std::map<std::string, Values> &point) {
            args.q = stage.tensor(QLORA_FORMAT_F32, q_rows, heads * head_dim, point.at("q"));
            args.k = stage.tensor(QLORA_FORMAT_F32, k_rows, kv_heads * head_dim, point.at("k"));
            args.v = stage.tensor(QLORA_FORMAT_F32, k_rows, kv_heads * head_dim, point.at("v"));
            args.sequences = stage.integers(sequences);
            args.sequence_count = 2;
            args.heads = heads;
            args.kv_heads = kv_heads;
            args.head_dim = head_dim;
            if (scores & 1) args.soft_cap = 1.5f;
            if (scores & 2) args.slopes = stage.floats({0.5f, 0.25f, 0.125f, 1});
            if (scores & 4) args.window = 3;
        };
        auto forward = [&](const std::map<std::string, Values> &point) {
            return run([&](Stage &stage) {
                qlora_attention_args args = {};
                describe(stage, args, point);
                args.y = stage.output("y", QLORA_FORMAT_F32, q_rows, heads * head_dim);
                args.lse = stage.output_floats("lse", q_rows * heads);
                stage.run<QLORA_OP_ATTENTION>(args);
            });
        };
        auto kept = forward(at);
        auto gradients = run([&](Stage &stage) {
            qlora_attention_grad_args args = {};
            describe(stage, args, at);
            args.y = stage.tensor(QLORA_FORMAT_F32, q_rows, heads * head_dim, kept["y"]);
            args.lse = stage.floats(kept["lse"]);
            args.dy = stage.tensor(QLORA_FORMAT_F32, q_rows, heads * head_dim, dy);
            args.dq = stage.output("q", QLORA_FORMAT_F32, q_rows, heads * head_dim);
            args.dk = stage.output("k", QLORA_FORMAT_F32, k_rows, kv_heads * head_dim);
            args.dv = stage.output("v", QLORA_FORMAT_F32, k_rows, kv_heads * head_dim);
            stage.run<QLORA_OP_ATTENTION_GRAD>(args);
        });
        for (const auto &entry : at)
            check_gradient(entry.first.c_str(), entry.second, gradients[entry.first], 0.02, [&](const Values &moved) {
                auto point = at;
                point[entry.first] = moved;
                return weighted(forward(point)["y"], dy);
            });
    }
}

TEST_CASE("cross_entropy") {
    const uint64_t tokens = 4, rows = 19, cols = 32;
    const HostWeight &host = host_weight(QLORA_FORMAT_Q8_0, rows, cols);
    const Values x = random_values(tokens * cols, 1, 2);
    for (bool capped : {false, true}) {
        const uint32_t chunk_rows = capped ? 3 : 0;
        auto outputs = [&](const Values &values) {
            return run([&](Stage &stage) {
                qlora_cross_entropy_args args = {};
                args.weight = stage.weight(host);
                args.x = stage.tensor(QLORA_FORMAT_F32, tokens, cols, values);
                args.dx = stage.output("dx", QLORA_FORMAT_F32, tokens, cols);
                args.targets = stage.integers({3, -100, 18, 0});
                args.losses = stage.output_floats("losses", tokens);
                args.grad_scale = 0.7f;
                args.chunk_rows = chunk_rows;
                if (capped) args.bias = stage.floats(random_values(rows, 5));
                if (capped) args.soft_cap = 2;
                stage.run<QLORA_OP_CROSS_ENTROPY>(args);
            });
        };
        auto at = outputs(x);
        CHECK(at["losses"][1] == 0);
        check_gradient("dx", x, at["dx"], 0.05, [&](const Values &moved) { return weighted(outputs(moved)["losses"], Values(tokens, 0.7f)); });
    }
}

TEST_SUITE_END();
