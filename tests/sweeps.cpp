// All 2^32 f32 inputs through every conversion to 16, 8, 6 and 4 bits, each target against ref; and matrices of more than
// 2^31 elements. Every input in a prime's steps by default; each one, and the large matrices, with QLORA_TEST_ALL set.
#include "backends/formats.h"
#include "tests/support/inputs.h"
#include "tests/support/quantized.h"
#include "tests/support/targets.h"

#include <doctest/doctest.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>

#if defined(__linux__)
#include <sys/mman.h>
#endif

using namespace test;

namespace {

bool long_run() { return std::getenv("QLORA_TEST_ALL") != nullptr; }

// A format under test on one target: what is quantized again and again.
struct Encoder {
    const Target &target;
    const qlora::Context &context;
    qlora::Weight weight;
    qlora::Buffer src, scratch;
    qlora_quantize_args args;

    Encoder(const Target &target, int32_t format, uint32_t block, uint64_t rows, uint64_t cols)
        : target(target), context(shared_context(target)), weight(context, format, rows, cols, block), src(context, rows * cols * 4), args(qlora::make<qlora_quantize_args>()) {
        args.weight = weight.get();
        args.src = qlora::tensor(QLORA_FORMAT_F32, rows, cols, src.span());
        scratch = qlora::Buffer(context, context.operation_scratch(QLORA_OP_QUANTIZE, args));
        args.scratch = scratch.span();
    }
    Encoder(const Encoder &) = delete;
    std::vector<std::vector<uint8_t>> planes(const std::vector<float> &values) {
        src.write(values.data(), values.size() * 4);
        context.weight_quantize(args);
        std::vector<std::vector<uint8_t>> planes;
        for (int plane : {QLORA_PLANE_CODE, QLORA_PLANE_SCALE}) planes.push_back(weight.read_plane(plane));
        return planes;
    }
};

// leader: the first value of each block, so that the others meet the scale that it makes; 0: none, an input meets its
// neighbours'. Inputs beyond the leader are left out.
struct Sweep { int32_t format; uint32_t block; float leader; };
constexpr Sweep sweeps[] = {
    {QLORA_FORMAT_F16, 0, 0}, {QLORA_FORMAT_BF16, 0, 0},
    {QLORA_FORMAT_FP8_E4M3, 128, 448}, {QLORA_FORMAT_FP8_E5M2, 128, 57344},
    {QLORA_FORMAT_MXFP8_E4M3, 0, 448}, {QLORA_FORMAT_MXFP8_E5M2, 0, 57344}, {QLORA_FORMAT_MXFP6_E2M3, 0, 7.5f}, {QLORA_FORMAT_MXFP6_E3M2, 0, 28}, {QLORA_FORMAT_MXFP4, 0, 6},
    {QLORA_FORMAT_MXFP8_E4M3, 0, 0}, {QLORA_FORMAT_MXFP6_E3M2, 0, 0}, {QLORA_FORMAT_MXFP4, 0, 0}, {QLORA_FORMAT_NVFP4, 0, 6},
    {QLORA_FORMAT_NF4, 64, 1}, {QLORA_FORMAT_FP4, 64, 1}, {QLORA_FORMAT_DYN8, 256, 1}, {QLORA_FORMAT_INT8, 0, 1}, {QLORA_FORMAT_Q8_0, 0, 1}, {QLORA_FORMAT_Q4_0, 0, -1}};

// Fills values with the next inputs; false when none is left.
bool fill(std::vector<float> &values, uint64_t &input, uint64_t step, uint32_t group, float leader) {
    const uint32_t largest = leader != 0 ? bits_of(std::fabs(leader)) : 0x7f7fffffu;
    size_t i = 0;
    for (; i < values.size() && input < uint64_t(1) << 32; input += step) {
        if ((input & 0x7fffffffu) > largest) continue;
        if (leader != 0 && i % group == 0) values[i++] = leader;
        values[i++] = from_bits(uint32_t(input));
    }
    std::fill(values.begin() + long(i), values.end(), 0.0f);
    return i > 0;
}

} // namespace

TEST_SUITE_BEGIN("sweeps");

TEST_CASE("every f32 becomes the same bits on every target") {
    const uint64_t rows = 512, cols = 2048, step = long_run() ? 1 : 4099;
    for (const Sweep &sweep : sweeps) {
        const qlora::FormatRow &row = *qlora::format_row(sweep.format);
        const uint32_t group = sweep.format == QLORA_FORMAT_INT8 ? uint32_t(cols) : sweep.format == QLORA_FORMAT_NVFP4 ? 16 : sweep.block != 0 ? sweep.block : row.block;
        std::vector<std::unique_ptr<Encoder>> encoders;
        for (const Target &target : targets())
            if (qlora_operation_supports(shared_context(target).get(), QLORA_OP_QUANTIZE, sweep.format, QLORA_FORMAT_F32) == QLORA_OK && target.backend != QLORA_BACKEND_REF)
                encoders.push_back(std::make_unique<Encoder>(target, sweep.format, sweep.block, rows, cols));
        if (encoders.empty()) continue;
        Encoder oracle(reference(), sweep.format, sweep.block, rows, cols);
        std::vector<float> values(rows * cols);
        const auto start = std::chrono::steady_clock::now();
        uint64_t inputs = 0;
        for (uint64_t input = 0; fill(values, input, step, group, sweep.leader);) {
            const auto expected = oracle.planes(values);
            inputs += values.size();
            for (const auto &encoder : encoders) {
                const bool same = encoder->planes(values) == expected;
                if (!same) CHECK_MESSAGE(same, text(encoder->target.name, " ", row.name, ": before input ", input));
            }
        }
        CHECK(inputs > 0);
        if (long_run())
            std::printf("%s with leader %g: %llu values on %zu targets in %.0f s\n", row.name, double(sweep.leader), (unsigned long long)inputs, encoders.size(),
                        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count()), std::fflush(stdout);
    }
}

#if defined(__linux__)
namespace {

// Memory of which only what is written exists: pages of zeros.
struct Zeros {
    explicit Zeros(uint64_t bytes) : bytes(bytes) {
        void *mapped = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        place = mapped == MAP_FAILED ? nullptr : static_cast<uint8_t *>(mapped);
    }
    ~Zeros() {
        if (place) munmap(place, bytes);
    }
    Zeros(const Zeros &) = delete;
    qlora_span span() const { return {uint64_t(reinterpret_cast<uintptr_t>(place)), 0, bytes}; }
    uint8_t *place;
    uint64_t bytes;
};

} // namespace

TEST_CASE("more than 2^31 elements: the last rows are found, in quantize, gather, dequantize and products") {
    if (!long_run()) return;
    const uint64_t rows = 33000, cols = 66048; // 2.18e9
    const uint64_t marked[] = {0, 16000, 32513, rows - 1}; // 2^31 / cols = 32513.9
    for (const Target &target : targets()) {
        if (target.backend != QLORA_BACKEND_CPU && target.backend != QLORA_BACKEND_REF) continue;
        const bool slow = target.backend == QLORA_BACKEND_REF || target.isa == QLORA_ISA_SCALAR;
        const qlora::Context &context = shared_context(target);
        for (int32_t format : {QLORA_FORMAT_Q4_0, QLORA_FORMAT_NF4, QLORA_FORMAT_Q6_K, QLORA_FORMAT_BF16}) {
            INFO(target.name, " ", format_name(format));
            auto weight = qlora::make<qlora_weight>();
            auto layout = qlora::make<qlora_weight_layout_info>();
            weight.format = format;
            weight.rows = rows;
            weight.cols = cols;
            REQUIRE(qlora_weight_layout(&weight, &layout) == QLORA_OK);
            const Zeros planes(layout.total_bytes + 256);
            REQUIRE(planes.place != nullptr);
            REQUIRE(qlora_weight_place(&weight, planes.span()) == QLORA_OK);
            // The marked rows, made apart as a matrix of their own.
            const std::vector<float> values = random_values(4 * cols, 51);
            const qlora::Weight few = quantize_with(context, format, 4, cols, values);
            const std::vector<float> expected = values_of(context, few);
            for (int plane = 0; plane < QLORA_PLANE_COUNT; plane++) {
                const std::vector<uint8_t> bytes = few.read_plane(plane);
                const uint64_t each = bytes.size() / 4;
                for (int i = 0; i < 4 && each > 0; i++) std::memcpy(planes.place + layout.plane_offset[plane] + marked[i] * each, bytes.data() + i * each, each);
            }
            const qlora::Buffer ids(context, std::vector<int32_t>(std::begin(marked), std::end(marked))), rows_out(context, 4 * cols * 4);
            auto gather = qlora::make<qlora_embedding_args>();
            gather.weight = &weight;
            gather.ids = ids.span();
            gather.y = qlora::tensor(QLORA_FORMAT_F32, 4, cols, rows_out.span());
            const qlora::Buffer gather_scratch(context, context.operation_scratch(QLORA_OP_EMBEDDING, gather));
            gather.scratch = gather_scratch.span();
            context.check(qlora_embedding_gather(context.get(), &gather));
            CHECK(different_values(rows_out.read<float>(), expected) == 0);
            if (slow || format == QLORA_FORMAT_Q6_K) continue;
            const qlora::Buffer x(context, std::vector<float>(cols, 1.0f)), y(context, rows * 4);
            auto product = qlora::make<qlora_matmul_args>();
            product.weight = &weight;
            product.x = qlora::tensor(QLORA_FORMAT_F32, 1, cols, x.span());
            product.y = qlora::tensor(QLORA_FORMAT_F32, 1, rows, y.span());
            const qlora::Buffer scratch(context, context.operation_scratch(QLORA_OP_MATMUL, product));
            product.scratch = scratch.span();
            context.check(qlora_weight_matmul(context.get(), &product));
            const std::vector<float> sums = y.read<float>();
            uint64_t others = 0;
            for (float sum : sums) others += sum != 0;
            CHECK(others == 4);
            for (int i = 0; i < 4; i++) {
                double sum = 0;
                for (uint64_t c = 0; c < cols; c++) sum += double(expected[uint64_t(i) * cols + c]);
                CHECK(std::fabs(double(sums[marked[i]]) - sum) < 0.1);
            }
        }
        if (slow) continue;
        // Quantizing: zeros but in the last row.
        const Zeros src(rows * cols * 4);
        REQUIRE(src.place != nullptr);
        const std::vector<float> last = random_values(cols, 52);
        std::memcpy(src.place + (rows - 1) * cols * 4, last.data(), cols * 4);
        qlora::Weight weight(context, QLORA_FORMAT_Q4_0, rows, cols);
        auto args = qlora::make<qlora_quantize_args>();
        args.weight = weight.get();
        args.src = qlora::tensor(QLORA_FORMAT_F32, rows, cols, src.span());
        const qlora::Buffer scratch(context, context.operation_scratch(QLORA_OP_QUANTIZE, args));
        args.scratch = scratch.span();
        context.weight_quantize(args);
        const std::vector<uint8_t> bytes = weight.read_plane(QLORA_PLANE_CODE), alone = quantize_with(context, QLORA_FORMAT_Q4_0, 1, cols, last).read_plane(QLORA_PLANE_CODE);
        CHECK(std::vector<uint8_t>(bytes.end() - long(alone.size()), bytes.end()) == alone);
        *reinterpret_cast<float *>(src.place + ((rows - 1) * cols + 5) * 4) = HUGE_VALF;
        CHECK_THROWS_WITH_AS(context.weight_quantize(args), doctest::Contains(std::to_string((rows - 1) * cols + 5).c_str()), qlora::Error);
    }
}
#endif

TEST_SUITE_END();
