// Products in int8: LLM.int8() and SwitchBack, and the gradient of a trained weight. What bitsandbytes computes is the business of
// golden_check; shapes and types are that of ops.
#include "tests/support/comparison.h"
#include "tests/support/inputs.h"
#include "tests/support/quantized.h"
#include "tests/support/stage.h"
#include "tests/support/targets.h"

#include <doctest/doctest.h>

#include <algorithm>

using namespace test;

namespace {

constexpr uint32_t one_scale = 1u << 30;

// Calls f(context, name) on every target that has these operations.
template <class Function> void for_targets(Function &&f) {
    for (const Target &target : targets()) {
        const qlora::Context &context = shared_context(target);
        if (context.operation_supports(QLORA_OP_INT8_MATMUL, QLORA_FORMAT_INT8, QLORA_FORMAT_F32)) f(context, target.name);
    }
}

struct Options {
    float threshold = 0;
    int32_t type = QLORA_FORMAT_F32;
    std::vector<float> bias = {}, before = {};
};

struct Answer {
    int32_t status;
    std::string message;
    std::vector<float> values;
};

Answer try_product(const qlora::Context &context, const HostWeight &weight, uint64_t tokens, const std::vector<float> &x, const Options &options = {}) {
    Stage stage(context);
    qlora_int8_matmul_args args = {};
    args.weight = stage.weight(weight);
    args.x = stage.tensor(options.type, tokens, weight.shape.cols, x);
    args.y = stage.output("y", options.type, tokens, weight.shape.rows, 0, options.before);
    if (!options.bias.empty()) args.bias = stage.floats(options.bias);
    args.threshold = options.threshold;
    args.flags = options.before.empty() ? 0 : QLORA_FLAG_ACCUMULATE;
    const int32_t status = stage.run<QLORA_OP_INT8_MATMUL>(args);
    return {status, stage.last_message(), unpack(options.type, stage.outputs()[0].bytes)};
}

std::vector<float> product(const qlora::Context &context, const HostWeight &weight, uint64_t tokens, const std::vector<float> &x, const Options &options = {}) {
    const Answer answer = try_product(context, weight, tokens, x, options);
    REQUIRE_MESSAGE(answer.status == QLORA_OK, answer.message);
    return answer.values;
}

std::vector<float> input_gradient(const qlora::Context &context, const HostWeight &weight, uint64_t tokens, const std::vector<float> &dy) {
    Stage stage(context);
    qlora_int8_matmul_grad_args args = {};
    args.weight = stage.weight(weight);
    args.dy = stage.tensor(QLORA_FORMAT_F32, tokens, weight.shape.rows, dy);
    args.dx = stage.output("dx", QLORA_FORMAT_F32, tokens, weight.shape.cols);
    REQUIRE(stage.run<QLORA_OP_INT8_MATMUL_GRAD>(args) == QLORA_OK);
    return unpack(QLORA_FORMAT_F32, stage.outputs()[0].bytes);
}

HostWeight host_copy(const qlora::Weight &weight) {
    HostWeight host = {*weight.get(), {}};
    for (int plane = 0; plane < QLORA_PLANE_COUNT; plane++) host.planes[plane] = weight.read_plane(plane);
    return host;
}

HostWeight quantized(uint64_t rows, uint64_t cols, const std::vector<float> &values, uint32_t block = 0) {
    QuantizeOptions options;
    options.block = block;
    return host_copy(quantize_with(shared_context(reference()), QLORA_FORMAT_INT8, rows, cols, values, options));
}

float scale_of(const HostWeight &weight, uint64_t r) {
    const std::vector<float> scales = unpack(QLORA_FORMAT_F32, weight.planes[QLORA_PLANE_SCALE]);
    return scales[scales.size() == 1 ? 0 : r];
}

// A row as bytes: its absmax first.
std::vector<int> bytes_of_row(const float *x, uint64_t count, float *absmax) {
    *absmax = 0;
    for (uint64_t i = 0; i < count; i++) *absmax = std::fmax(*absmax, std::fabs(x[i]));
    std::vector<int> codes(count);
    const volatile float inverse = *absmax > 0 ? 127.0f / *absmax : 0.0f;
    for (uint64_t i = 0; i < count; i++) {
        const volatile float scaled = x[i] * inverse;
        codes[i] = int(std::nearbyint(scaled));
    }
    return codes;
}

// x W^T in double.
std::vector<double> exact(uint64_t tokens, uint64_t rows, uint64_t cols, const std::vector<float> &x, const std::vector<float> &w) {
    std::vector<double> y(tokens * rows);
    for (uint64_t t = 0; t < tokens; t++)
        for (uint64_t r = 0; r < rows; r++)
            for (uint64_t c = 0; c < cols; c++) y[t * rows + r] += double(x[t * cols + c]) * w[r * cols + c];
    return y;
}

std::vector<float> decoded(const HostWeight &host) {
    const qlora::Context &ref = shared_context(reference());
    qlora::Weight weight(ref, host.shape.format, host.shape.rows, host.shape.cols, host.planes[QLORA_PLANE_SCALE].size() == 4 ? one_scale : 0);
    weight.write_plane(QLORA_PLANE_CODE, host.planes[QLORA_PLANE_CODE].data());
    weight.write_plane(QLORA_PLANE_SCALE, host.planes[QLORA_PLANE_SCALE].data());
    return values_of(ref, weight);
}

} // namespace

TEST_SUITE_BEGIN("int8");

TEST_CASE("sums are exact and every rounding stands where the header says, forward and backward") {
    for (uint32_t block : {0u, one_scale})
        for (uint64_t cols : {uint64_t(1), uint64_t(31), uint64_t(513), uint64_t(1030)}) {
            const uint64_t tokens = 19, rows = 37;
            const HostWeight weight = quantized(rows, cols, random_values(rows * cols, 1), block);
            const std::vector<float> x = random_values(tokens * cols, 2), dy = random_values(tokens * rows, 3);
            auto code = [&](uint64_t r, uint64_t c) { return int(int8_t(weight.planes[QLORA_PLANE_CODE][r * cols + c])); };
            std::vector<float> y(tokens * rows), dx(tokens * cols), folded(rows);
            for (uint64_t t = 0; t < tokens; t++) {
                float absmax;
                const std::vector<int> q = bytes_of_row(x.data() + t * cols, cols, &absmax);
                for (uint64_t r = 0; r < rows; r++) {
                    int64_t sum = 0;
                    for (uint64_t c = 0; c < cols; c++) sum += q[c] * code(r, c);
                    const volatile float scales = absmax * scale_of(weight, r), factor = scales * 6.200012e-05f;
                    y[t * rows + r] = float(sum) * factor;
                    const volatile float part = scale_of(weight, r) * (1.0f / 127.0f);
                    folded[r] = dy[t * rows + r] * part;
                }
                const std::vector<int> g = bytes_of_row(folded.data(), rows, &absmax);
                for (uint64_t c = 0; c < cols; c++) {
                    int64_t sum = 0;
                    for (uint64_t r = 0; r < rows; r++) sum += g[r] * code(r, c);
                    const volatile float factor = absmax * (1.0f / 127.0f);
                    dx[t * cols + c] = float(sum) * factor;
                }
            }
            for_targets([&](const qlora::Context &context, const std::string &name) {
                CHECK_MESSAGE(different_values(product(context, weight, tokens, x), y) == 0, text(name, " forward ", cols));
                CHECK_MESSAGE(different_values(input_gradient(context, weight, tokens, dy), dx) == 0, text(name, " backward ", cols));
            });
        }
}

TEST_CASE("the largest sums that can be do not overflow") {
    const uint64_t cols = (1u << 17) - 1, tokens = 2, rows = 3;
    HostWeight weight = quantized(rows, cols, std::vector<float>(rows * cols, 1.0f));
    std::fill_n(weight.planes[QLORA_PLANE_CODE].begin(), cols, uint8_t(0x80)); // -128, which only other writers use
    std::vector<float> x(tokens * cols, 2.0f);
    for (uint64_t c = 0; c < cols; c++) x[c] = -2;
    for_targets([&](const qlora::Context &context, const std::string &name) {
        const std::vector<float> y = product(context, weight, tokens, x);
        for (uint64_t i = 0; i < y.size(); i++) {
            const int64_t sum = int64_t(cols) * (i < rows ? -127 : 127) * (i % rows == 0 ? -128 : 127);
            const volatile float factor = 2.0f * 6.200012e-05f;
            const volatile float expected = float(sum) * factor;
            CHECK_MESSAGE(y[i] == expected, text(name, " ", i));
        }
        const HostWeight wide = quantized(1, cols + 1, std::vector<float>(cols + 1, 1.0f));
        CHECK(try_product(context, wide, 1, std::vector<float>(cols + 1, 1.0f)).status == QLORA_ERROR_SHAPE);
    });
}

TEST_CASE("row 13: decomposition is worth ten times where outliers are, nothing where there are none") {
    const uint64_t tokens = 64, rows = 96, cols = 512;
    const std::vector<float> w = random_values(rows * cols, 1, 0.05);
    const HostWeight weight = quantized(rows, cols, w), whole = quantized(rows, cols, w, one_scale);
    std::vector<float> plain = random_values(tokens * cols, 2);
    for (float &value : plain) value = std::fmin(std::fmax(value, -4.0f), 4.0f); // nothing reaches 6
    std::vector<float> spiked = plain;
    for (uint64_t i = 0; i < spiked.size(); i++)
        if (i % cols % 85 == 40) spiked[i] *= 20.0f + 8.0f * float(i % cols / 85); // six columns, 20 to 60 times
    for_targets([&](const qlora::Context &context, const std::string &name) {
        // What is lost by quantizing activations; the weights' own loss is the same for all.
        auto error = [&](const HostWeight &of, const std::vector<float> &x, float threshold) {
            return relative_error(product(context, of, tokens, x, {threshold}), exact(tokens, rows, cols, x, decoded(of)));
        };
        // One scale for all activations as well.
        auto tensor_wise = [&](const std::vector<float> &x) {
            const std::vector<float> rounded = decoded(quantized(tokens, cols, x, one_scale));
            return relative_error(exact(tokens, rows, cols, rounded, decoded(whole)), exact(tokens, rows, cols, x, decoded(whole)));
        };
        const double decomposed = error(weight, spiked, 6), vector_wise = error(weight, spiked, 0), tensor = tensor_wise(spiked);
        CHECK_MESSAGE(decomposed * 10 <= vector_wise, text(name, ": ", decomposed, " against ", vector_wise));
        CHECK_MESSAGE(vector_wise < tensor, text(name, ": ", vector_wise, " against ", tensor));
        const double calm[] = {error(weight, plain, 6), error(weight, plain, 0), tensor_wise(plain)};
        CHECK_MESSAGE(*std::max_element(calm, calm + 3) <= 2 * *std::min_element(calm, calm + 3), text(name, ": ", calm[0], " ", calm[1], " ", calm[2]));
        CHECK(calm[0] == calm[1]);
        std::printf("%-12s activation error with outliers: decomposed %.1e, vector-wise %.1e, tensor-wise %.1e; without: %.1e %.1e %.1e\n", name.c_str(), decomposed, vector_wise, tensor,
                    calm[0], calm[1], calm[2]);
    });
}

TEST_CASE("row 14: the gradient of the weight is the 16-bit product to the bit, nothing on its way is quantized") {
    for (int32_t type : types)
        for (uint64_t tokens : {uint64_t(1), uint64_t(77), uint64_t(700)}) {
            const uint64_t rows = 48, cols = 136;
            std::vector<float> one(rows * rows, 0.0f);
            for (uint64_t r = 0; r < rows; r++) one[r * rows + r] = 1;
            const HostWeight saved = quantized(tokens, cols, random_values(tokens * cols, 2));
            for (bool in_bytes : {false, true})
                for_targets([&](const qlora::Context &context, const std::string &name) {
                    // linear_grad with an identity for B makes dA = dy^T x, by another way.
                    const std::vector<float> x = in_bytes ? decoded(saved) : random_values(tokens * cols, 2);
                    Stage stage(context);
                    qlora_linear_grad_args linear = {};
                    linear.weight = stage.weight(host_weight(QLORA_FORMAT_INT8, rows, cols));
                    linear.dy = stage.tensor(type, tokens, rows, random_values(tokens * rows, 3));
                    linear.x = stage.tensor(type, tokens, cols, x);
                    linear.a = stage.tensor(QLORA_FORMAT_F32, rows, cols, std::vector<float>(rows * cols, 0.0f));
                    linear.b = stage.tensor(QLORA_FORMAT_F32, rows, rows, one);
                    linear.da = stage.output("da", QLORA_FORMAT_F32, rows, cols);
                    linear.scale = 1;
                    REQUIRE(stage.run<QLORA_OP_LINEAR_GRAD>(linear) == QLORA_OK);
                    qlora_weight_gradient_args args = {};
                    args.dy = linear.dy;
                    if (in_bytes) args.saved = stage.weight(saved);
                    else args.x = linear.x;
                    args.dw = stage.output("dw", QLORA_FORMAT_F32, rows, cols);
                    REQUIRE(stage.run<QLORA_OP_WEIGHT_GRADIENT>(args) == QLORA_OK);
                    const std::vector<Output> outputs = stage.outputs();
                    CHECK_MESSAGE(outputs[0].bytes == outputs[1].bytes, text(name, " ", format_name(type), " ", tokens, in_bytes ? " saved in bytes" : ""));
                });
        }
}

TEST_CASE("thresholds: exactly reached, by every column, by none") {
    const uint64_t tokens = 5, rows = 24, cols = 130;
    const HostWeight weight = quantized(rows, cols, random_values(rows * cols, 1));
    const std::vector<float> w = decoded(weight), bias = random_values(rows, 4);
    std::vector<float> x = random_values(tokens * cols, 2);
    for (float &value : x) value = std::fmin(std::fmax(value, -5.9f), 5.9f);
    for_targets([&](const qlora::Context &context, const std::string &name) {
        // Every column an outlier: a product in f32.
        const std::vector<float> all = product(context, weight, tokens, x, {1e-30f});
        CHECK_MESSAGE(relative_error(all, exact(tokens, rows, cols, x, w)) < 1e-6, name);
        // None: as without a threshold, to the bit.
        CHECK(product(context, weight, tokens, x, {6}) == product(context, weight, tokens, x));
        CHECK(product(context, weight, tokens, x, {from_bits(0x7f800000)}) == product(context, weight, tokens, x));
        // One element at 6.0 exactly makes its column an outlier; just below it sets the scale of its row.
        std::vector<float> at = x, below = x;
        at[2 * cols + 17] = -6.0f;
        below[2 * cols + 17] = -std::nextafter(6.0f, 0.0f);
        std::vector<float> without = x, column(tokens * cols, 0.0f);
        for (uint64_t t = 0; t < tokens; t++) {
            without[t * cols + 17] = 0;
            column[t * cols + 17] = at[t * cols + 17];
        }
        // The scale of a row looks at what is below the threshold in outlier columns, too: 17 is no row's largest here.
        for (uint64_t t = 0; t < tokens; t++)
            if (t != 2) REQUIRE(std::fabs(x[t * cols + 17]) < 2.2f);
        std::vector<float> expected = product(context, weight, tokens, without);
        const std::vector<double> outlier = exact(tokens, rows, cols, column, w);
        for (size_t i = 0; i < expected.size(); i++) expected[i] = float(expected[i] + outlier[i]);
        CHECK_MESSAGE(relative_error(product(context, weight, tokens, at, {6}), expected) < 1e-6, name);
        CHECK(product(context, weight, tokens, below, {6}) == product(context, weight, tokens, below));
        // Bias and ACCUMULATE go through one rounding.
        const std::vector<float> before = random_values(tokens * rows, 5);
        std::vector<float> sum = product(context, weight, tokens, at, {6});
        for (size_t i = 0; i < sum.size(); i++) sum[i] += bias[i % rows] + before[i];
        Options options;
        options.threshold = 6, options.bias = bias, options.before = before;
        CHECK_MESSAGE(relative_error(product(context, weight, tokens, at, options), sum) < 1e-6, name);
        CHECK(try_product(context, weight, tokens, x, {-1}).status == QLORA_ERROR_ARGUMENT);
        CHECK(try_product(context, weight, tokens, x, {from_bits(0x7fc00000)}).status == QLORA_ERROR_ARGUMENT);
    });
}

TEST_CASE("zero rows, tiny rows, and the row of one token") {
    const uint64_t rows = 7, cols = 66;
    std::vector<float> w = random_values(rows * cols, 1), x = random_values(3 * cols, 2);
    for (uint64_t c = 0; c < cols; c++) {
        w[3 * cols + c] = 0;
        w[5 * cols + c] = 0x1p-120f; // counts as zero
        x[c] = 0;
        x[cols + c] = c % 2 ? -0x1p-119f : 0x1p-119f; // does not
    }
    for_targets([&](const qlora::Context &context, const std::string &name) {
        const HostWeight weight = host_copy(quantize_with(context, QLORA_FORMAT_INT8, rows, cols, w));
        CHECK(scale_of(weight, 3) == 0);
        CHECK(scale_of(weight, 5) == 0);
        CHECK(std::all_of(weight.planes[QLORA_PLANE_CODE].begin() + 3 * cols, weight.planes[QLORA_PLANE_CODE].begin() + 4 * cols, [](uint8_t code) { return code == 0; }));
        CHECK(weight.planes[QLORA_PLANE_CODE] == quantized(rows, cols, w).planes[QLORA_PLANE_CODE]);
        const HostWeight tiny = host_copy(quantize_with(context, QLORA_FORMAT_INT8, 3, cols, x));
        CHECK(int8_t(tiny.planes[QLORA_PLANE_CODE][cols]) == 127);
        CHECK(int8_t(tiny.planes[QLORA_PLANE_CODE][cols + 1]) == -127);
        const std::vector<float> y = product(context, weight, 3, x);
        for (uint64_t r = 0; r < rows; r++) {
            CHECK(y[r] == 0);
            CHECK(std::fabs(y[rows + r]) < 1e-30);
        }
        CHECK(y[2 * rows + 3] == 0);
        // A row alone gives what it gives among others.
        const std::vector<float> alone = product(context, weight, 1, {x.begin() + 2 * cols, x.end()});
        CHECK_MESSAGE(std::equal(alone.begin(), alone.end(), y.begin() + 2 * rows), name);
        const std::vector<float> dx = input_gradient(context, weight, 1, std::vector<float>(rows, 0.0f));
        CHECK(dx == std::vector<float>(cols, 0.0f));
    });
}

TEST_CASE("one scale in all: the largest magnitude of any row") {
    const uint64_t rows = 33, cols = 129;
    std::vector<float> w = random_values(rows * cols, 1);
    w[2000] = -7.5f;
    for_targets([&](const qlora::Context &context, const std::string &name) {
        QuantizeOptions options;
        options.block = one_scale;
        const HostWeight weight = host_copy(quantize_with(context, QLORA_FORMAT_INT8, rows, cols, w, options));
        REQUIRE(weight.planes[QLORA_PLANE_SCALE].size() == 4);
        CHECK(scale_of(weight, 0) == 7.5f);
        float absmax;
        const std::vector<int> codes = bytes_of_row(w.data(), w.size(), &absmax);
        uint64_t wrong = 0;
        for (size_t i = 0; i < codes.size(); i++) wrong += codes[i] != int8_t(weight.planes[QLORA_PLANE_CODE][i]);
        CHECK_MESSAGE(wrong == 0, text(name, ": ", wrong));
    });
}

TEST_CASE("NaN and infinity are named on ref and cpu; other formats are refused") {
    const HostWeight weight = quantized(9, 70, random_values(630, 1));
    for_targets([&](const qlora::Context &context, const std::string &name) {
        if (context.query().backend != QLORA_BACKEND_REF && context.query().backend != QLORA_BACKEND_CPU) return;
        for (uint32_t bits : {0x7fc00000u, 0x7f800000u, 0xff800000u})
            for (int32_t type : types) {
                std::vector<float> x = random_values(4 * 70, 2);
                x[157] = x[201] = from_bits(bits);
                Options options;
                options.threshold = 6, options.type = type;
                const Answer answer = try_product(context, weight, 4, x, options);
                CHECK(answer.status == QLORA_ERROR_VALUE);
                CHECK_MESSAGE(answer.message.find("157") != std::string::npos, text(name, ": ", answer.message));
            }
        Stage stage(context);
        qlora_int8_matmul_grad_args args = {};
        args.weight = stage.weight(weight);
        std::vector<float> dy = random_values(4 * 9, 2);
        dy[23] = from_bits(0x7f800000);
        args.dy = stage.tensor(QLORA_FORMAT_F32, 4, 9, dy);
        args.dx = stage.output("dx", QLORA_FORMAT_F32, 4, 70);
        CHECK(stage.run<QLORA_OP_INT8_MATMUL_GRAD>(args) == QLORA_ERROR_VALUE);
        CHECK_MESSAGE(stage.last_message().find("23") != std::string::npos, stage.last_message());
        CHECK(try_product(context, host_weight(QLORA_FORMAT_NF4, 9, 64), 1, random_values(64, 2)).status == QLORA_ERROR_FORMAT);
        CHECK(qlora_operation_supports(context.get(), QLORA_OP_INT8_MATMUL, QLORA_FORMAT_NF4, QLORA_FORMAT_F32) == QLORA_ERROR_FORMAT);
    });
}

TEST_SUITE_END();
