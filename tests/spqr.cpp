// SpQR: bits to the last one, decoding against one written out in support/spqr.h, and what the quantizer promises.
#include "tests/support/spqr.h"
#include "tests/support/targets.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

using namespace test;

namespace {

constexpr int32_t spqr_formats[] = {QLORA_FORMAT_SPQR3, QLORA_FORMAT_SPQR4};
constexpr float never = std::numeric_limits<float>::infinity();

bool same_planes(const HostWeight &a, const HostWeight &b) { return std::equal(std::begin(a.planes), std::end(a.planes), std::begin(b.planes)); }

template <class Function> void for_calibrating_targets(Function &&f) {
    for (const Target &target : targets()) {
        const qlora::Context &context = shared_context(target);
        if (!context.operation_supports(QLORA_OP_QUANTIZE_SPQR, QLORA_FORMAT_SPQR4, QLORA_FORMAT_F32)) continue;
        INFO(target.name);
        f(context, target);
    }
}

struct Layer {
    uint64_t rows, cols;
    std::vector<float> w;
    std::vector<double> h;
};
// Related inputs, and in weights one of 200 that is far larger than its neighbours.
Layer layer_of(uint64_t rows, uint64_t cols, uint64_t seed, float spread = 0.7f) {
    Layer layer = {rows, cols, random_values(rows * cols, seed, 0.05), hessian_of(related_inputs(2 * cols + 32, cols, seed + 7000, spread), 2 * cols + 32, cols)};
    for (size_t i = 0; i < layer.w.size(); i++)
        if (mix(seed, i) % 200 == 0) layer.w[i] *= 12;
    return layer;
}

struct Options {
    uint32_t flags = 0;
    float threshold = 0, damping = 0;
};
struct Made {
    int32_t status;
    std::string message;
    qlora_spqr_outcome outcome;
    HostWeight host;
    std::vector<float> values;
};
Made quantized(const qlora::Context &context, const qlora_weight &shape, const Layer &layer, const Options &options = {}) {
    const qlora::Weight weight(context, shape);
    const qlora::Buffer src(context, layer.w), hessian(context, layer.h), outcome(context, sizeof(qlora_spqr_outcome));
    auto args = qlora::make<qlora_quantize_spqr_args>();
    args.flags = options.flags | QLORA_FLAG_WIDE;
    args.weight = weight.get();
    args.src = qlora::tensor(QLORA_FORMAT_F32, layer.rows, layer.cols, src.span());
    args.hessian = hessian.span();
    args.outcome = outcome.span();
    args.damping = options.damping;
    args.threshold = options.threshold;
    uint64_t bytes = 0;
    Made made = {};
    made.status = qlora_operation_scratch(context.get(), QLORA_OP_QUANTIZE_SPQR, &args, &bytes);
    const qlora::Buffer scratch(context, bytes);
    args.scratch = scratch.span();
    if (made.status == QLORA_OK) made.status = qlora_weight_quantize_spqr(context.get(), &args);
    made.message = qlora_context_message(context.get());
    outcome.read(&made.outcome, sizeof made.outcome);
    if (made.status != QLORA_OK) return made;
    made.host = download(weight);
    made.values = values_of(context, weight);
    return made;
}
Made quantized(const qlora::Context &context, int32_t format, const Layer &layer, const Options &options = {}) {
    return quantized(context, shape_of(format, layer.rows, layer.cols, 0, 0, layer.rows * layer.cols), layer, options);
}
double error_of(const Layer &layer, const std::vector<float> &q) { return output_error(layer.rows, layer.cols, layer.w, q, layer.h); }

} // namespace

TEST_SUITE_BEGIN("spqr");

TEST_CASE("exact bits per weight, and layouts that cannot be") {
    auto layout = qlora::make<qlora_weight_layout_info>();
    auto status = [&](const qlora_weight &weight) { return qlora_weight_layout(&weight, &layout); };
    auto bytes = [&](const qlora_weight &weight) {
        REQUIRE(status(weight) == QLORA_OK);
        uint64_t sum = 0;
        for (uint64_t plane : layout.plane_bytes) sum += plane;
        return sum;
    };
    auto bits = [&](const qlora_weight &weight) { return 8.0 * double(bytes(weight)) / double(weight.rows * weight.cols); };
    CHECK(bits(shape_of(QLORA_FORMAT_SPQR3, 4096, 4096)) == 3.625);
    CHECK(bits(shape_of(QLORA_FORMAT_SPQR4, 4096, 4096)) == 4.625);
    CHECK(bits(shape_of(QLORA_FORMAT_SPQR3, 4096, 4096, 8, 64)) == 3.875);
    CHECK(bits(shape_of(QLORA_FORMAT_SPQR3, 4096, 4096, 16, 16)) == 3.625);
    for (uint64_t outliers : {1, 17, 1000}) {
        CHECK(bytes(shape_of(QLORA_FORMAT_SPQR4, 4096, 4096, 0, 0, outliers)) == bytes(shape_of(QLORA_FORMAT_SPQR4, 4096, 4096)) + 4 * 4097 + 6 * outliers);
        CHECK(layout.plane_bytes[QLORA_PLANE_OFFSET] == 4 * 4097);
        CHECK(layout.plane_bytes[QLORA_PLANE_COLUMN] == 4 * outliers);
        CHECK(layout.plane_bytes[QLORA_PLANE_OUTLIER] == 2 * outliers);
    }
    CHECK(bytes(shape_of(QLORA_FORMAT_SPQR3, 17, 33)) == (17 * 33 * 3 + 7) / 8 + 2 * ((17 * 3 * 3 + 7) / 8) + 2 * 3 * 8);
    CHECK(bytes(shape_of(QLORA_FORMAT_SPQR3, 17, 33, 0, 0, 0, QLORA_WEIGHT_INDEXED)) == bytes(shape_of(QLORA_FORMAT_SPQR3, 17, 33)) + 33 * 4);
    CHECK(status(shape_of(QLORA_FORMAT_SPQR3, 4, 64, 0x80000000u)) == QLORA_ERROR_ARGUMENT);
    CHECK(status(shape_of(QLORA_FORMAT_SPQR3, 4, 64, 0, 0x80000000u)) == QLORA_ERROR_ARGUMENT);
    CHECK(status(shape_of(QLORA_FORMAT_SPQR3, 4, 64, 0, 0, 257)) == QLORA_ERROR_ARGUMENT);
    CHECK(status(shape_of(QLORA_FORMAT_GPTQ4, 4, 64, 0, 0, 1)) == QLORA_ERROR_ARGUMENT);
    CHECK(status(shape_of(QLORA_FORMAT_SPQR3, 1u << 20, 1u << 20, 0, 0, uint64_t(1) << 32)) == QLORA_ERROR_SHAPE);
    CHECK(status(shape_of(QLORA_FORMAT_SPQR3, 4, 64, 0, 0, 0, 2)) == QLORA_ERROR_ARGUMENT);
}

TEST_CASE("codes, grids and outliers decode exactly, in tiles of any size, with an index or without") {
    struct Case {
        uint64_t rows, cols;
        uint32_t block, nested_block, flags;
        uint64_t outliers;
    };
    for (int32_t format : spqr_formats)
        for (const Case &one : {Case{1, 1, 0, 0, 0, 1}, Case{33, 48, 0, 0, 0, 200}, Case{17, 65, 7, 5, 0, 60}, Case{40, 256, 8, 64, 0, 0}, Case{19, 161, 1000, 3, QLORA_WEIGHT_INDEXED, 90}, Case{32, 64, 0, 0, QLORA_WEIGHT_INDEXED, 0},
                                Case{24, 2048, 32, 16, 0, 2000}}) {
            const qlora_weight shape = shape_of(format, one.rows, one.cols, one.block, one.nested_block, one.outliers, one.flags);
            const qlora::Weight sizes(shared_context(reference()), shape);
            HostWeight host = download(sizes);
            host.shape.planes[0] = {};
            for (int plane = 0; plane < QLORA_PLANE_COUNT; plane++) // any bytes are codes
                for (size_t i = 0; i < host.planes[plane].size(); i++) host.planes[plane][i] = uint8_t(mix(uint64_t(plane) + 31, i));
            std::vector<float> grids = random_values(host.planes[QLORA_PLANE_NESTED].size() / 2, 77);
            for (size_t i = 0; i < grids.size(); i++) grids[i] *= i % 13 == 5 ? 1e-7f : i % 17 == 3 ? 3000.0f : 1;
            host.planes[QLORA_PLANE_NESTED] = pack(QLORA_FORMAT_F16, grids);
            if (one.flags) {
                std::vector<int32_t> index(one.cols);
                for (uint64_t c = 0; c < one.cols; c++) index[c] = int32_t((c * 64 + 5) % one.cols);
                index[3] = -1; // no place
                index[5] = int32_t(one.cols);
                host.planes[QLORA_PLANE_INDEX] = bytes_of(index);
            }
            if (one.outliers) {
                std::vector<uint32_t> offsets = {0}, columns;
                for (uint64_t r = 0; r < one.rows; r++) {
                    for (uint64_t c = 0; c < one.cols; c++)
                        if (mix(r, c) % 23 == 0 && columns.size() < one.outliers) columns.push_back(uint32_t(c));
                    offsets.push_back(uint32_t(columns.size()));
                }
                columns.resize(one.outliers, 0);
                offsets.back() = 0xffffffffu; // counts as the room, whose rest would be unsorted: column 0 comes first there
                if (columns.size() > 1 && columns[columns.size() - 1] == 0) offsets.back() = offsets[offsets.size() - 2];
                host.planes[QLORA_PLANE_OFFSET] = bytes_of(offsets);
                host.planes[QLORA_PLANE_COLUMN] = bytes_of(columns);
                host.planes[QLORA_PLANE_OUTLIER] = pack(QLORA_FORMAT_F16, random_values(one.outliers, 78));
            }
            const std::vector<float> expected = decoded_in<float>(host);
            const std::vector<double> wide = decoded_in<double>(host);
            for (size_t i = 0; i < expected.size(); i++) REQUIRE(std::fabs(double(expected[i]) - wide[i]) <= 1e-2 + 1e-3 * std::fabs(wide[i]));
            for (const Target &target : targets()) {
                const qlora::Context &context = shared_context(target);
                CHECK_MESSAGE(different_values(values_of(context, upload(context, host)), expected) == 0, text(target.name, " ", qlora::format_row(format)->name, " ", one.rows, "x", one.cols));
            }
        }
}

TEST_CASE("planes without order decode to something, and touch nothing else") {
    HostWeight host = host_weight(QLORA_FORMAT_SPQR4, 40, 200);
    for (int plane : {QLORA_PLANE_OFFSET, QLORA_PLANE_COLUMN})
        for (size_t i = 0; i < host.planes[plane].size(); i++) host.planes[plane][i] = uint8_t(mix(uint64_t(plane), i));
    for (const Target &target : targets()) {
        const qlora::Context &context = shared_context(target);
        CHECK(values_of(context, upload(context, host)).size() == 8000);
    }
}

TEST_CASE("the loss is the error of the outputs, for every order, tile and threshold") {
    for_calibrating_targets([](const qlora::Context &context, const Target &target) {
        double worst = 0;
        uint64_t seed = 0;
        for (float spread : {0.0f, 0.5f, 0.9f})
            for (int32_t format : spqr_formats)
                for (uint32_t flags : {0u, QLORA_FLAG_ACT_ORDER | QLORA_FLAG_SEARCH, QLORA_FLAG_SIMPLIFIED})
                    for (float threshold : {0.0f, 0.02f, never})
                        for (uint32_t block : {16u, 7u, 1000u}) {
                            const Layer layer = layer_of(11, 64, ++seed, spread);
                            const Made made = quantized(context, shape_of(format, 11, 64, block, block, 11 * 64), layer, {flags, threshold, 0});
                            REQUIRE(made.status == QLORA_OK);
                            REQUIRE(made.outcome.method == QLORA_GPTQ_DONE);
                            const double error = output_error(11, 64, layer.w, made.values, layer.h, double(0.01f) * mean_diagonal(layer.h, 64));
                            worst = std::max(worst, std::fabs(2 * made.outcome.loss / error - 1));
                            CHECK(made.outcome.outliers == numbers<uint32_t>(made.host.planes[QLORA_PLANE_OFFSET]).back());
                            if (threshold == never) CHECK(made.outcome.outliers == 0);
                        }
        CHECK(worst <= 1e-9);
        std::printf("loss identity   %-12s relative deviation at most %.1e\n", target.name.c_str(), worst);
    });
}

TEST_CASE("without room for outliers, or input to learn from, it is rounding to nearest") {
    for_calibrating_targets([](const qlora::Context &context, const Target &) {
        for (int32_t format : spqr_formats)
            for (uint32_t block : {1u, 7u, 16u, 5000u}) {
                Layer layer = {21, 83, special_values(21 * 83, 40, QLORA_FORMAT_F16, 5), std::vector<double>(83 * 83, 0.0)};
                for (uint64_t i = 0; i < 83; i++) layer.h[i * 83 + i] = 1;
                const qlora_weight shape = shape_of(format, 21, 83, block);
                const Made made = quantized(context, shape, layer, {0, never, 0});
                REQUIRE(made.status == QLORA_OK);
                CHECK(same_planes(made.host, nearest_of(context, shape, layer.w)));
                layer.h[1] = layer.h[83] = 1e9; // no factor, whatever the damping
                const Made other = quantized(context, shape, layer);
                CHECK(other.outcome.method == QLORA_GPTQ_NEAREST);
                CHECK(other.outcome.loss != other.outcome.loss);
                CHECK(same_planes(other.host, made.host));
            }
    });
}

TEST_CASE("outputs suffer less than from rounding to nearest, and than from GPTQ at no fewer bits") {
    for_calibrating_targets([](const qlora::Context &context, const Target &target) {
        for (int32_t format : spqr_formats) {
            const Layer layer = layer_of(128, 256, 3, 0.4f);
            const Made made = quantized(context, format, layer, {QLORA_FLAG_ACT_ORDER | QLORA_FLAG_SEARCH, format == QLORA_FORMAT_SPQR3 ? 0.6f : 0, 0});
            REQUIRE(made.status == QLORA_OK);
            const double spqr = error_of(layer, made.values), nearest = error_of(layer, values_of(context, upload(context, nearest_of(context, shape_of(format, 128, 256), layer.w))));
            CalibrateOptions options;
            options.format = format == QLORA_FORMAT_SPQR3 ? QLORA_FORMAT_GPTQ3 : QLORA_FORMAT_GPTQ4;
            options.block = 16; // a bit and more per weight for scales and zeros
            options.flags = QLORA_FLAG_ACT_ORDER | QLORA_FLAG_STATIC_GROUPS;
            const double gptq = error_of(layer, calibrate(context, 128, 256, layer.w, layer.h, options).values);
            const double share = double(made.outcome.outliers) / (128 * 256), bits = qlora::format_row(format)->bits + 0.625 + 48 * share + 32 * 129.0 / (128 * 256);
            const double gptq_bits = qlora::format_row(format)->bits + (16 + qlora::format_row(format)->bits) / 16.0;
            std::printf("spqr            %-12s %s error %.4g at %.3f bits (outliers %.2f %%); nearest %.4g; gptq %.4g at %.3f bits\n", target.name.c_str(), qlora::format_row(format)->name, spqr, bits,
                        100 * share, nearest, gptq, gptq_bits);
            CHECK(share > 0);
            CHECK(share < 0.01);
            CHECK(bits < gptq_bits);
            CHECK(spqr < 0.5 * nearest);
            CHECK(spqr < gptq);
        }
    });
}

TEST_CASE("a lower threshold marks more outliers and leaves less error; without any, the error is larger") {
    for_calibrating_targets([](const qlora::Context &context, const Target &) {
        const Layer layer = layer_of(96, 192, 4);
        uint64_t marked = 0;
        double error = std::numeric_limits<double>::infinity(), limit = 0;
        for (float threshold : {never, 0.8f, 0.4f, 0.2f, 0.1f}) {
            const Made made = quantized(context, QLORA_FORMAT_SPQR3, layer, {QLORA_FLAG_ACT_ORDER, threshold, 0});
            REQUIRE(made.status == QLORA_OK);
            CHECK(made.outcome.outliers >= marked);
            CHECK(error_of(layer, made.values) < error);
            if (threshold == 0.4f) limit = made.outcome.limit;
            if (threshold == 0.2f) CHECK(made.outcome.limit == doctest::Approx(limit / 2));
            marked = made.outcome.outliers;
            error = error_of(layer, made.values);
        }
        CHECK(marked > 0);
        // The mean over columns of variance / U^2: with H the identity and no relation, U is 1 but for the damping.
        Layer plain = layer;
        std::fill(plain.h.begin(), plain.h.end(), 0.0);
        double variances = 0;
        for (uint64_t c = 0; c < 192; c++) {
            plain.h[c * 192 + c] = 1;
            double mean = 0, sum = 0;
            for (uint64_t r = 0; r < 96; r++) mean += double(layer.w[r * 192 + c]) / 96;
            for (uint64_t r = 0; r < 96; r++) sum += std::pow(double(layer.w[r * 192 + c]) - mean, 2);
            variances += sum / 95 / 192;
        }
        CHECK(quantized(context, QLORA_FORMAT_SPQR3, plain).outcome.limit == doctest::Approx(double(0.2f) * variances * (1 + double(0.01f))).epsilon(1e-9));
    });
}

TEST_CASE("searching among codes leaves less error") {
    for_calibrating_targets([](const qlora::Context &context, const Target &target) {
        for (int32_t format : spqr_formats) {
            const Layer layer = layer_of(96, 192, 9, 0.4f);
            const double searched = error_of(layer, quantized(context, format, layer, {QLORA_FLAG_SEARCH, never, 0}).values), nearest = error_of(layer, quantized(context, format, layer, {0, never, 0}).values);
            std::printf("spqr            %-12s %s without outliers: search %.4g of the nearest codes' error\n", target.name.c_str(), qlora::format_row(format)->name, searched / nearest);
            CHECK(searched < 0.97 * nearest);
        }
    });
}

TEST_CASE("fitting without the values that become outliers is worth it") {
    for_calibrating_targets([](const qlora::Context &context, const Target &) {
        const Layer layer = layer_of(96, 192, 5);
        const double fitted = error_of(layer, quantized(context, QLORA_FORMAT_SPQR3, layer).values), simplified = error_of(layer, quantized(context, QLORA_FORMAT_SPQR3, layer, {QLORA_FLAG_SIMPLIFIED, 0, 0}).values);
        CHECK(fitted < simplified);
    });
}

TEST_CASE("columns without input have no outliers, do not touch the others, and no part in the damping") {
    for_calibrating_targets([](const qlora::Context &context, const Target &) {
        const uint64_t rows = 20, cols = 48;
        Layer layer = layer_of(rows, cols, 6);
        std::vector<float> x = related_inputs(128, cols, 9, 0.6f);
        for (float &value : x) value *= 1e-3f; // a dead column's 1 would be a large part of the mean
        for (uint64_t t = 0; t < 128; t++) x[t * cols + 5] = x[t * cols + 20] = 0;
        layer.h = hessian_of(x, 128, cols);
        const Made made = quantized(context, QLORA_FORMAT_SPQR3, layer, {QLORA_FLAG_ACT_ORDER, 0, 0});
        CHECK(made.outcome.dead_columns == 2);
        for (uint32_t column : numbers<uint32_t>(made.host.planes[QLORA_PLANE_COLUMN])) CHECK((column != 5 && column != 20));
        Layer other = layer;
        for (uint64_t r = 0; r < rows; r++) other.w[r * cols + 5] = 1000;
        CHECK(same_planes(quantized(context, QLORA_FORMAT_SPQR3, other, {QLORA_FLAG_ACT_ORDER, 0, 0}).host, made.host));
        for (double &value : layer.h) value *= 1e6; // all but the dead columns' own 1 scales
        const Made larger = quantized(context, QLORA_FORMAT_SPQR3, layer, {QLORA_FLAG_ACT_ORDER, 0, 0});
        CHECK(larger.outcome.outliers == made.outcome.outliers);
        CHECK(larger.outcome.limit == doctest::Approx(1e6 * made.outcome.limit).epsilon(1e-6));
    });
}

TEST_CASE("too little room says how much is needed; more of it changes nothing") {
    for_calibrating_targets([](const qlora::Context &context, const Target &) {
        const Layer layer = layer_of(40, 96, 8);
        const Made wide = quantized(context, QLORA_FORMAT_SPQR4, layer, {0, 0.05f, 0});
        const uint64_t count = wide.outcome.outliers;
        REQUIRE(count > 2);
        for (uint64_t room : {uint64_t(0), count - 1}) {
            const Made short_of = quantized(context, shape_of(QLORA_FORMAT_SPQR4, 40, 96, 0, 0, room), layer, {0, 0.05f, 0});
            CHECK(short_of.status == QLORA_ERROR_SHAPE);
            CHECK(short_of.outcome.outliers == count);
            CHECK(short_of.message.find(std::to_string(count)) != std::string::npos);
        }
        const Made exact = quantized(context, shape_of(QLORA_FORMAT_SPQR4, 40, 96, 0, 0, count), layer, {0, 0.05f, 0});
        REQUIRE(exact.status == QLORA_OK);
        CHECK(exact.values == wide.values);
        for (int plane = 0; plane < QLORA_PLANE_COUNT; plane++) {
            std::vector<uint8_t> used = wide.host.planes[plane];
            for (size_t i = exact.host.planes[plane].size(); i < used.size(); i++) CHECK(used[i] == 0);
            used.resize(exact.host.planes[plane].size());
            CHECK(used == exact.host.planes[plane]);
        }
    });
}

TEST_CASE("what cannot be calibrated is refused with its own status") {
    for_calibrating_targets([](const qlora::Context &context, const Target &) {
        const Layer layer = layer_of(4, 32, 1);
        auto status = [&](const qlora_weight &shape, const Layer &given, const Options &options) { return quantized(context, shape, given, options).status; };
        const qlora_weight shape = shape_of(QLORA_FORMAT_SPQR3, 4, 32, 0, 0, 128);
        CHECK(status(shape, layer, {}) == QLORA_OK);
        CHECK(status(shape, layer, {0, -1, 0}) == QLORA_ERROR_VALUE);
        CHECK(status(shape, layer, {0, std::nanf(""), 0}) == QLORA_ERROR_VALUE);
        CHECK(status(shape, layer, {0, 0, -1}) == QLORA_ERROR_VALUE);
        CHECK(status(shape, layer, {0, 0, never}) == QLORA_ERROR_VALUE);
        CHECK(status(shape, layer, {QLORA_FLAG_STATIC_GROUPS, 0, 0}) == QLORA_ERROR_ARGUMENT);
        Layer bad = layer;
        bad.w[37] = std::nanf("");
        Made made = quantized(context, shape, bad);
        CHECK(made.status == QLORA_ERROR_VALUE);
        CHECK(made.message.find("src element 37") != std::string::npos);
        bad = layer;
        bad.h[70] = INFINITY;
        made = quantized(context, shape, bad);
        CHECK(made.status == QLORA_ERROR_VALUE);
        CHECK(made.message.find("hessian element 70") != std::string::npos);
    });
}

TEST_SUITE_END();
