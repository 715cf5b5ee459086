// Floats of 4 to 8 bits, E8M0 scales, MX and FP8 formats, stochastic rounding. All codes and all scales are walked; with
// QLORA_TEST_ALL set, all 2^32 inputs of each conversion as well.
#include "backends/formats.h"
#include "tests/support/inputs.h"
#include "tests/support/quantized.h"
#include "tests/support/targets.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>

using namespace test;

namespace {

#define QLORA_FUNCTION inline
#include "backends/narrow.inc"
#undef QLORA_FUNCTION

struct Kind { const char *name; uint32_t bits, mantissa, bias, maximum; double largest; };
constexpr Kind kinds[] = {{"e2m1", 4, 1, 1, 7, 6}, {"e2m3", 6, 3, 1, 0x1f, 7.5}, {"e3m2", 6, 2, 3, 0x1f, 28}, {"e4m3", 8, 3, 7, 0x7e, 448}, {"e5m2", 8, 2, 15, 0x7b, 57344}};

// The magnitude of a finite code.
double magnitude_of(const Kind &kind, uint32_t code) {
    const int exponent = int(code >> kind.mantissa), mantissa = int(code & ((1u << kind.mantissa) - 1));
    return exponent ? std::ldexp((1 << kind.mantissa) + mantissa, exponent - int(kind.bias) - int(kind.mantissa)) : std::ldexp(mantissa, 1 - int(kind.bias) - int(kind.mantissa));
}
uint32_t encode(const Kind &kind, uint32_t bits, int power = 0) { return qlora_narrow_from_f32(bits, power, kind.bits, kind.mantissa, kind.bias, kind.maximum, false, 0); }
uint32_t decode(const Kind &kind, uint32_t code, int power = 0) { return qlora_f32_from_narrow(code, kind.bits, kind.mantissa, kind.bias, power); }

// First f32 magnitude that rounds to code + 1: the middle, if the tie goes up to an even code, else its successor.
std::vector<uint32_t> borders_of(const Kind &kind) {
    std::vector<uint32_t> borders;
    for (uint32_t code = 0; code < kind.maximum; code++)
        borders.push_back(bits_of(float((magnitude_of(kind, code) + magnitude_of(kind, code + 1)) / 2)) + (code % 2 ? 0 : 1));
    return borders;
}

constexpr int32_t narrow_formats[] = {
#define QLORA_FORMAT_ROW(...)
#define QLORA_BLOCK_ROW(...)
#define QLORA_NARROW_ROW(NAME, ...) QLORA_FORMAT_##NAME,
#include "backends/formats.def"
#undef QLORA_FORMAT_ROW
#undef QLORA_BLOCK_ROW
#undef QLORA_NARROW_ROW
};
const Kind &kind_of(int32_t format) {
    if (format == QLORA_FORMAT_MXFP6_E2M3) return kinds[1];
    if (format == QLORA_FORMAT_MXFP6_E3M2) return kinds[2];
    return format == QLORA_FORMAT_FP8_E4M3 || format == QLORA_FORMAT_MXFP8_E4M3 ? kinds[3] : kinds[4];
}
bool microscaled(int32_t format) { return qlora::format_row(format)->scale == qlora::Scale::E8M0; }

template <class Function> void for_targets(int32_t format, Function &&f) {
    for (const Target &target : targets()) {
        const qlora::Context &context = shared_context(target);
        if (qlora_operation_supports(context.get(), QLORA_OP_QUANTIZE, format, QLORA_FORMAT_F32) != QLORA_OK) continue;
        INFO(target.name, " ", qlora::format_row(format)->name);
        f(context);
    }
}

} // namespace

TEST_SUITE_BEGIN("formats");

TEST_CASE("every narrow code times every power of two decodes exactly, and encodes back") {
    for (const Kind &kind : kinds) {
        uint64_t wrong = 0, wrong_back = 0;
        for (uint32_t code = 0; code < 1u << kind.bits; code++)
            for (int power = -127; power <= 127; power++) {
                const uint32_t magnitude = code & ((1u << (kind.bits - 1)) - 1), bits = decode(kind, code, power);
                const float value = from_bits(bits);
                if (magnitude > kind.maximum) {
                    const bool infinite = kind.mantissa == 2 && magnitude == 0x7c;
                    wrong += infinite ? !std::isinf(value) : !std::isnan(value);
                    continue;
                }
                const float expected = float(std::ldexp(magnitude_of(kind, magnitude), power)); // subnormals are exact, the top overflows
                wrong += bits != (bits_of(expected) | (code >> (kind.bits - 1)) << 31);
                if (!std::isinf(expected)) wrong_back += encode(kind, bits, power) != code;
            }
        CHECK_MESSAGE(wrong == 0, kind.name);
        CHECK_MESSAGE(wrong_back == 0, kind.name);
    }
}

TEST_CASE("f32 rounds to the nearest narrow code, ties to even, and saturates") {
    for (const Kind &kind : kinds) {
        const std::vector<uint32_t> borders = borders_of(kind);
        uint64_t wrong = 0;
        for (uint32_t code = 0; code < borders.size(); code++)
            for (uint32_t sign : {0u, 1u}) {
                wrong += encode(kind, borders[code] | sign << 31) != ((code + 1) | sign << (kind.bits - 1));
                wrong += encode(kind, (borders[code] - 1) | sign << 31) != (code | sign << (kind.bits - 1));
            }
        for (uint32_t bits : {bits_of(float(kind.largest)), bits_of(float(kind.largest)) + 1, 0x7f7fffffu, 0x7f800000u}) wrong += encode(kind, bits) != kind.maximum;
        wrong += encode(kind, 0x7fc00000u) != (kind.bits == 8 ? 0x7f : kind.maximum);
        wrong += encode(kind, 0x80000000u) != 1u << (kind.bits - 1);
        CHECK_MESSAGE(wrong == 0, kind.name);
        if (!std::getenv("QLORA_TEST_ALL")) continue;
        for (uint32_t code = 0; code <= kind.maximum; code++) {
            const uint32_t begin = code ? borders[code - 1] : 0, end = code < kind.maximum ? borders[code] : 0x7f800001u;
            for (uint32_t bits = begin; bits < end; bits++) wrong += (encode(kind, bits) != code) + (encode(kind, bits | 0x80000000u) != (code | 1u << (kind.bits - 1)));
        }
        for (uint32_t bits = 0x7f800001u; bits < 0x80000000u; bits++) wrong += encode(kind, bits) != (kind.bits == 8 ? 0x7f : kind.maximum);
        CHECK_MESSAGE(wrong == 0, kind.name);
    }
}

TEST_CASE("powers of MX blocks: FLOOR is the OCP rule and saturates, RCEIL is the least that never does, 255 for what is not finite") {
    for (const Kind &kind : kinds) {
        uint64_t wrong = 0, saturated = 0;
        auto power_of = [&](uint32_t absmax, uint32_t rule) { return qlora_e8m0_from_absmax(absmax, kind.mantissa, kind.bias, kind.maximum, rule); };
        const int largest_exponent = std::ilogb(kind.largest);
        for (uint32_t exponent = 0; exponent < 255; exponent++)
            for (uint32_t i = 0; i < 2048; i++) {
                uint32_t fraction = i << 12;
                if (i % 4 == 1) fraction++;
                if (i % 4 == 3) fraction |= 0xfff;
                const uint32_t absmax = exponent << 23 | fraction;
                if (absmax == 0) continue;
                const double value = double(from_bits(absmax));
                auto clamped = [](int power) { return uint32_t(std::max(0, std::min(254, power + 127))); };
                const int floor = std::ilogb(value) - largest_exponent;
                wrong += power_of(absmax, QLORA_POWER_FLOOR) != clamped(floor);
                wrong += power_of(absmax, QLORA_POWER_CEIL) != clamped(std::ldexp(1, std::ilogb(value)) == value ? floor : floor + 1);
                const double rounded = std::ldexp(std::floor(std::ldexp(value, int(kind.mantissa) - std::ilogb(value)) + 0.5), std::ilogb(value) - int(kind.mantissa));
                wrong += power_of(absmax, QLORA_POWER_EVEN) != clamped(std::ilogb(rounded) - largest_exponent);
                const int least = int(power_of(absmax, QLORA_POWER_RCEIL)) - 127;
                wrong += std::ldexp(kind.largest, least) < value;
                wrong += least > -127 && std::ldexp(kind.largest, least - 1) >= value;
                saturated += std::ldexp(kind.largest, int(power_of(absmax, QLORA_POWER_FLOOR)) - 127) < value;
            }
        for (uint32_t rule = 0; rule < 4; rule++) {
            wrong += power_of(0, rule) != 0;
            for (uint32_t bits : {0x7f800000u, 0xff800000u, 0x7fc00000u, 0xffffffffu}) wrong += power_of(bits, rule) != 255;
        }
        CHECK_MESSAGE(wrong == 0, kind.name);
        CHECK_MESSAGE(saturated > 0, kind.name);
    }
}

TEST_CASE("every code with every scale of a narrow format") {
    for (int32_t format : narrow_formats) {
        const Kind &kind = kind_of(format);
        const uint64_t codes = uint64_t(1) << kind.bits, cols = codes < 256 ? codes : 256;
        const std::vector<float> factors = {1, 0.3f, -2.5f, 1e-30f, 1e30f};
        const uint64_t rows = microscaled(format) ? 256 : factors.size();
        std::vector<float> expected(rows * cols);
        std::vector<uint8_t> bytes(rows * cols * kind.bits / 8);
        for (uint64_t i = 0; i < rows * cols; i++) {
            const uint32_t code = uint32_t(i % cols);
            for (uint32_t bit = 0; bit < kind.bits; bit++)
                if (code >> bit & 1) bytes[(i * kind.bits + bit) / 8] |= uint8_t(1u << (i * kind.bits + bit) % 8);
            if (microscaled(format)) expected[i] = i / cols == 255 ? NAN : from_bits(decode(kind, code, int(i / cols) - 127));
            else expected[i] = from_bits(decode(kind, code)) * factors[i / cols];
        }
        for_targets(format, [&](const qlora::Context &context) {
            qlora::Weight weight(context, format, rows, cols, microscaled(format) ? 32 : 256);
            std::vector<uint8_t> powers(rows * cols / 32);
            for (size_t i = 0; i < powers.size(); i++) powers[i] = uint8_t(i * 32 / cols);
            weight.write_plane(QLORA_PLANE_CODE, bytes.data());
            if (microscaled(format)) weight.write_plane(QLORA_PLANE_SCALE, powers.data());
            else weight.write_plane(QLORA_PLANE_SCALE, factors.data());
            CHECK(different_values(values_of(context, weight), expected) == 0);
        });
    }
}

TEST_CASE("narrow formats: quality, scales, ragged blocks, one scale for the whole tensor") {
    const std::vector<float> values = random_values(1 << 16, 21);
    for (int32_t format : narrow_formats)
        for_targets(format, [&](const qlora::Context &context) {
            const double gate = format == QLORA_FORMAT_MXFP6_E3M2 || format == QLORA_FORMAT_MXFP6_E2M3 ? 25 : format == QLORA_FORMAT_FP8_E4M3 || format == QLORA_FORMAT_MXFP8_E4M3 ? 29 : 23;
            for (int32_t power : {QLORA_POWER_FLOOR, QLORA_POWER_CEIL, QLORA_POWER_EVEN, QLORA_POWER_RCEIL}) {
                QuantizeOptions options;
                options.power = power;
                const double decibel = signal_to_noise(values, values_of(context, quantize_with(context, format, 64, 1024, values, options)));
                CHECK_MESSAGE(decibel > gate, power, ": ", decibel);
            }
            auto shape = qlora::make<qlora_weight>();
            auto layout = qlora::make<qlora_weight_layout_info>();
            shape.format = format, shape.rows = 3, shape.cols = 65;
            CHECK(qlora_weight_layout(&shape, &layout) == (microscaled(format) ? QLORA_ERROR_SHAPE : QLORA_OK));
            if (microscaled(format)) return;
            QuantizeOptions whole;
            whole.block = 1u << 30;
            const qlora::Weight weight = quantize_with(context, format, 3, 65, random_values(195, 22), whole);
            CHECK(weight.layout().plane_bytes[QLORA_PLANE_SCALE] == 4);
            for (float value : values_of(context, quantize_with(context, format, 1, 65, std::vector<float>(65, -1e-39f)))) CHECK(value == 0);
        });
}

TEST_CASE("the counter generator gives the known words of Threefry-2x32") {
    CHECK(qlora_random(0, 0, 0, 0) == 0x6b200159u);
    CHECK(qlora_random(0xffffffffu, 0xffffffffu, 0xffffffffu, 0xffffffffu) == 0x1cb996fcu);
    CHECK(qlora_random(0x13198a2eu, 0x03707344u, 0x243f6a88u, 0x85a308d3u) == 0xc4923a9cu);
}

TEST_CASE("stochastic rounding: neighbours only, right on average, the seed decides, exact values stay") {
    for (const qlora::FormatRow &row : qlora::format_rows) {
        QuantizeOptions options;
        options.flags = QLORA_FLAG_STOCHASTIC;
        if (!row.stochastic) {
            CHECK_THROWS_AS(quantize_with(shared_context(reference()), row.format, 1, 256, std::vector<float>(256, 1.0f), options), qlora::Error);
            continue;
        }
        for_targets(row.format, [&](const qlora::Context &context) {
            // Blocks of 4.1 led by a 6: 4.1 lies between codes in every format, at a place that differs from half.
            std::vector<float> values(256 * 256, 4.1f);
            for (size_t i = 0; i < values.size(); i += 16) values[i] = 6;
            auto run = [&](uint64_t seed) {
                options.seed = seed;
                return quantize_with(context, row.format, 256, 256, values, options);
            };
            const qlora::Weight one = run(1);
            CHECK(one.read_plane(QLORA_PLANE_CODE) == run(1).read_plane(QLORA_PLANE_CODE));
            CHECK(one.read_plane(QLORA_PLANE_CODE) != run(uint64_t(1) << 40).read_plane(QLORA_PLANE_CODE));
            CHECK(one.read_plane(QLORA_PLANE_CODE) == quantize_with(shared_context(reference()), row.format, 256, 256, values, (options.seed = 1, options)).read_plane(QLORA_PLANE_CODE));
            const std::vector<float> stored = values_of(context, one);
            double sum = 0, low = 1e9, high = 0;
            uint64_t count = 0;
            for (size_t i = 0; i < stored.size(); i++) {
                if (i % 16 == 0) { CHECK(stored[i] == doctest::Approx(6).epsilon(1e-6)); continue; }
                sum += stored[i], count++;
                low = std::min(low, double(stored[i])), high = std::max(high, double(stored[i]));
            }
            CHECK(low <= 4.1f);
            CHECK(high >= 4.1f);
            CHECK(high - low <= 2.01); // one step of the coarsest
            CHECK(std::fabs(sum / count - 4.1) < 5 * (high - low) / 2 / std::sqrt(double(count)));
        });
    }
}

TEST_SUITE_END();
