// Codes of 8-bit state are those of the search through the table, whatever way a backend finds them: over all magnitudes up to 1 on
// a stride, at every midpoint and its neighbours, and for quotients of any absmax. MOMENTUM's first step as bitsandbytes takes it
// keeps the gradient as its state, so that values reach the codes as they are; the unsigned table is reached by quantizing.
#include "tests/support/inputs.h"
#include "tests/support/numbers.h"
#include "tests/support/targets.h"

#include <doctest/doctest.h>

#include <algorithm>

using namespace test;

namespace {

const uint32_t signed_bits[256] = {
#include "backends/codebooks/dyn8.inc"
};
const uint32_t unsigned_bits[256] = {
#include "backends/codebooks/udyn8.inc"
};

constexpr uint64_t block = 256;

std::vector<float> table_of(const uint32_t (&bits)[256]) {
    std::vector<float> table;
    for (uint32_t word : bits) table.push_back(from_bits(word));
    return table;
}

// Nearest entry by the midpoint in f32; on it, the even index.
uint8_t searched(const std::vector<float> &table, float y) {
    const size_t above = size_t(std::lower_bound(table.begin(), table.end(), y) - table.begin());
    if (above == 0) return 0;
    if (above == table.size()) return 255;
    const float middle = (table[above - 1] + table[above]) * 0.5f;
    return uint8_t(y > middle || (y == middle && above % 2 == 0) ? above : above - 1);
}
// The code of a state: that of its sign.
uint8_t state_code(const std::vector<float> &table, float value, float absmax) {
    const uint8_t code = searched(table, value / absmax);
    if (std::signbit(table[code]) == std::signbit(value)) return code;
    return uint8_t(value > 0 ? code + 1 : code - 1);
}

// Magnitudes up to 1: on a stride of their bits, and each midpoint of the table with its neighbours.
std::vector<float> magnitudes(const std::vector<float> &table) {
    std::vector<float> all = {0.0f};
    for (uint32_t bits = 0x00800000; bits < 0x3f800000; bits += 4001) all.push_back(from_bits(bits));
    for (size_t i = 0; i + 1 < table.size(); i++) {
        const float middle = std::fabs((table[i] + table[i + 1]) * 0.5f);
        for (float near : {std::nextafterf(middle, 0.0f), middle, std::nextafterf(middle, 1.0f)}) all.push_back(near);
    }
    return all;
}

} // namespace

TEST_SUITE_BEGIN("optim");

TEST_CASE("8-bit state has the codes that the search finds") {
    const std::vector<float> table = table_of(signed_bits);
    std::vector<float> values;
    for (float magnitude : magnitudes(table))
        for (float value : {magnitude, -magnitude}) {
            if (values.size() % block == 0) values.push_back(1.0f);
            values.push_back(magnitude == 0 ? 0.0f : value);
        }
    // Powers of two beyond those whose reciprocal is fine, then blocks of any absmax.
    for (float scale : {0x1p-80f, 0x1p-60f, 0x1p90f, 0x1p110f}) {
        values.resize((values.size() + block - 1) / block * block, 0.25f);
        for (uint64_t i = 0; i < 8 * block; i++) values.push_back(scale * (i % block == 7 ? -1.0f : from_bits(uint32_t(0x32000000 + mix(9, i) % 0x0d000000)) * (i % 2 ? 1.0f : -1.0f)));
    }
    values.resize((values.size() + block - 1) / block * block, 0.25f);
    const std::vector<float> normal = random_values(2048 * block + 77, 4);
    for (size_t i = 0; i < normal.size(); i++) values.push_back(normal[i] * from_bits(uint32_t(0x38000000 + mix(5, i / block) % 0x08000000)));

    std::vector<uint8_t> expected(values.size());
    std::vector<float> absmax((values.size() + block - 1) / block);
    for (size_t i = 0; i < values.size(); i++) absmax[i / block] = std::max(absmax[i / block], std::fabs(values[i]));
    for (size_t i = 0; i < values.size(); i++) expected[i] = state_code(table, values[i], absmax[i / block]);

    for (const Target &target : targets()) {
        const qlora::Context &context = shared_context(target);
        const qlora::Buffer gradient(context, values), value(context, std::vector<float>(values.size(), 0.0f)), codes(context, std::vector<uint8_t>((values.size() + 3) / 4 * 4, 0)),
            scales(context, std::vector<float>(absmax.size(), 0.0f));
        auto parameter = qlora::make<qlora_parameter>();
        parameter.count = values.size();
        parameter.value = value.span();
        parameter.gradient = gradient.span();
        parameter.state_type = QLORA_FORMAT_DYN8;
        parameter.state1 = codes.span();
        parameter.absmax1 = scales.span();
        auto args = qlora::make<qlora_optimizer_args>();
        args.flags = QLORA_FLAG_BITSANDBYTES;
        args.parameters = &parameter;
        args.parameter_count = 1;
        args.algorithm = QLORA_OPTIMIZER_MOMENTUM;
        args.step = 1;
        uint64_t scratch_bytes = 0;
        int32_t status = qlora_operation_scratch(context.get(), QLORA_OP_OPTIMIZER_STEP, &args, &scratch_bytes);
        const qlora::Buffer scratch(context, scratch_bytes);
        args.scratch = scratch.span();
        if (status == QLORA_OK) status = qlora_optimizer_step(context.get(), &args);
        if (status == QLORA_ERROR_UNSUPPORTED) {
            std::printf("%s: SKIPPED: no 8-bit state\n", target.name.c_str());
            continue;
        }
        REQUIRE_MESSAGE(status == QLORA_OK, text(target.name, ": ", qlora_context_message(context.get())));
        CHECK_MESSAGE(scales.read<float>() == absmax, target.name);
        const std::vector<uint8_t> found = codes.read<uint8_t>();
        uint64_t different = 0;
        for (size_t i = 0; i < values.size(); i++)
            if (found[i] != expected[i] && different++ < 5) MESSAGE(text(target.name, " ", i, ": ", values[i], " / ", absmax[i / block], " has code ", int(found[i]), ", not ", int(expected[i])));
        CHECK_MESSAGE(different == 0, text(target.name, ": ", different, " of ", values.size(), " codes"));
    }
}

TEST_CASE("The unsigned table is searched as well") {
    const std::vector<float> table = table_of(unsigned_bits);
    std::vector<float> values;
    for (float magnitude : magnitudes(table)) {
        if (values.size() % block == 0) values.push_back(1.0f);
        values.push_back(magnitude);
    }
    values.resize((values.size() + block - 1) / block * block, 1.0f);
    for (const Target &target : targets()) {
        const qlora::Context &context = shared_context(target);
        const qlora::Weight weight(context, QLORA_FORMAT_UDYN8, 1, values.size(), uint32_t(block));
        const qlora::Buffer src(context, values);
        auto args = qlora::make<qlora_quantize_args>();
        args.weight = weight.get();
        args.src = qlora::tensor(QLORA_FORMAT_F32, 1, values.size(), src.span());
        if (!context.operation_supports(QLORA_OP_QUANTIZE, QLORA_FORMAT_UDYN8, QLORA_FORMAT_F32)) continue;
        const qlora::Buffer scratch(context, context.operation_scratch(QLORA_OP_QUANTIZE, args));
        args.scratch = scratch.span();
        context.weight_quantize(args);
        const std::vector<uint8_t> found = weight.read_plane(QLORA_PLANE_CODE);
        uint64_t different = 0;
        for (size_t i = 0; i < values.size(); i++) different += found[i] != searched(table, values[i]);
        CHECK_MESSAGE(different == 0, text(target.name, ": ", different, " of ", values.size(), " codes"));
    }
}

TEST_SUITE_END();
