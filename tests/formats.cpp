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

TEST_CASE("NaN and infinity in what is quantized are named: by an error on ref and cpu, by not_finite everywhere") {
    const uint64_t none = UINT64_MAX;
    for (const Target &target : targets()) {
        const qlora::Context &context = shared_context(target);
        const bool host = target.backend == QLORA_BACKEND_REF || target.backend == QLORA_BACKEND_CPU;
        for (const qlora::FormatRow &row : qlora::format_rows) {
            if (qlora_operation_supports(context.get(), QLORA_OP_QUANTIZE, row.format, QLORA_FORMAT_F32) != QLORA_OK) continue;
            for (int32_t type : types)
                for (uint32_t bits : {0u, 0x7fc00000u, 0x7f800000u, 0xff800000u, 0x7f810000u}) {
                    INFO(target.name, " ", std::string(row.name), " ", format_name(type), " ", bits);
                    std::vector<float> values = random_values(3 * 256, 6);
                    if (bits != 0) values[357] = values[401] = from_bits(bits);
                    const std::vector<uint8_t> packed = pack(type, values);
                    const qlora::Buffer src(context, packed), found(context, std::vector<uint64_t>{7});
                    qlora::Weight weight(context, row.format, 3, 256);
                    auto args = qlora::make<qlora_quantize_args>();
                    args.weight = weight.get();
                    args.src = qlora::tensor(type, 3, 256, src.span());
                    for (bool asked : {true, false}) {
                        args.not_finite = asked ? found.span() : qlora_span{};
                        const qlora::Buffer scratch(context, context.operation_scratch(QLORA_OP_QUANTIZE, args));
                        args.scratch = scratch.span();
                        const int32_t status = qlora_weight_quantize(context.get(), &args);
                        context.synchronize();
                        CHECK(status == (bits != 0 && host ? QLORA_ERROR_VALUE : QLORA_OK));
                        if (status != QLORA_OK) CHECK(std::string(qlora_context_message(context.get())).find("357") != std::string::npos);
                        if (asked) CHECK(found.read<uint64_t>().at(0) == (bits != 0 ? 357 : none));
                    }
                }
        }
        // Rows with gaps: the index counts elements, whatever lies between the rows.
        std::vector<float> values(4 * 320, NAN);
        for (uint64_t r = 0; r < 4; r++) std::fill_n(values.begin() + long(r * 320), 256, 1.0f);
        qlora::Buffer src(context, values);
        const qlora::Buffer found(context, std::vector<uint64_t>{7});
        qlora::Weight weight(context, QLORA_FORMAT_NF4, 4, 256);
        auto args = qlora::make<qlora_quantize_args>();
        args.weight = weight.get();
        args.src = qlora::tensor(QLORA_FORMAT_F32, 4, 256, src.span());
        args.src.stride = 320;
        args.not_finite = found.span();
        const qlora::Buffer scratch(context, context.operation_scratch(QLORA_OP_QUANTIZE, args));
        args.scratch = scratch.span();
        context.weight_quantize(args);
        CHECK(found.read<uint64_t>().at(0) == none);
        const float infinity = HUGE_VALF;
        src.write(&infinity, 4, (3 * 320 + 255) * 4);
        CHECK(qlora_weight_quantize(context.get(), &args) == (host ? QLORA_ERROR_VALUE : QLORA_OK));
        CHECK(found.read<uint64_t>().at(0) == 1023);
    }
}

TEST_CASE("what is finite has one policy everywhere: zeros, tiny, subnormal and over-range values") {
    const float largest = from_bits(0x7f7fffffu);
    for (const qlora::FormatRow &row : qlora::format_rows) {
        if (qlora_operation_supports(shared_context(reference()).get(), QLORA_OP_QUANTIZE, row.format, QLORA_FORMAT_F32) != QLORA_OK) continue;
        const bool plain = row.codec == qlora::Codec::FLOAT, signless = row.format == QLORA_FORMAT_UDYN8;
        // Where the f16 scale of a block may be infinite, as ggml has it; and f16 itself.
        const bool unbounded = (row.scale == qlora::Scale::INLINE && row.format != QLORA_FORMAT_MXFP4 && row.format != QLORA_FORMAT_NVFP4) || plain;
        const bool nested = row.scale == qlora::Scale::NESTED; // its mean is infinite where the sum of absmax overflows
        for (float size : {0.0f, from_bits(1), from_bits(0x007fffffu), from_bits(0x00800000u), 1e-30f, 1.0f, 1e30f, largest}) {
            std::vector<float> values(2 * 256);
            for (size_t i = 0; i < values.size(); i++) values[i] = size * (float(int(i % 7) - 3) / 3);
            const qlora::Weight expected = quantized(shared_context(reference()), row.format, 0, 2, 256, values);
            for (float value : unpack(QLORA_FORMAT_F32, dequantized(shared_context(reference()), expected, QLORA_FORMAT_F32))) {
                INFO("ref ", std::string(row.name), " ", size);
                if (nested && size == largest) CHECK(!std::isfinite(value));
                else if (!unbounded) CHECK(std::isfinite(value));
                if (!plain && size < from_bits(0x00800000u)) CHECK(std::fabs(value) <= 1e-37f);
                if (size == 0) CHECK(value == 0);
                // Half a step of a grid over -1 .. 1, and what the scale's own rounding adds.
                if (size == 1 && !signless) CHECK(std::fabs(value) <= 1.04f + 1 / (std::ldexp(1.0f, std::min(16, int(row.bits))) - 1));
            }
            for (const Target &target : targets()) {
                const qlora::Context &context = shared_context(target);
                if (qlora_operation_supports(context.get(), QLORA_OP_QUANTIZE, row.format, QLORA_FORMAT_F32) != QLORA_OK) continue;
                INFO(target.name, " ", std::string(row.name), " ", size);
                const qlora::Weight weight = quantized(context, row.format, 0, 2, 256, values);
                for (int plane = 0; plane < QLORA_PLANE_COUNT; plane++) CHECK(weight.read_plane(plane) == expected.read_plane(plane));
                const std::vector<uint8_t> ours = dequantized(context, weight, QLORA_FORMAT_F32), theirs = dequantized(shared_context(reference()), expected, QLORA_FORMAT_F32);
                uint64_t different = 0;
                const std::vector<float> a = unpack(QLORA_FORMAT_F32, ours), b = unpack(QLORA_FORMAT_F32, theirs);
                for (size_t i = 0; i < a.size(); i++) different += bits_of(a[i]) != bits_of(b[i]) && !(std::isnan(a[i]) && std::isnan(b[i]));
                CHECK(different == 0);
            }
        }
    }
}

TEST_CASE("matrices without rows are nothing to do, in quantize, dequantize and gather") {
    for (const Target &target : targets())
        for (const qlora::FormatRow &row : qlora::format_rows) {
            const qlora::Context &context = shared_context(target);
            if (qlora_operation_supports(context.get(), QLORA_OP_QUANTIZE, row.format, QLORA_FORMAT_F32) != QLORA_OK) continue;
            INFO(target.name, " ", std::string(row.name));
            auto weight = shape_of(row.format, 0, 256);
            const qlora::Buffer planes(context, 4096); // double-quantized scales have a mean even of none
            REQUIRE(qlora_weight_place(&weight, planes.span()) == QLORA_OK);
            auto args = qlora::make<qlora_quantize_args>();
            args.weight = &weight;
            args.src = qlora::tensor(QLORA_FORMAT_F32, 0, 256, qlora_span{});
            CHECK(qlora_weight_quantize(context.get(), &args) == QLORA_OK);
            auto back = qlora::make<qlora_dequantize_args>();
            back.weight = &weight;
            back.dst = args.src;
            CHECK(qlora_weight_dequantize(context.get(), &back) == QLORA_OK);
        }
}

TEST_SUITE_END();
