// Interleaved blocks: golden bytes, decoders against a second reading of the layouts, quality, importance, odd inputs.
// Golden bytes come from ggml's reference quantizer, as golden_check also has them.
#include "backends/blocks.h"
#include "backends/formats.h"
#include "tests/support/inputs.h"
#include "tests/support/quantized.h"
#include "tests/support/safetensors.h"
#include "tests/support/targets.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cctype>
#include <functional>

using namespace test;

namespace {

using namespace qlora; // the Block structs

constexpr int32_t block_formats[] = {
#define QLORA_FORMAT_ROW(...)
#define QLORA_NARROW_ROW(...)
#define QLORA_BLOCK_ROW(NAME, ...) QLORA_FORMAT_##NAME,
#include "backends/formats.def"
#undef QLORA_FORMAT_ROW
#undef QLORA_NARROW_ROW
#undef QLORA_BLOCK_ROW
    QLORA_FORMAT_Q4_0, QLORA_FORMAT_Q8_0};

// A backend may decode what it does not encode.
bool encodes(const qlora::Context &context, int32_t format) { return context.operation_supports(QLORA_OP_QUANTIZE, format, QLORA_FORMAT_F32); }
template <class Function> void for_targets(int32_t format, Function &&f, uint32_t operation = QLORA_OP_QUANTIZE) {
    for (const Target &target : targets()) {
        const qlora::Context &context = shared_context(target);
        if (!context.operation_supports(operation, format, QLORA_FORMAT_F32)) continue;
        INFO(target.name, " ", qlora::format_row(format)->name);
        f(context);
    }
}

// ---- the layouts once more, over whole blocks and in double ----------------------------------------------------------

double half(uint16_t bits) { return double(from_bits(qlora_f32_from_f16(bits))); }
double low_or_high(const uint8_t *codes, int i) { return i < 16 ? codes[i] % 16 : codes[i - 16] / 16; }
double with_fifth(const uint8_t *codes, const uint8_t *high, int i) { return low_or_high(codes, i) + 16 * (high[i / 8] >> i % 8 & 1); }
constexpr double iq4[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
constexpr double twice_e2m1[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

// The last operation is the only one that rounds.
float rounded(double product) { return float(product); }
float rounded(double product, double plus) { return float(product) + float(plus); } // both exact in f32, their sum is not

void second(const BlockQ4_0 &b, float *x) { for (int i = 0; i < 32; i++) x[i] = rounded((low_or_high(b.codes, i) - 8) * half(b.scale)); }
void second(const BlockQ4_1 &b, float *x) { for (int i = 0; i < 32; i++) x[i] = rounded(low_or_high(b.codes, i) * half(b.scale), half(b.minimum)); }
void second(const BlockQ5_0 &b, float *x) { for (int i = 0; i < 32; i++) x[i] = rounded((with_fifth(b.codes, b.high, i) - 16) * half(b.scale)); }
void second(const BlockQ5_1 &b, float *x) { for (int i = 0; i < 32; i++) x[i] = rounded(with_fifth(b.codes, b.high, i) * half(b.scale), half(b.minimum)); }
void second(const BlockQ8_0 &b, float *x) { for (int i = 0; i < 32; i++) x[i] = rounded(b.codes[i] * half(b.scale)); }
void second(const BlockIQ4_NL &b, float *x) { for (int i = 0; i < 32; i++) x[i] = rounded(iq4[int(low_or_high(b.codes, i))] * half(b.scale)); }
void second(const BlockMXFP4 &b, float *x) {
    for (int i = 0; i < 32; i++) x[i] = rounded(std::ldexp(twice_e2m1[int(low_or_high(b.codes, i))], b.power - 128));
}
void second(const BlockNVFP4 &b, float *x) {
    for (int i = 0; i < 64; i++) {
        const int code = b.scales[i / 16] % 128, byte = b.codes[i / 16 * 8 + i % 8];
        double scale = code < 8 ? std::ldexp(code, -9) : std::ldexp(8 + code % 8, code / 8 - 10);
        if (b.scales[i / 16] == 0x7f) scale = 0;
        x[i] = rounded(scale / 2 * twice_e2m1[i % 16 < 8 ? byte % 16 : byte / 16]);
    }
}
void second(const BlockQ2_K &b, float *x) {
    int group = 0;
    for (int side = 0; side < 256; side += 128)
        for (int shift = 0; shift < 8; shift += 2)
            for (int part = 0; part < 32; part += 16, group++)
                for (int l = 0; l < 16; l++, x++)
                    *x = rounded(half(b.scale) * (b.scales[group] % 16) * (b.codes[side / 4 + part + l] >> shift & 3), -(half(b.minimum) * (b.scales[group] / 16)));
}
void second(const BlockQ3_K &b, float *x) {
    int group = 0;
    for (int side = 0; side < 256; side += 128)
        for (int shift = 0; shift < 8; shift += 2)
            for (int part = 0; part < 32; part += 16, group++) {
                const int low = group < 8 ? b.scales[group] % 16 : b.scales[group - 8] / 16, high = b.scales[8 + group % 4] >> group / 4 * 2 & 3;
                for (int l = 0; l < 16; l++, x++) {
                    const int bit = b.high[part + l] >> (side / 32 + shift / 2) & 1;
                    *x = rounded(half(b.scale) * (low + 16 * high - 32) * ((b.codes[side / 4 + part + l] >> shift & 3) - (bit ? 0 : 4)));
                }
            }
}
void pair_of(const uint8_t *s, int group, int *scale, int *minimum) {
    *scale = group < 4 ? s[group] % 64 : s[group + 4] % 16 + s[group - 4] / 64 * 16;
    *minimum = group < 4 ? s[group + 4] % 64 : s[group + 4] / 16 + s[group] / 64 * 16;
}
template <class Block, class Code> void second_pairs(const Block &b, float *x, Code code) {
    for (int group = 0; group < 8; group++) {
        int scale, minimum;
        pair_of(b.scales, group, &scale, &minimum);
        for (int l = 0; l < 32; l++) {
            const int byte = b.codes[group / 2 * 32 + l];
            *x++ = rounded(half(b.scale) * scale * code(group % 2 ? byte / 16 : byte % 16, group, l), -(half(b.minimum) * minimum));
        }
    }
}
void second(const BlockQ4_K &b, float *x) { second_pairs(b, x, [](int low, int, int) { return low; }); }
void second(const BlockQ5_K &b, float *x) { second_pairs(b, x, [&](int low, int group, int l) { return low + 16 * (b.high[l] >> group & 1); }); }
void second(const BlockQ6_K &b, float *x) {
    for (int side = 0; side < 2; side++)
        for (int quarter = 0; quarter < 4; quarter++)
            for (int l = 0; l < 32; l++) {
                const int byte = b.codes[side * 64 + quarter % 2 * 32 + l], low = quarter < 2 ? byte % 16 : byte / 16;
                const int high = b.high[side * 32 + l] >> 2 * quarter & 3;
                *x++ = rounded(half(b.scale) * b.scales[side * 8 + quarter * 2 + l / 16] * (low + 16 * high - 32));
            }
}
void second(const BlockIQ4_XS &b, float *x) {
    for (int group = 0; group < 8; group++) {
        const int low = group % 2 ? b.scales_low[group / 2] / 16 : b.scales_low[group / 2] % 16, high = b.scales_high >> 2 * group & 3;
        for (int i = 0; i < 32; i++) *x++ = rounded(half(b.scale) * (low + 16 * high - 32) * iq4[int(low_or_high(b.codes + group * 16, i))]);
    }
}

template <class Block> std::vector<float> read_blocks(const std::vector<uint8_t> &bytes, uint32_t size) {
    std::vector<float> values(bytes.size() / sizeof(Block) * size);
    for (size_t i = 0; i < bytes.size() / sizeof(Block); i++) {
        Block block;
        std::memcpy(&block, bytes.data() + i * sizeof block, sizeof block);
        second(block, values.data() + i * size);
    }
    return values;
}
std::vector<float> second_values(int32_t format, const std::vector<uint8_t> &bytes) {
    if (format == QLORA_FORMAT_Q4_0) return read_blocks<BlockQ4_0>(bytes, 32);
    if (format == QLORA_FORMAT_Q8_0) return read_blocks<BlockQ8_0>(bytes, 32);
#define QLORA_FORMAT_ROW(...)
#define QLORA_NARROW_ROW(...)
#define QLORA_BLOCK_ROW(NAME, name, bits, size, ...) if (format == QLORA_FORMAT_##NAME) return read_blocks<Block##NAME>(bytes, size);
#include "backends/formats.def"
#undef QLORA_FORMAT_ROW
#undef QLORA_NARROW_ROW
#undef QLORA_BLOCK_ROW
    return {};
}

// Bytes that a generator of fixed seed gives.
std::vector<uint8_t> random_bytes(uint64_t count, uint64_t seed) {
    std::vector<uint8_t> bytes(count);
    for (uint64_t i = 0; i < count; i++) bytes[i] = uint8_t(mix(seed, i) >> 40);
    return bytes;
}
uint64_t fingerprint(const std::vector<uint8_t> &bytes) { // FNV-1a
    uint64_t hash = 0xcbf29ce484222325u;
    for (uint8_t byte : bytes) hash = (hash ^ byte) * 0x100000001b3u;
    return hash;
}
// Values without a mathematics library: sums of four uniform integers, 4 rows of 1024.
std::vector<float> plain_values() {
    std::vector<float> values(4096);
    for (uint64_t i = 0; i < values.size(); i++) {
        const uint64_t word = mix(77, i);
        const int64_t sum = int64_t(word & 0xffff) + int64_t(word >> 16 & 0xffff) - int64_t(word >> 32 & 0xffff) - int64_t(word >> 48);
        values[i] = float(sum) / 32768;
    }
    return values;
}
std::vector<float> plain_importance() {
    std::vector<float> importance(1024);
    for (uint64_t c = 0; c < importance.size(); c++) importance[c] = float(mix(78, c) & 0xfff) / 1024 + 0.0625f;
    return importance;
}

} // namespace

TEST_SUITE_BEGIN("formats");

TEST_CASE("golden blocks: encoded to the byte, decoded to the bit") {
    if (golden_folder().empty()) { MESSAGE("SKIPPED: no golden files here"); return; }
    const auto tensors = read_safetensors(golden_folder() + "/ggml_blocks_shared.safetensors");
    const SafeTensor &x = tensors.at("x");
    for (int32_t format : block_formats) {
        std::string name = qlora::format_row(format)->name;
        for (char &c : name) c = char(std::toupper(c));
        for_targets(format, [&](const qlora::Context &context) {
            if (encodes(context, format))
                CHECK(quantize_with(context, format, x.shape[0], x.shape[1], x.floats()).read_plane(QLORA_PLANE_CODE) == tensors.at(name + ".bytes").bytes);
            CHECK(different_values(values_of_bytes(context, format, x.shape[0], x.shape[1], tensors.at(name + ".bytes").bytes), tensors.at(name + ".deq").floats()) == 0);
        }, QLORA_OP_DEQUANTIZE);
    }
}

TEST_CASE("random bytes decode to the same bits as a second reading of the layouts, infinite and NaN scales among them") {
    for (int32_t format : block_formats) {
        const qlora::FormatRow &row = *qlora::format_row(format);
        const uint64_t blocks = 65536 / row.block * 4;
        const std::vector<uint8_t> bytes = random_bytes(blocks * row.block_bytes, uint64_t(format));
        const std::vector<float> expected = second_values(format, bytes);
        for_targets(format, [&](const qlora::Context &context) { CHECK(different_values(values_of_bytes(context, format, blocks, row.block, bytes), expected) == 0); },
                    QLORA_OP_DEQUANTIZE);
    }
}

TEST_CASE("every code with every scale") {
    struct Simple { int32_t format; uint32_t scale_bytes, code_begin; bool minimum; };
    for (const Simple &simple : {Simple{QLORA_FORMAT_Q4_0, 2, 2, false}, Simple{QLORA_FORMAT_Q4_1, 2, 4, true}, Simple{QLORA_FORMAT_Q5_0, 2, 2, false},
                                 Simple{QLORA_FORMAT_Q5_1, 2, 4, true}, Simple{QLORA_FORMAT_IQ4_NL, 2, 2, false}, Simple{QLORA_FORMAT_MXFP4, 1, 1, false},
                                 Simple{QLORA_FORMAT_Q8_0, 2, 2, false}, Simple{QLORA_FORMAT_NVFP4, 1, 4, false}}) {
        const qlora::FormatRow &row = *qlora::format_row(simple.format);
        const uint64_t scales = simple.scale_bytes == 2 ? 65536 : 256, variants = simple.format == QLORA_FORMAT_Q8_0 ? 8 : 1;
        std::vector<uint8_t> bytes(scales * variants * row.block_bytes);
        for (uint64_t s = 0; s < scales * variants; s++) {
            uint8_t *block = bytes.data() + s * row.block_bytes;
            const uint64_t scale = s / variants;
            block[0] = uint8_t(scale);
            if (simple.scale_bytes == 2) block[1] = uint8_t(scale >> 8);
            if (simple.format == QLORA_FORMAT_NVFP4) std::memset(block, int(scale), 4);
            if (simple.minimum) { block[2] = uint8_t(scale * 31); block[3] = uint8_t(scale >> 5); }
            for (uint32_t i = simple.code_begin; i < row.block_bytes; i++) {
                const uint32_t j = i - simple.code_begin;
                block[i] = uint8_t(simple.format == QLORA_FORMAT_Q8_0 ? j + 32 * (s % 8) : (j % 16) * 17); // nibbles of every value, low and high
                if (row.bits == 5 && j < 4) block[i] = j % 2 ? 0xaa : 0x55;
            }
        }
        const std::vector<float> expected = second_values(simple.format, bytes);
        for_targets(simple.format, [&](const qlora::Context &context) {
            CHECK(different_values(values_of_bytes(context, simple.format, scales * variants, row.block, bytes), expected) == 0);
        }, QLORA_OP_DEQUANTIZE);
    }
}

TEST_CASE("signal to noise of normal values, in dB") {
    struct Quality { int32_t format; double decibel; };
    const std::vector<float> values = random_values(1 << 18, 11);
    for (const Quality &quality : {Quality{QLORA_FORMAT_Q2_K, 10.56}, Quality{QLORA_FORMAT_Q3_K, 16.43}, Quality{QLORA_FORMAT_IQ4_XS, 22.30}, Quality{QLORA_FORMAT_MXFP4, 18.78},
                                   Quality{QLORA_FORMAT_NVFP4, 20.44}, Quality{QLORA_FORMAT_Q4_0, 21.32}, Quality{QLORA_FORMAT_IQ4_NL, 22.37}, Quality{QLORA_FORMAT_Q4_K, 22.93},
                                   Quality{QLORA_FORMAT_Q4_1, 22.13}, Quality{QLORA_FORMAT_Q5_0, 27.39}, Quality{QLORA_FORMAT_Q5_K, 28.85}, Quality{QLORA_FORMAT_Q5_1, 28.44},
                                   Quality{QLORA_FORMAT_Q6_K, 35.02}, Quality{QLORA_FORMAT_Q8_0, 45.43}, Quality{QLORA_FORMAT_BF16, 55.59}, Quality{QLORA_FORMAT_F16, 73.65}})
        for_targets(quality.format, [&](const qlora::Context &context) {
            const double decibel = signal_to_noise(values, values_of(context, quantize_with(context, quality.format, 256, 1024, values)));
            CHECK(std::fabs(decibel - quality.decibel) < 0.05);
        });
}

// The fingerprints are those of ggml's own quantizer with the same importance matrix.
TEST_CASE("importance: encoded to the byte, and the columns that matter gain") {
    struct Known { int32_t format; uint64_t hash; };
    const std::vector<float> values = plain_values(), importance = plain_importance();
    QuantizeOptions options;
    options.importance = importance;
    for (const Known &known : {Known{QLORA_FORMAT_Q4_0, 0x10b13f747cc8d947u}, Known{QLORA_FORMAT_Q4_1, 0x869906111b06c79cu}, Known{QLORA_FORMAT_Q5_0, 0x7f14b61b01732dc8u},
                               Known{QLORA_FORMAT_Q5_1, 0x19835503cade25b4u}, Known{QLORA_FORMAT_Q2_K, 0xdabe4a6789396286u}, Known{QLORA_FORMAT_Q3_K, 0x961da0ae60e89a37u},
                               Known{QLORA_FORMAT_Q4_K, 0x63023a2b40abaf94u}, Known{QLORA_FORMAT_Q5_K, 0x6a921afeb2a2e32cu}, Known{QLORA_FORMAT_Q6_K, 0x54e2a8280e50bf04u},
                               Known{QLORA_FORMAT_IQ4_NL, 0x2c7512311c7e8317u}, Known{QLORA_FORMAT_IQ4_XS, 0x0a1788041a453d29u}})
        for_targets(known.format, [&](const qlora::Context &context) {
            if (context.query().backend == QLORA_BACKEND_VULKAN) { // it has no searches, and says so
                CHECK_THROWS_WITH_AS(quantize_with(context, known.format, 4, 1024, values, options), doctest::Contains("quantize on cpu"), qlora::Error);
                return;
            }
            const qlora::Weight with = quantize_with(context, known.format, 4, 1024, values, options), without = quantize_with(context, known.format, 4, 1024, values);
            CHECK(fingerprint(with.read_plane(QLORA_PLANE_CODE)) == known.hash);
            const std::vector<float> a = values_of(context, with), b = values_of(context, without);
            double error_with = 0, error_without = 0;
            for (size_t i = 0; i < values.size(); i++) {
                error_with += importance[i % 1024] * (a[i] - values[i]) * (a[i] - values[i]);
                error_without += importance[i % 1024] * (b[i] - values[i]) * (b[i] - values[i]);
            }
            CHECK(error_with < error_without);
        });
}

TEST_CASE("an importance that is negative, infinite or NaN is named") {
    for (float bad : {-1.0f, from_bits(0x7f800000u), from_bits(0x7fc00000u)}) {
        QuantizeOptions options;
        options.importance = std::vector<float>(256, 1.0f);
        options.importance[200] = bad;
        for_targets(QLORA_FORMAT_Q4_K, [&](const qlora::Context &context) {
            if (context.query().backend > QLORA_BACKEND_CPU) return; // devices do not look
            try {
                quantize_with(context, QLORA_FORMAT_Q4_K, 1, 256, std::vector<float>(256, 1.0f), options);
                FAIL("accepted");
            } catch (const qlora::Error &error) {
                CHECK(error.status() == QLORA_ERROR_VALUE);
                CHECK(std::string(error.what()).find("200") != std::string::npos);
            }
        });
    }
}

TEST_CASE("blocks of zeros have the known bytes, in every format the same ones each time") {
    const std::vector<float> zeros(256, 0.0f);
    for (int32_t format : block_formats)
        for_targets(format, [&](const qlora::Context &context) {
            const qlora::Weight weight = quantize_with(context, format, 1, 256, zeros);
            for (float value : values_of(context, weight)) CHECK(value == 0);
            std::vector<uint8_t> bytes = weight.read_plane(QLORA_PLANE_CODE);
            bytes.resize(qlora::format_row(format)->block_bytes);
            std::vector<uint8_t> expected;
            if (format == QLORA_FORMAT_Q4_0) { expected.assign(18, 0x88); expected[0] = 0, expected[1] = 0x80; }
            if (format == QLORA_FORMAT_Q5_0) { expected.assign(22, 0); expected[1] = 0x80; std::fill_n(expected.begin() + 2, 4, uint8_t(0xff)); }
            if (format == QLORA_FORMAT_IQ4_NL) { expected.assign(18, 0x88); expected[0] = expected[1] = 0; }
            if (!expected.empty()) CHECK(bytes == expected);
        });
}

TEST_CASE("what other encoders get wrong: tiny blocks of MXFP4, the last binade of NVFP4") {
    for_targets(QLORA_FORMAT_MXFP4, [&](const qlora::Context &context) {
        const std::vector<float> tiny = {from_bits(1), -1e-40f, 1e-39f, from_bits(0x00400000u)}; // 2^-127 is the largest
        std::vector<float> values(32, 0.0f);
        std::copy(tiny.begin(), tiny.end(), values.begin());
        const qlora::Weight weight = quantize_with(context, QLORA_FORMAT_MXFP4, 1, 32, values);
        CHECK(weight.read_plane(QLORA_PLANE_CODE)[0] == 0);
        CHECK(values_of(context, weight)[3] == tiny[3]);
    });
    for_targets(QLORA_FORMAT_NVFP4, [&](const qlora::Context &context) {
        for (float scale : {256.0f, 288.0f, 416.0f, 448.0f}) {
            std::vector<float> values(64, scale);
            values[0] = values[16] = values[32] = values[48] = -6 * scale;
            CHECK(values_of(context, quantize_with(context, QLORA_FORMAT_NVFP4, 1, 64, values)) == values);
        }
        const std::vector<float> beyond(64, 1e6f);
        CHECK(values_of(context, quantize_with(context, QLORA_FORMAT_NVFP4, 1, 64, beyond))[0] == 2688); // 6 * 448, saturated
    });
}

TEST_CASE("subnormal and over-range blocks give defined bytes everywhere") {
    for (int32_t format : block_formats)
        for (double size : {1e-39, 1e-44, 1e-30, 1e7, 1e30, 3e37}) {
            const std::vector<float> values = random_values(512, 12, size);
            const std::vector<uint8_t> expected = quantize_with(shared_context(reference()), format, 2, 256, values).read_plane(QLORA_PLANE_CODE);
            if (size < 1e-20) for (float value : values_of_bytes(shared_context(reference()), format, 2, 256, expected)) CHECK(std::fabs(value) <= 6 * size);
            for_targets(format, [&](const qlora::Context &context) {
                CHECK_MESSAGE(quantize_with(context, format, 2, 256, values).read_plane(QLORA_PLANE_CODE) == expected, format_name(format), " of size ", size);
            });
        }
}

TEST_CASE("the dynamic table: 256 distinct values from -0.99296875, with 0 and 1") {
    std::vector<float> table;
    for (uint32_t bits : {
#include "backends/codebooks/dyn8.inc"
         })
        table.push_back(from_bits(bits));
    CHECK(table.size() == 256);
    CHECK(std::adjacent_find(table.begin(), table.end(), std::greater_equal<float>()) == table.end());
    CHECK(table.front() == -0.99296875f);
    CHECK(table.back() == 1);
    CHECK(std::count(table.begin(), table.end(), 0.0f) == 1);
}

TEST_SUITE_END();
