// SpQR: bits to the last one, decoding against one written out here, what the quantizer promises, and the import of files that
// this test packs itself.
#include "backends/formats.h"
#include "tests/support/calibrated.h"
#include "tests/support/stage.h"
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

qlora_weight shape_of(int32_t format, uint64_t rows, uint64_t cols, uint32_t block = 0, uint32_t nested_block = 0, uint64_t outliers = 0, uint32_t flags = 0) {
    auto weight = qlora::make<qlora_weight>();
    weight.flags = flags;
    weight.format = format;
    weight.block = block;
    weight.nested_block = nested_block;
    weight.rows = rows;
    weight.cols = cols;
    weight.outliers = outliers;
    return weight;
}

uint32_t code_at(const std::vector<uint8_t> &stream, uint64_t i, uint32_t bits) {
    uint32_t code = 0;
    for (uint32_t b = 0; b < bits; b++) code |= uint32_t(stream[(i * bits + b) / 8] >> ((i * bits + b) % 8) & 1) << b;
    return code;
}
template <class T> std::vector<T> numbers(const std::vector<uint8_t> &bytes) {
    std::vector<T> values(bytes.size() / sizeof(T));
    if (!values.empty()) std::memcpy(values.data(), bytes.data(), values.size() * sizeof(T));
    return values;
}

// A weight decoded as the header says: in T, every operation rounded to it.
template <class T> std::vector<T> decoded_in(const HostWeight &host) {
    const qlora_weight &about = host.shape;
    const uint32_t bits = qlora::format_row(about.format)->bits, block = about.block ? about.block : 16, n = about.nested_block ? about.nested_block : 16;
    const uint64_t groups = (about.cols + block - 1) / block;
    const std::vector<float> grids = unpack(QLORA_FORMAT_F16, host.planes[QLORA_PLANE_NESTED]), outliers = unpack(QLORA_FORMAT_F16, host.planes[QLORA_PLANE_OUTLIER]);
    const std::vector<uint32_t> offsets = numbers<uint32_t>(host.planes[QLORA_PLANE_OFFSET]), columns = numbers<uint32_t>(host.planes[QLORA_PLANE_COLUMN]);
    const std::vector<int32_t> index = numbers<int32_t>(host.planes[QLORA_PLANE_INDEX]);
    std::vector<T> values(about.rows * about.cols);
    for (uint64_t r = 0; r < about.rows; r++)
        for (uint64_t c = 0; c < about.cols; c++) {
            const int64_t place = index.empty() ? int64_t(c) : index[c];
            volatile T value = 0;
            if (place >= 0 && place < int64_t(about.cols)) {
                const uint64_t group = uint64_t(place) / block, at = r * groups + group;
                const float *grid = &grids[(r / n * groups + group) * 4];
                const volatile T scale_part = T(code_at(host.planes[QLORA_PLANE_SCALE], at, 3)) - T(grid[2]), zero_part = T(code_at(host.planes[QLORA_PLANE_ZERO], at, 3)) - T(grid[3]);
                const volatile T scale = T(grid[0]) * scale_part, zero = T(grid[1]) * zero_part;
                const volatile T part = T(code_at(host.planes[QLORA_PLANE_CODE], r * about.cols + uint64_t(place), bits)) - zero;
                value = scale * part;
            }
            for (uint64_t i = offsets.empty() ? 0 : offsets[r]; !offsets.empty() && i < std::min<uint64_t>(offsets[r + 1], about.outliers); i++)
                if (columns[i] == c) value = value + T(outliers[i]);
            values[r * about.cols + c] = value;
        }
    return values;
}

qlora::Weight upload(const qlora::Context &context, const HostWeight &host) {
    qlora::Weight weight(context, host.shape);
    for (int plane = 0; plane < QLORA_PLANE_COUNT; plane++)
        if (!host.planes[plane].empty()) weight.write_plane(plane, host.planes[plane].data());
    return weight;
}
HostWeight download(const qlora::Weight &weight) {
    HostWeight host = {*weight.get(), {}};
    for (int plane = 0; plane < QLORA_PLANE_COUNT; plane++) host.planes[plane] = weight.read_plane(plane);
    return host;
}
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
HostWeight nearest_of(const qlora::Context &context, const qlora_weight &shape, const std::vector<float> &w) {
    const qlora::Weight weight(context, shape);
    const qlora::Buffer src(context, w);
    auto args = qlora::make<qlora_quantize_args>();
    args.weight = weight.get();
    args.src = qlora::tensor(QLORA_FORMAT_F32, shape.rows, shape.cols, src.span());
    const qlora::Buffer scratch(context, context.operation_scratch(QLORA_OP_QUANTIZE, args));
    args.scratch = scratch.span();
    context.weight_quantize(args);
    return download(weight);
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

namespace {

// A file of SpQR's inference library, packed bit by bit from a weight whose columns lie at places of their own.
struct File {
    std::vector<uint64_t> dense;
    std::vector<int32_t> row_offsets;
    std::vector<uint32_t> col_vals;
    std::vector<uint16_t> in_perm;
    uint64_t rows, cols;
    uint32_t flags;
};
uint16_t half_bits(float value) {
    uint8_t bytes[2];
    store(QLORA_FORMAT_F16, value, bytes);
    return uint16_t(bytes[0] | bytes[1] << 8);
}
File packed(const HostWeight &host, bool permuted, bool interleaved, std::vector<float> &values) {
    const uint64_t rows = host.shape.rows, cols = host.shape.cols, tiles = (cols + 15) / 16;
    File file = {{}, {0}, {}, {}, rows, cols, interleaved ? QLORA_SPQR_PTCSR : 0};
    for (uint64_t c = 0; permuted && c < cols; c++) file.in_perm.push_back(uint16_t(cols % 2 ? (c * 2 + 3) % cols : cols - 1 - c));
    const std::vector<uint16_t> grids = numbers<uint16_t>(host.planes[QLORA_PLANE_NESTED]);
    const std::vector<float> dense = decoded_in<float>(host);
    for (uint64_t strip = 0; strip * 16 < rows; strip++)
        for (uint64_t tile = 0; tile < tiles; tile++)
            for (uint64_t i = 0; i < 16; i++) {
                const uint64_t r = strip * 16 + i;
                uint64_t word = uint64_t(grids[(strip * tiles + tile) * 4 + i / 4] >> (i / 2 % 2 * 8) & 255) << 54;
                if (r < rows) {
                    word |= code_at(host.planes[QLORA_PLANE_SCALE], r * tiles + tile, 3) | code_at(host.planes[QLORA_PLANE_ZERO], r * tiles + tile, 3) << 3;
                    for (uint64_t c = 0; c < 16 && tile * 16 + c < cols; c++) word |= uint64_t(code_at(host.planes[QLORA_PLANE_CODE], r * cols + tile * 16 + c, 3)) << (6 + 3 * c);
                } else {
                    word &= uint64_t(255) << 54;
                }
                file.dense.push_back(word);
            }
    // Outliers in place order; a value of the file stands in for what its code says.
    std::vector<std::vector<uint32_t>> entries(rows);
    values.assign(rows * cols, 0.0f);
    for (uint64_t r = 0; r < rows; r++)
        for (uint64_t place = 0; place < cols; place++) {
            const uint64_t c = permuted ? file.in_perm[place] : place;
            values[r * cols + c] = dense[r * cols + place];
            if (mix(r + 900, place) % 31) continue;
            const float outlier = round_to(QLORA_FORMAT_F16, float(uniform(r, place)) + 0.25f);
            entries[r].push_back(uint32_t(half_bits(outlier)) << 16 | uint32_t(place));
            values[r * cols + c] = outlier;
        }
    for (uint64_t strip = 0; interleaved && strip * 16 < rows; strip++) {
        uint64_t longest = 0;
        for (uint64_t r = strip * 16; r < std::min(rows, strip * 16 + 16); r++) longest = std::max<uint64_t>(longest, entries[r].size());
        for (uint64_t k = 0; k < longest; k++)
            for (uint64_t i = 0; i < 16; i++) file.col_vals.push_back(strip * 16 + i < rows && k < entries[strip * 16 + i].size() ? entries[strip * 16 + i][k] : 0);
        file.row_offsets.push_back(int32_t(file.col_vals.size()));
    }
    for (uint64_t r = 0; !interleaved && r < rows; r++) {
        file.col_vals.insert(file.col_vals.end(), entries[r].begin(), entries[r].end());
        file.row_offsets.push_back(int32_t(file.col_vals.size()));
    }
    return file;
}

template <class T> qlora_span host_span(const std::vector<T> &values) { return qlora_span{values.empty() ? 0 : reinterpret_cast<uint64_t>(values.data()), 0, values.size() * sizeof(T)}; }

struct Imported {
    int32_t status;
    std::string message;
    uint64_t outliers;
    HostWeight host;
};
Imported imported(const File &file, uint64_t room, uint32_t flags = 0) {
    const qlora::Context &ref = shared_context(reference());
    HostWeight host = {shape_of(QLORA_FORMAT_SPQR3, file.rows, file.cols, 0, 0, room, file.in_perm.empty() ? 0 : QLORA_WEIGHT_INDEXED), {}};
    auto layout = qlora::make<qlora_weight_layout_info>();
    REQUIRE(qlora_weight_layout(&host.shape, &layout) == QLORA_OK);
    qlora_weight weight = host.shape;
    for (int plane = 0; plane < QLORA_PLANE_COUNT; plane++) {
        host.planes[plane].assign(layout.plane_bytes[plane], 0xa5);
        weight.planes[plane] = host_span(host.planes[plane]);
    }
    auto tensors = qlora::make<qlora_spqr_tensors>();
    tensors.flags = file.flags | flags;
    tensors.weight = &weight;
    tensors.dense = host_span(file.dense);
    tensors.row_offsets = host_span(file.row_offsets);
    tensors.col_vals = host_span(file.col_vals);
    tensors.in_perm = host_span(file.in_perm);
    tensors.entry_count = file.col_vals.size();
    const int32_t status = qlora_spqr_import(ref.get(), &tensors);
    return {status, qlora_context_message(ref.get()), tensors.outliers, host};
}

} // namespace

TEST_CASE("files of the inference library come in whole: words, entries in rows or strips, permuted or not") {
    const qlora::Context &ref = shared_context(reference());
    for (const auto &size : {std::pair<uint64_t, uint64_t>{48, 64}, {33, 75}, {16, 16}, {5, 321}})
        for (bool permuted : {false, true})
            for (bool interleaved : {false, true}) {
                const HostWeight given = nearest_of(ref, shape_of(QLORA_FORMAT_SPQR3, size.first, size.second), random_values(size.first * size.second, 12, 0.3));
                std::vector<float> expected;
                const File file = packed(given, permuted, interleaved, expected);
                const Imported got = imported(file, file.col_vals.size());
                REQUIRE_MESSAGE(got.status == QLORA_OK, got.message);
                for (int plane : {QLORA_PLANE_CODE, QLORA_PLANE_SCALE, QLORA_PLANE_ZERO, QLORA_PLANE_NESTED}) CHECK(got.host.planes[plane] == given.planes[plane]);
                CHECK(got.outliers == numbers<uint32_t>(got.host.planes[QLORA_PLANE_OFFSET]).back());
                CHECK(got.outliers == uint64_t(std::count_if(file.col_vals.begin(), file.col_vals.end(), [](uint32_t entry) { return entry >> 16 != 0; })));
                for (const Target &target : targets()) {
                    const qlora::Context &context = shared_context(target);
                    const std::vector<float> values = values_of(context, upload(context, got.host));
                    uint64_t wrong = 0; // an outlier is a sum of f16 and what its code says
                    for (size_t i = 0; i < values.size(); i++) wrong += !(std::fabs(values[i] - expected[i]) <= std::fabs(expected[i]) * 0x1p-10f);
                    CHECK_MESSAGE(wrong == 0, text(target.name, " ", size.first, "x", size.second, permuted ? " permuted" : "", interleaved ? " in strips: " : ": ", wrong));
                }
                // As the kernels have it: on top of what the code says.
                const std::vector<float> added = decoded_in<float>(imported(file, file.col_vals.size(), QLORA_SPQR_ADDED).host), plain = decoded_in<float>(got.host);
                uint64_t moved = 0;
                for (size_t i = 0; i < added.size(); i++) moved += added[i] != plain[i];
                CHECK(moved > 0);
                CHECK(moved <= got.outliers);
                CHECK(imported(file, got.outliers).status == QLORA_OK);
                const Imported short_of = imported(file, got.outliers - 1);
                CHECK(short_of.status == QLORA_ERROR_SHAPE);
                CHECK(short_of.outliers == 0); // nothing is handed back on failure
                CHECK(short_of.message.find(std::to_string(got.outliers)) != std::string::npos);
            }
}

TEST_CASE("files that cannot be right are refused, and the message names the place") {
    const HostWeight given = nearest_of(shared_context(reference()), shape_of(QLORA_FORMAT_SPQR3, 33, 75), random_values(33 * 75, 12, 0.3));
    std::vector<float> values;
    const File csr = packed(given, true, false, values), strips = packed(given, false, true, values);
    auto refused = [&](File file, const char *what) {
        const Imported got = imported(file, 33 * 75);
        CHECK_MESSAGE(got.status == QLORA_ERROR_VALUE, text(what, ": ", got.status));
        CHECK_MESSAGE(got.message.find(what) != std::string::npos, got.message);
    };
    File file = csr;
    file.row_offsets[7] = -1;
    refused(file, "row_offsets elements 6 and 7");
    file = csr;
    file.row_offsets[33] = int32_t(file.col_vals.size()) + 1;
    refused(file, "row_offsets elements 32 and 33");
    file = csr;
    file.row_offsets[5] = file.row_offsets[6] + 1;
    refused(file, "row_offsets elements 5 and 6");
    file = strips;
    file.row_offsets[1] += 3;
    refused(file, "multiples of 16");
    file = csr;
    file.col_vals[4] = (file.col_vals[4] & 0xffff0000u) | 75;
    refused(file, "col_vals element 4");
    file = csr;
    file.col_vals[4] |= 0x7c000000u;
    refused(file, "col_vals element 4");
    file = csr;
    size_t row = 0;
    while (file.row_offsets[row + 1] - file.row_offsets[row] < 2) row++;
    file.col_vals[size_t(file.row_offsets[row]) + 1] = file.col_vals[size_t(file.row_offsets[row])];
    refused(file, "twice");
    file = csr;
    file.in_perm[3] = file.in_perm[9];
    refused(file, "in_perm element 9");
    file = csr;
    file.in_perm[3] = 75;
    refused(file, "in_perm element 3");
    file = csr;
    file.dense[16 + 2] |= uint64_t(0xff) << 54; // the high byte of the first number of tile 1
    refused(file, "grid of tile 1");
}

TEST_SUITE_END();
