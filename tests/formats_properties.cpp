// Published and measured properties of the 4-bit formats on normal values, each with its number: mean absolute and relative
// errors by block, their order, what double quantization saves and costs, and the parameters that a precision is worth.
#include "backends/formats.h"
#include "tests/support/inputs.h"
#include "tests/support/quantized.h"
#include "tests/support/targets.h"

#include <doctest/doctest.h>

using namespace test;

namespace {

constexpr uint64_t rows = 256, cols = 4096;

const std::vector<float> &normal_values() {
    static const std::vector<float> values = random_values(rows * cols, 61);
    return values;
}

struct Errors { double absolute, relative; };

Errors errors_of(const std::vector<float> &stored) {
    const std::vector<float> &values = normal_values();
    Errors errors = {0, 0};
    for (size_t i = 0; i < values.size(); i++) {
        const double error = std::fabs(double(stored[i]) - double(values[i]));
        errors.absolute += error;
        errors.relative += error / std::fabs(double(values[i]));
    }
    return {errors.absolute / double(values.size()), errors.relative / double(values.size())};
}

Errors errors_of(const qlora::Context &context, int32_t format, uint32_t block) {
    QuantizeOptions options;
    options.block = block;
    return errors_of(values_of(context, quantize_with(context, format, rows, cols, normal_values(), options)));
}

// A grid under absmax that is no format of the library: magnitudes from 0 to the largest.
Errors errors_of_grid(const std::vector<double> &grid, uint32_t block) {
    std::vector<float> stored = normal_values();
    for (size_t begin = 0; begin < stored.size(); begin += block) {
        double absmax = 0;
        for (size_t i = begin; i < begin + block; i++) absmax = std::fmax(absmax, std::fabs(double(stored[i])));
        const double scale = absmax / grid.back();
        for (size_t i = begin; i < begin + block; i++) {
            double best = 0;
            for (double level : grid)
                if (std::fabs(level - std::fabs(double(stored[i])) / scale) < std::fabs(best - std::fabs(double(stored[i])) / scale)) best = level;
            stored[i] = float(std::copysign(best * scale, double(stored[i])));
        }
    }
    return errors_of(stored);
}
const std::vector<double> int4_grid = {0, 1, 2, 3, 4, 5, 6, 7}, e2m1_grid = {0, 0.5, 1, 1.5, 2, 3, 4, 6};

} // namespace

TEST_SUITE_BEGIN("formats");

TEST_CASE("rows 1 and 2: mean absolute error of NF4 and FP4 by block") {
    struct Known { uint32_t block; double nf4, fp4; };
    for (const Target &target : targets())
        for (const Known &known : {Known{32, .067746, .088925}, Known{64, .072798, .096543}, Known{128, .076831, .102969}, Known{256, .080337, .108684}, Known{512, .083547, .114115},
                                   Known{1024, .086610, .119333}, Known{2048, .089592, .124556}, Known{4096, .092547, .129536}}) {
            INFO(target.name, " ", known.block);
            CHECK(std::fabs(errors_of(shared_context(target), QLORA_FORMAT_NF4, known.block).absolute - known.nf4) < 0.0005);
            CHECK(std::fabs(errors_of(shared_context(target), QLORA_FORMAT_FP4, known.block).absolute - known.fp4) < 0.0007);
        }
}

TEST_CASE("rows 3 and 4: NF4 before FP4 before INT4 by relative error at every block, NF4 before E2M1 before INT4 by absolute error") {
    const qlora::Context &context = shared_context(targets().front());
    for (uint32_t block = 32; block <= 4096; block *= 2) {
        INFO(block);
        const double nf4 = errors_of(context, QLORA_FORMAT_NF4, block).relative, fp4 = errors_of(context, QLORA_FORMAT_FP4, block).relative;
        CHECK(nf4 < fp4);
        CHECK(fp4 < errors_of_grid(int4_grid, block).relative);
    }
    CHECK(std::fabs(errors_of(context, QLORA_FORMAT_NF4, 64).absolute - .0727) < 0.0005);
    CHECK(std::fabs(errors_of_grid(e2m1_grid, 64).absolute - .0802) < 0.0005);
    CHECK(std::fabs(errors_of_grid(int4_grid, 64).absolute - .0913) < 0.0005);
}

TEST_CASE("row 5: double quantization saves 0.373047 bits a parameter and costs 0.1 % of error") {
    const auto bytes_of_planes = [](int32_t format) {
        auto weight = qlora::make<qlora_weight>();
        auto layout = qlora::make<qlora_weight_layout_info>();
        weight.format = format, weight.rows = rows, weight.cols = cols;
        REQUIRE(qlora_weight_layout(&weight, &layout) == QLORA_OK);
        uint64_t bytes = 0;
        for (uint64_t plane : layout.plane_bytes) bytes += plane;
        return bytes - layout.plane_bytes[QLORA_PLANE_OFFSET]; // one for the whole tensor
    };
    CHECK(double(bytes_of_planes(QLORA_FORMAT_NF4) - bytes_of_planes(QLORA_FORMAT_NF4_DQ)) * 8 / double(rows * cols) == 0.373046875);
    CHECK(double(bytes_of_planes(QLORA_FORMAT_NF4_DQ)) * 8 / double(rows * cols) == 4.126953125);
    for (const Target &target : targets()) {
        INFO(target.name);
        const double plain = errors_of(shared_context(target), QLORA_FORMAT_NF4, 64).absolute, nested = errors_of(shared_context(target), QLORA_FORMAT_NF4_DQ, 64).absolute;
        CHECK(std::fabs(nested / plain - 1.001) < 0.0005);
    }
}

TEST_CASE("row 19: the parameters that a precision is worth, from the bits of the table of formats") {
    struct Known { int32_t format; double worth; };
    for (const Known &known : {Known{QLORA_FORMAT_GPTQ2, .527}, Known{QLORA_FORMAT_GPTQ3, .674}, Known{QLORA_FORMAT_Q4_K, .776}, Known{QLORA_FORMAT_Q5_K, .846}, Known{QLORA_FORMAT_Q6_K, .894},
                               Known{QLORA_FORMAT_INT8, .950}, Known{QLORA_FORMAT_F16, .9975}}) {
        const double bits = qlora::format_query(known.format).bits;
        CHECK(std::fabs(1 - std::exp(-bits / 2.6745) - known.worth) < 0.0006); // weights alone, 2411.04330
    }
}

TEST_SUITE_END();
