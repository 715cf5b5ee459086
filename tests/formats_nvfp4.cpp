// NVFP4 with a scale per tensor: the recipe's rounding against a second reading of it, every code with every block scale,
// products, and scales that cannot be.
#include "backends/formats.h"
#include "tests/support/comparison.h"
#include "tests/support/inputs.h"
#include "tests/support/quantized.h"
#include "tests/support/targets.h"

#include <doctest/doctest.h>

#include <algorithm>

using namespace test;

namespace {

const float e2m1[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};

float e4m3(uint32_t code) {
    const int exponent = int(code >> 3) & 15, mantissa = int(code & 7);
    return code == 0x7f ? 0 : float(exponent ? std::ldexp(8 + mantissa, exponent - 10) : std::ldexp(mantissa, -9));
}

// The nearest of values[0 .. count), to the even index where two are as near.
template <class Value> uint32_t nearest(double x, uint32_t count, Value value) {
    uint32_t best = 0;
    for (uint32_t i = 1; i < count; i++) {
        const double to_this = std::fabs(x - double(value(i))), to_best = std::fabs(x - double(value(best)));
        if (to_this < to_best || (to_this == to_best && i % 2 == 0)) best = i;
    }
    return best;
}

std::vector<uint8_t> recipe(const std::vector<float> &values, float tensor_scale) {
    std::vector<uint8_t> bytes;
    for (size_t first = 0; first < values.size(); first += 64) {
        uint8_t block[36] = {};
        for (uint32_t g = 0; g < 4; g++) {
            const float *x = &values[first + g * 16];
            float absmax = 0;
            for (int i = 0; i < 16; i++) absmax = std::max(absmax, std::fabs(x[i]));
            volatile float wanted = absmax / 6; // one rounding at a time
            wanted = wanted / tensor_scale;
            const float clamped = std::min(std::max(float(wanted), 0.015625f), 448.0f);
            block[g] = uint8_t(nearest(clamped, 127, e4m3));
            volatile float step = e4m3(block[g]) * tensor_scale;
            for (uint32_t i = 0; i < 16; i++) {
                volatile float quotient = x[i] / step;
                const uint32_t code = nearest(std::fabs(double(quotient)), 8, [](uint32_t c) { return e2m1[c]; }) | (std::signbit(x[i]) ? 8u : 0u);
                block[4 + g * 8 + i % 8] = uint8_t(block[4 + g * 8 + i % 8] | code << (i / 8 * 4));
            }
        }
        bytes.insert(bytes.end(), block, block + 36);
    }
    return bytes;
}

float scale_for(const std::vector<float> &values) {
    float absmax = 0;
    for (float value : values) absmax = std::max(absmax, std::fabs(value));
    return absmax / 2688;
}

qlora::Weight quantized(const qlora::Context &context, uint64_t rows, uint64_t cols, const std::vector<float> &values, float tensor_scale, uint32_t flags = 0) {
    QuantizeOptions options;
    options.tensor_scale = tensor_scale;
    options.flags = flags;
    return quantize_with(context, QLORA_FORMAT_NVFP4, rows, cols, values, options);
}

} // namespace

TEST_SUITE_BEGIN("formats");

TEST_CASE("nvfp4 under a tensor scale: the recipe's bytes on every backend, whatever the size of the values") {
    for (double size : {1e-20, 1e-6, 1.0, 3e7}) {
        std::vector<float> values = random_values(16 * 256, 41, size);
        for (int i = 0; i < 48; i++) values[size_t(i)] = i < 16 ? -0.0f : values[size_t(i)] * 1e-6f; // of zeros, and of tiny values
        for (int i = 64; i < 128; i++) values[size_t(i)] = float(size) * float(i - 96) / 16;         // ties among them
        const float scale = scale_for(values);
        const std::vector<uint8_t> expected = recipe(values, scale);
        for (const Target &target : targets()) {
            INFO(target.name, " ", size);
            const qlora::Context &context = shared_context(target);
            const qlora::Weight weight = quantized(context, 16, 256, values, scale);
            CHECK(weight.read_plane(QLORA_PLANE_CODE) == expected);
            CHECK(signal_to_noise(values, values_of(context, weight)) > 18); // dB
            const std::vector<uint8_t> smaller = recipe(values, scale / 100); // saturates
            CHECK(quantized(context, 16, 256, values, scale / 100).read_plane(QLORA_PLANE_CODE) == smaller);
            CHECK(quantized(context, 16, 256, values, scale, QLORA_FLAG_STOCHASTIC).read_plane(QLORA_PLANE_CODE) ==
                  quantized(shared_context(reference()), 16, 256, values, scale, QLORA_FLAG_STOCHASTIC).read_plane(QLORA_PLANE_CODE));
        }
    }
}

TEST_CASE("nvfp4: every code with every block scale under tensor scales") {
    std::vector<uint8_t> bytes;
    for (uint32_t scale = 0; scale < 256; scale++) {
        bytes.insert(bytes.end(), 4, uint8_t(scale));
        for (uint32_t i = 0; i < 32; i++) bytes.push_back(uint8_t((i % 8) * 2 | ((i + i / 8) % 8 * 2 + 1) << 4));
    }
    for (float tensor_scale : {0.0f, 1.0f, 0.3f, 3e-5f, 0x1p-100f, 0x1p100f}) {
        std::vector<float> expected;
        for (uint32_t scale = 0; scale < 256; scale++)
            for (uint32_t i = 0; i < 64; i++) {
                const uint8_t byte = bytes[scale * 36 + 4 + i / 16 * 8 + i % 8];
                const uint32_t code = i % 16 < 8 ? byte & 15u : byte >> 4;
                const float step = e4m3(scale) * (tensor_scale != 0 ? tensor_scale : 1), element = (code & 8 && code != 8 ? -1.0f : 1.0f) * e2m1[code & 7];
                expected.push_back(element * step);
            }
        for (const Target &target : targets()) {
            INFO(target.name, " ", tensor_scale);
            const qlora::Context &context = shared_context(target);
            qlora::Weight weight(context, QLORA_FORMAT_NVFP4, 256, 64);
            weight.write_plane(QLORA_PLANE_CODE, bytes.data());
            weight.set_tensor_scale(tensor_scale);
            CHECK(different_values(values_of(context, weight), expected) == 0);
        }
    }
}

TEST_CASE("nvfp4: products with a tensor scale are those with its values") {
    const uint64_t rows = 48, cols = 128;
    const std::vector<float> values = random_values(rows * cols, 43, 0.02);
    const float scale = scale_for(values);
    for (const Target &target : targets()) {
        INFO(target.name);
        const qlora::Context &context = shared_context(target);
        const qlora::Weight weight = quantized(context, rows, cols, values, scale);
        const std::vector<float> w = values_of(context, weight);
        for (uint64_t tokens : {1, 7, 40})
            for (bool grad : {false, true}) {
                const uint64_t from = grad ? rows : cols, to = grad ? cols : rows;
                const std::vector<float> given = random_values(tokens * from, tokens);
                std::vector<double> expected(tokens * to, 0.0);
                for (uint64_t t = 0; t < tokens; t++)
                    for (uint64_t r = 0; r < rows; r++)
                        for (uint64_t c = 0; c < cols; c++) expected[t * to + (grad ? c : r)] += double(given[t * from + (grad ? r : c)]) * double(w[r * cols + c]);
                const qlora::Buffer in(context, given), out(context, tokens * to * 4);
                auto args = qlora::make<qlora_matmul_args>();
                args.weight = weight.get();
                args.x = qlora::tensor(QLORA_FORMAT_F32, tokens, cols, (grad ? out : in).span());
                args.y = qlora::tensor(QLORA_FORMAT_F32, tokens, rows, (grad ? in : out).span());
                const qlora::Buffer scratch(context, context.operation_scratch(grad ? QLORA_OP_MATMUL_GRAD : QLORA_OP_MATMUL, args));
                args.scratch = scratch.span();
                context.check((grad ? qlora_weight_matmul_grad : qlora_weight_matmul)(context.get(), &args));
                CHECK(relative_error(out.read<float>(), expected) < tolerance(grad ? QLORA_OP_MATMUL_GRAD : QLORA_OP_MATMUL, QLORA_FORMAT_F32));
            }
    }
}

TEST_CASE("a tensor scale that cannot be is refused, and so is one of any other format") {
    auto weight = qlora::make<qlora_weight>();
    auto layout = qlora::make<qlora_weight_layout_info>();
    weight.rows = 1, weight.cols = 256;
    for (const qlora::FormatRow &row : qlora::format_rows) {
        weight.format = row.format;
        weight.tensor_scale = 0.5f;
        CHECK(qlora_weight_layout(&weight, &layout) == (row.format == QLORA_FORMAT_NVFP4 ? QLORA_OK : QLORA_ERROR_ARGUMENT));
    }
    weight.format = QLORA_FORMAT_NVFP4;
    for (float bad : {-1.0f, 1e-38f, 1e38f, from_bits(0x7f800000u), from_bits(0x7fc00000u)}) {
        weight.tensor_scale = bad;
        CHECK(qlora_weight_layout(&weight, &layout) == QLORA_ERROR_ARGUMENT);
    }
}

TEST_SUITE_END();
