// Storage formats: the table, the layout, every code's value, the borders between codes, rounding of plain floats. What
// other libraries write is the business of golden_check.
#include "backends/formats.h"
#include "tests/support/codes.h"
#include "tests/support/inputs.h"
#include "tests/support/targets.h"

#include <doctest/doctest.h>

using namespace test;

namespace {

// Quantizes f32 values on a context and gives the weight.
qlora::Weight quantized(const qlora::Context &context, int32_t format, uint32_t block, uint64_t rows, uint64_t cols, const std::vector<float> &values) {
    qlora::Weight weight(context, format, rows, cols, block);
    const qlora::Buffer src(context, values);
    auto args = qlora::make<qlora_quantize_args>();
    args.weight = weight.get();
    args.src = qlora::tensor(QLORA_FORMAT_F32, rows, cols, src.span());
    const qlora::Buffer scratch(context, context.operation_scratch(QLORA_OP_QUANTIZE, args));
    args.scratch = scratch.span();
    context.weight_quantize(args);
    context.synchronize();
    return weight;
}

std::vector<uint8_t> dequantized(const qlora::Context &context, const qlora::Weight &weight, int32_t type) {
    const uint64_t rows = weight.get()->rows, cols = weight.get()->cols;
    const qlora::Buffer dst(context, rows * cols * element_bytes(type));
    auto args = qlora::make<qlora_dequantize_args>();
    args.weight = weight.get();
    args.dst = qlora::tensor(type, rows, cols, dst.span());
    const qlora::Buffer scratch(context, context.operation_scratch(QLORA_OP_DEQUANTIZE, args));
    args.scratch = scratch.span();
    context.weight_dequantize(args);
    return dst.read<uint8_t>();
}

std::vector<uint8_t> packed_codes(const CodeBook &book, const std::vector<uint32_t> &codes) {
    std::vector<uint8_t> bytes;
    for (size_t i = 0; i < codes.size(); i++)
        if (book.bits == 8) bytes.push_back(uint8_t(codes[i]));
        else if (i % 2 == 0) bytes.push_back(uint8_t(codes[i] << 4));
        else bytes.back() = uint8_t(bytes.back() | codes[i]);
    return bytes;
}

bool has_codebook(const qlora::FormatRow &row) { return row.codec == qlora::Codec::CODEBOOK4 || row.codec == qlora::Codec::CODEBOOK8; }

qlora_weight shape_of(int32_t format, uint64_t rows, uint64_t cols, uint32_t block = 0) {
    auto weight = qlora::make<qlora_weight>();
    weight.format = format;
    weight.block = block;
    weight.rows = rows;
    weight.cols = cols;
    return weight;
}

} // namespace

TEST_SUITE_BEGIN("formats");

TEST_CASE("the table answers by number and by name") {
    for (const qlora::FormatRow &row : qlora::format_rows) {
        const qlora_format_info info = qlora::format_query(row.format);
        CHECK(std::string(info.name) == row.name);
        CHECK(qlora::format_find(row.name) == row.format);
        CHECK(info.bits == row.bits);
        CHECK(info.block == row.block);
        CHECK(info.block_bytes == row.block_bytes);
        CHECK((row.scale == qlora::Scale::ROW ? info.block == 0 : info.block >= info.block_min && info.block <= info.block_max));
    }
    auto info = qlora::make<qlora_format_info>();
    int32_t format = 0;
    CHECK(qlora_format_query(9999, &info) == QLORA_ERROR_FORMAT);
    CHECK(qlora_format_query(QLORA_FORMAT_NF4, nullptr) == QLORA_ERROR_ARGUMENT);
    CHECK(qlora_format_find("nf5", &format) == QLORA_ERROR_FORMAT);
    CHECK(qlora_format_find(nullptr, &format) == QLORA_ERROR_ARGUMENT);
}

TEST_CASE("planes hold every element and block, lie apart, and begin at multiples of 256") {
    for (const qlora::FormatRow &row : qlora::format_rows)
        for (uint64_t cols : {uint64_t(64), uint64_t(65), uint64_t(1) << 30}) {
            const bool by_row = row.scale == qlora::Scale::ROW;
            if (by_row && cols > 65) cols--; // less than 2^30
            if (qlora::whole_blocks(row)) cols = (cols + row.block - 1) / row.block * row.block;
            const uint64_t rows = 3, count = rows * cols, blocks = by_row ? rows : (count + row.block - 1) / row.block;
            const qlora_weight weight = shape_of(row.format, rows, cols);
            auto layout = qlora::make<qlora_weight_layout_info>();
            REQUIRE(qlora_weight_layout(&weight, &layout) == QLORA_OK);
            const bool inner = row.scale == qlora::Scale::INLINE;
            CHECK(layout.plane_bytes[QLORA_PLANE_CODE] == (inner ? blocks * row.block_bytes : (count * row.bits + 7) / 8));
            if (!qlora::has_groups(row)) // those: tests/gptq.cpp and spqr.cpp
                CHECK(layout.plane_bytes[QLORA_PLANE_SCALE] == (row.scale == qlora::Scale::F32 || by_row ? blocks * 4 : row.scale == qlora::Scale::NESTED || row.scale == qlora::Scale::E8M0 ? blocks : 0));
            if (row.scale != qlora::Scale::TILE) CHECK(layout.plane_bytes[QLORA_PLANE_NESTED] == (row.scale == qlora::Scale::NESTED ? (blocks + 255) / 256 * 4 : 0));
            uint64_t end = 0;
            for (int plane = 0; plane < QLORA_PLANE_COUNT; plane++) {
                if (layout.plane_bytes[plane] == 0) continue;
                CHECK(layout.plane_offset[plane] % 256 == 0);
                CHECK(layout.plane_offset[plane] >= end);
                end = layout.plane_offset[plane] + layout.plane_bytes[plane];
            }
            CHECK(layout.total_bytes >= end);
        }
}

TEST_CASE("a layout that cannot be is refused, with its own status") {
    auto layout = qlora::make<qlora_weight_layout_info>();
    auto status = [&](qlora_weight weight) { return qlora_weight_layout(&weight, &layout); };
    CHECK(status(shape_of(77, 4, 64)) == QLORA_ERROR_FORMAT);
    CHECK(status(shape_of(0, 4, 64)) == QLORA_ERROR_FORMAT);
    CHECK(status(shape_of(QLORA_FORMAT_Q4_0, 4, 65)) == QLORA_ERROR_SHAPE);
    CHECK(status(shape_of(QLORA_FORMAT_INT8, 4, 64, 64)) == QLORA_ERROR_ARGUMENT);
    CHECK(status(shape_of(QLORA_FORMAT_INT8, 4, uint64_t(1) << 30)) == QLORA_ERROR_SHAPE);
    CHECK(status(shape_of(QLORA_FORMAT_NF4, 4, 64, 48)) == QLORA_ERROR_ARGUMENT);
    CHECK(status(shape_of(QLORA_FORMAT_NF4, 4, 64, 8192)) == QLORA_ERROR_ARGUMENT);
    CHECK(status(shape_of(QLORA_FORMAT_NF4, 4, 64, 16)) == QLORA_ERROR_ARGUMENT);
    CHECK(status(shape_of(QLORA_FORMAT_NF4, uint64_t(1) << 31, 64)) == QLORA_ERROR_SHAPE);
    CHECK(status(shape_of(QLORA_FORMAT_NF4, 64, ~uint64_t(0))) == QLORA_ERROR_SHAPE);
    qlora_weight nested = shape_of(QLORA_FORMAT_NF4_DQ, 4, 64);
    nested.nested_block = 128;
    CHECK(status(nested) == QLORA_ERROR_ARGUMENT);
    qlora_weight weight = shape_of(QLORA_FORMAT_NF4, 4, 64);
    CHECK(qlora_weight_place(&weight, qlora_span{1, 0, 100}) == QLORA_ERROR_SCRATCH);
    CHECK(qlora_weight_place(nullptr, qlora_span{1, 0, 100}) == QLORA_ERROR_ARGUMENT);
}

TEST_CASE("every code decodes to its table value times the block's absmax, one rounding each") {
    for (const Target &target : targets())
        for (const qlora::FormatRow &row : qlora::format_rows) {
            if (!has_codebook(row)) continue;
            const qlora::Context &context = shared_context(target);
            const CodeBook book = code_book(row.format);
            const uint64_t count = 32 * 600 + 7; // more than two nested blocks
            std::vector<uint32_t> codes(count);
            for (uint64_t i = 0; i < count; i++) codes[i] = uint32_t(mix(7, i) % book.values.size());
            const uint64_t blocks = (count + 31) / 32;
            qlora::Weight weight(context, row.format, 1, count, 32);
            weight.write_plane(QLORA_PLANE_CODE, packed_codes(book, codes).data());
            std::vector<float> absmax = random_values(blocks, 9);
            if (row.scale == qlora::Scale::NESTED) {
                const CodeBook scales = code_book(QLORA_FORMAT_DYN8);
                std::vector<uint8_t> scale_codes(blocks);
                const std::vector<float> nested = {0.75f, 1.3f, 0.01f}, offset = {1.7f};
                for (uint64_t b = 0; b < blocks; b++) {
                    scale_codes[b] = uint8_t(mix(8, b));
                    const volatile float product = scales.values[scale_codes[b]] * nested[b / 256];
                    absmax[b] = product + offset[0];
                }
                weight.write_plane(QLORA_PLANE_SCALE, scale_codes.data());
                weight.write_plane(QLORA_PLANE_NESTED, nested.data());
                weight.write_plane(QLORA_PLANE_OFFSET, offset.data());
            } else {
                weight.write_plane(QLORA_PLANE_SCALE, absmax.data());
            }
            for (int32_t type : types) {
                std::vector<float> expected(count);
                for (uint64_t i = 0; i < count; i++) expected[i] = book.values[codes[i]] * absmax[i / 32];
                const std::vector<uint8_t> wanted = pack(type, expected), got = dequantized(context, weight, type);
                CHECK_MESSAGE(got == wanted, text(target.name, " ", row.name, " ", format_name(type)));
            }
        }
}

TEST_CASE("borders between codes are strict, to the last bit") {
    for (const Target &target : targets())
        for (const qlora::FormatRow &row : qlora::format_rows) {
            if (!has_codebook(row) || row.scale == qlora::Scale::NESTED) continue;
            const qlora::Context &context = shared_context(target);
            const CodeBook book = code_book(row.format);
            // One block per border, led by 1 so that values are not scaled: the border itself and its two neighbours.
            std::vector<float> values;
            std::vector<int> ranks; // expected, three per border
            const bool even_wins = book.bits == 8;
            for (size_t i = 0; i < book.borders.size(); i++) {
                const float border = book.borders[i];
                values.push_back(1);
                values.push_back(std::nextafter(border, -2.0f));
                values.push_back(border);
                values.push_back(std::nextafter(border, 2.0f));
                values.resize(values.size() + 28, 0.0f);
                ranks.insert(ranks.end(), {int(i), even_wins && i % 2 ? int(i) + 1 : int(i), int(i) + 1});
            }
            const qlora::Weight weight = quantized(context, row.format, 32, 1, values.size(), values);
            const std::vector<uint8_t> codes = weight.read_plane(QLORA_PLANE_CODE);
            uint64_t wrong = 0;
            for (size_t i = 0; i < book.borders.size(); i++)
                for (size_t j = 0; j < 3; j++) wrong += book.rank(code_at(book, codes, i * 32 + 1 + j)) != ranks[i * 3 + j];
            CHECK_MESSAGE(wrong == 0, text(target.name, " ", row.name, ": ", wrong, " of ", ranks.size(), " borders"));
        }
}

TEST_CASE("the nibble after an odd count is the code of zero, and a block of zeros is all code 0") {
    for (const Target &target : targets())
        for (int32_t format : {QLORA_FORMAT_NF4, QLORA_FORMAT_FP4}) {
            const qlora::Context &context = shared_context(target);
            const qlora::Weight some = quantized(context, format, 64, 1, 67, random_values(67, 3));
            CHECK((some.read_plane(QLORA_PLANE_CODE).back() & 15) == (format == QLORA_FORMAT_NF4 ? 7 : 0));
            const qlora::Weight none = quantized(context, format, 64, 1, 67, std::vector<float>(67, 0.0f));
            CHECK(none.read_plane(QLORA_PLANE_CODE) == std::vector<uint8_t>(34, 0));
            CHECK(unpack(QLORA_FORMAT_F32, dequantized(context, none, QLORA_FORMAT_F32))[66] == 0);
        }
}

TEST_CASE("decoding, encoding and decoding again changes nothing") {
    for (const Target &target : targets())
        for (const qlora::FormatRow &row : qlora::format_rows) {
            // The mean of nested scales moves, interleaved and group scales are rounded, the unsigned table loses signs, and 127 127ths
            // of an absmax may be its neighbour.
            if (row.scale == qlora::Scale::NESTED || row.scale == qlora::Scale::INLINE || qlora::has_groups(row) || row.scale == qlora::Scale::ROW || row.format == QLORA_FORMAT_UDYN8) continue;
            const qlora::Context &context = shared_context(target);
            std::vector<float> values = random_values(6 * 192, 4);
            for (size_t i = 0; i < values.size(); i += 32) values[i] = 9; // the dynamic table has no -1
            const qlora::Weight first = quantized(context, row.format, 0, 6, 192, values);
            const std::vector<float> once = unpack(QLORA_FORMAT_F32, dequantized(context, first, QLORA_FORMAT_F32));
            const qlora::Weight second = quantized(context, row.format, 0, 6, 192, once);
            // Values, not codes: fp4 has two zeros.
            CHECK_MESSAGE(unpack(QLORA_FORMAT_F32, dequantized(context, second, QLORA_FORMAT_F32)) == once, text(target.name, " ", row.name));
            CHECK_MESSAGE(second.read_plane(QLORA_PLANE_SCALE) == first.read_plane(QLORA_PLANE_SCALE), text(target.name, " ", row.name));
        }
}

TEST_CASE("all 65536 patterns of a 16-bit float decode exactly, and round back") {
    for (const Target &target : targets())
        for (int32_t format : {QLORA_FORMAT_F16, QLORA_FORMAT_BF16}) {
            const qlora::Context &context = shared_context(target);
            std::vector<uint16_t> patterns(65536);
            for (uint32_t i = 0; i < 65536; i++) patterns[i] = uint16_t(i);
            qlora::Weight weight(context, format, 256, 256);
            weight.write_plane(QLORA_PLANE_CODE, patterns.data());
            const std::vector<float> values = unpack(QLORA_FORMAT_F32, dequantized(context, weight, QLORA_FORMAT_F32));
            const std::vector<uint8_t> back = dequantized(context, weight, format);
            uint64_t wrong = 0, wrong_back = 0;
            for (uint32_t i = 0; i < 65536; i++) {
                const int exponent_bits = format == QLORA_FORMAT_F16 ? 5 : 8, mantissa_bits = 15 - exponent_bits, bias = (1 << (exponent_bits - 1)) - 1;
                const int exponent = int(i >> mantissa_bits) & ((1 << exponent_bits) - 1), mantissa = int(i) & ((1 << mantissa_bits) - 1);
                if (exponent == (1 << exponent_bits) - 1 && mantissa) { wrong += !std::isnan(values[i]); continue; }
                double expected = exponent == (1 << exponent_bits) - 1 ? HUGE_VAL
                                  : exponent ? std::ldexp((1 << mantissa_bits) + mantissa, exponent - bias - mantissa_bits)
                                             : std::ldexp(mantissa, 1 - bias - mantissa_bits);
                if (i >> 15) expected = -expected;
                wrong += !(values[i] == float(expected));
                uint16_t pattern;
                std::memcpy(&pattern, back.data() + 2 * i, 2);
                wrong_back += pattern != i;
            }
            CHECK_MESSAGE(wrong == 0, text(target.name, " ", format_name(format), ": ", wrong));
            CHECK_MESSAGE(wrong_back == 0, text(target.name, " ", format_name(format), ": ", wrong_back));
        }
}

TEST_CASE("f32 rounds to nearest even in plain 16-bit formats, subnormals and overflow included") {
    std::vector<float> values;
    for (uint32_t high = 0; high < 0x7f80; high += 3) // every exponent, around the halves of both types
        for (uint32_t low : {0x0000u, 0x0fffu, 0x1000u, 0x1001u, 0x2fffu, 0x3000u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) values.push_back(from_bits(high << 16 | low | (low & 1) << 31));
    values.resize(values.size() / 256 * 256);
    for (const Target &target : targets())
        for (int32_t format : {QLORA_FORMAT_F16, QLORA_FORMAT_BF16}) {
            const qlora::Weight weight = quantized(shared_context(target), format, 0, values.size() / 256, 256, values);
            CHECK_MESSAGE(weight.read_plane(QLORA_PLANE_CODE) == pack(format, values), text(target.name, " ", format_name(format)));
        }
}

TEST_CASE("NaN and infinity in what is quantized are named on ref and cpu") {
    for (const Target &target : targets()) {
        if (target.backend != QLORA_BACKEND_REF && target.backend != QLORA_BACKEND_CPU) continue;
        for (const qlora::FormatRow &row : qlora::format_rows)
            for (uint32_t bits : {0x7fc00000u, 0x7f800000u, 0xff800000u, 0x7f800001u}) {
                std::vector<float> values = random_values(3 * 256, 6);
                values[357] = from_bits(bits);
                values[401] = from_bits(bits);
                try {
                    quantized(shared_context(target), row.format, 0, 3, 256, values);
                    FAIL_CHECK(text(target.name, " ", row.name, " takes ", bits));
                } catch (const qlora::Error &error) {
                    CHECK(error.status() == QLORA_ERROR_VALUE);
                    CHECK_MESSAGE(std::string(error.what()).find("357") != std::string::npos, text(target.name, ": ", error.what()));
                }
            }
    }
}

TEST_SUITE_END();
