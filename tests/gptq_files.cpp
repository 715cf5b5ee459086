// GPTQ checkpoints in and out: words against a packer written here from the layout's description, both versions of zeros, act-order,
// and sizes that lie.
#include "backends/formats.h"
#include "tests/support/calibrated.h"
#include "tests/support/targets.h"

#include <doctest/doctest.h>

using namespace test;

namespace {

constexpr int32_t gptq_formats[] = {QLORA_FORMAT_GPTQ2, QLORA_FORMAT_GPTQ3, QLORA_FORMAT_GPTQ4, QLORA_FORMAT_GPTQ8};

qlora_span span_of(const void *memory, uint64_t bytes) { return qlora_span{uint64_t(reinterpret_cast<uintptr_t>(memory)), 0, bytes}; }
template <class T> qlora_span span_of(const std::vector<T> &values) { return span_of(values.data(), values.size() * sizeof(T)); }

// A layer as a checkpoint holds it, and as single numbers.
struct File {
    uint64_t rows, cols, groups;
    uint32_t bits, block, version;
    std::vector<int32_t> qweight, qzeros, g_idx;
    std::vector<uint16_t> scales;
    std::vector<uint32_t> codes, zeros; // codes[cols][rows], zeros[groups][rows]: true ones
};

// Words of 32 / bits codes; for 3 bits 32 codes in 3 words, where codes 10 and 21 straddle. Packs count codes that lie `step` apart.
void pack_words(const std::vector<uint32_t> &codes, uint64_t first, uint64_t step, uint64_t count, uint32_t bits, std::vector<int32_t> &words, uint64_t place, uint64_t words_apart) {
    std::vector<uint32_t> packed(count * bits / 32, 0);
    auto code = [&](uint64_t i) { return codes[first + i * step]; };
    if (bits != 3) {
        const uint32_t per_word = 32 / bits;
        for (uint64_t i = 0; i < count; i++) packed[i / per_word] |= code(i) << (i % per_word * bits);
    } else {
        for (uint64_t i = 0; i < count; i += 32) {
            uint32_t *word = &packed[i / 32 * 3];
            for (uint32_t k = 0; k < 10; k++) word[0] |= code(i + k) << 3 * k;
            word[0] |= (code(i + 10) & 3) << 30;
            word[1] |= code(i + 10) >> 2;
            for (uint32_t k = 0; k < 10; k++) word[1] |= code(i + 11 + k) << (3 * k + 1);
            word[1] |= (code(i + 21) & 1) << 31;
            word[2] |= code(i + 21) >> 1;
            for (uint32_t k = 0; k < 10; k++) word[2] |= code(i + 22 + k) << (3 * k + 2);
        }
    }
    for (uint64_t i = 0; i < packed.size(); i++) words[place + i * words_apart] = int32_t(packed[i]);
}

void pack_zeros(File &file, uint32_t version) {
    file.version = version;
    std::vector<uint32_t> stored = file.zeros;
    for (uint32_t &zero : stored) zero = (zero - (version == 1 ? 1u : 0u)) & ((1u << file.bits) - 1u);
    const uint64_t words = file.rows * file.bits / 32;
    file.qzeros.assign(file.groups * words, 0);
    for (uint64_t g = 0; g < file.groups; g++) pack_words(stored, g * file.rows, 1, file.rows, file.bits, file.qzeros, g * words, 1);
}

File random_file(int32_t format, uint64_t rows, uint64_t cols, uint32_t block, uint32_t version, bool scattered, bool symmetric, uint64_t seed) {
    File file = {rows, cols, (cols + block - 1) / block, qlora::format_row(format)->bits, block, version, {}, {}, {}, {}, {}, {}};
    const uint32_t levels = 1u << file.bits;
    for (uint64_t i = 0; i < rows * cols; i++) file.codes.push_back(uint32_t(mix(seed, i) % levels));
    for (uint64_t i = 0; i < rows * file.groups; i++) file.zeros.push_back(symmetric ? levels / 2 : uint32_t(mix(seed + 1, i) % levels));
    for (uint64_t i = 0; i < rows * file.groups; i++) file.scales.push_back(uint16_t(mix(seed + 2, i)));
    for (uint64_t c = 0; c < cols; c++) file.g_idx.push_back(scattered ? int32_t(mix(seed + 3, c) % file.groups) : int32_t(c / block));
    file.qweight.assign(cols * file.bits / 32 * rows, 0);
    for (uint64_t r = 0; r < rows; r++) pack_words(file.codes, r, rows, cols, file.bits, file.qweight, r, rows);
    pack_zeros(file, version);
    return file;
}

struct HostPlanes {
    qlora_weight weight;
    std::vector<uint8_t> memory;
    HostPlanes(int32_t format, uint64_t rows, uint64_t cols, uint32_t block, uint32_t flags) : weight(qlora::make<qlora_weight>()) {
        weight.format = format;
        weight.block = block;
        weight.flags = flags;
        weight.rows = rows;
        weight.cols = cols;
        auto layout = qlora::make<qlora_weight_layout_info>();
        REQUIRE(qlora_weight_layout(&weight, &layout) == QLORA_OK);
        memory.assign(layout.total_bytes + 256, 0xa5);
        const uint64_t front = 256 - reinterpret_cast<uintptr_t>(memory.data()) % 256;
        REQUIRE(qlora_weight_place(&weight, span_of(memory.data() + front, layout.total_bytes)) == QLORA_OK);
    }
};

qlora_gptq_tensors tensors_of(const File &file, const HostPlanes &planes) {
    auto tensors = qlora::make<qlora_gptq_tensors>();
    tensors.weight = &planes.weight;
    tensors.qweight = span_of(file.qweight);
    tensors.qzeros = span_of(file.qzeros);
    tensors.scales = span_of(file.scales);
    tensors.g_idx = span_of(file.g_idx);
    tensors.version = file.version;
    return tensors;
}

uint64_t ambiguous_in(const File &file) {
    uint64_t count = 0;
    for (uint32_t zero : file.zeros) count += file.version == 1 && zero == 0;
    return count;
}

} // namespace

TEST_SUITE_BEGIN("gptq");

TEST_CASE("a checkpoint's words become planes with the same values, and the planes the same words") {
    const qlora::Context &ref = shared_context(reference());
    for (int32_t format : gptq_formats)
        for (uint32_t version : {1u, 2u})
            for (bool scattered : {false, true})
                for (uint32_t block : {32u, 40u, 128u, 0x7fffffffu}) {
                    const uint64_t rows = 64, cols = 160;
                    const File file = random_file(format, rows, cols, block, version, scattered, false, block + version);
                    HostPlanes planes(format, rows, cols, block, scattered ? QLORA_WEIGHT_INDEXED : 0);
                    auto tensors = tensors_of(file, planes);
                    ref.gptq_import(tensors);
                    CHECK(tensors.ambiguous_zeros == ambiguous_in(file));
                    CHECK(tensors.weight == &planes.weight);

                    const qlora::Buffer dst(ref, rows * cols * 4);
                    auto decode = qlora::make<qlora_dequantize_args>();
                    decode.weight = &planes.weight; // ref reads host memory
                    decode.dst = qlora::tensor(QLORA_FORMAT_F32, rows, cols, dst.span());
                    ref.weight_dequantize(decode);
                    std::vector<float> expected(rows * cols);
                    for (uint64_t r = 0; r < rows; r++)
                        for (uint64_t c = 0; c < cols; c++) {
                            const uint64_t at = uint64_t(file.g_idx[c]) * rows + r;
                            expected[r * cols + c] = from_bits(qlora_f32_from_f16(file.scales[at])) * float(int(file.codes[c * rows + r]) - int(file.zeros[at]));
                        }
                    CHECK_MESSAGE(different_values(dst.read<float>(), expected) == 0, text(qlora::format_row(format)->name, " version ", version, " block ", block));

                    for (uint32_t written : {1u, 2u}) {
                        File wanted = file, back = file;
                        pack_zeros(wanted, written);
                        back.version = written;
                        for (auto *words : {&back.qweight, &back.qzeros, &back.g_idx}) words->assign(words->size(), -1);
                        back.scales.assign(back.scales.size(), 7);
                        auto out = tensors_of(back, planes);
                        ref.gptq_export(out);
                        CHECK(back.qweight == wanted.qweight);
                        CHECK(back.qzeros == wanted.qzeros);
                        CHECK(back.scales == wanted.scales);
                        CHECK(back.g_idx == wanted.g_idx);
                    }
                }
}

TEST_CASE("symmetric files tell their version: 0x77777777 is 1, 0x88888888 is 2") {
    const qlora::Context &ref = shared_context(reference());
    for (int32_t format : gptq_formats) {
        File file = random_file(format, 32, 64, 32, 1, false, true, 9);
        HostPlanes planes(format, 32, 64, 32, 0);
        if (format == QLORA_FORMAT_GPTQ4) CHECK(file.qzeros == std::vector<int32_t>(file.qzeros.size(), 0x77777777));
        std::vector<uint8_t> first;
        for (uint32_t version : {1u, 2u}) {
            pack_zeros(file, version);
            if (format == QLORA_FORMAT_GPTQ4 && version == 2) CHECK(file.qzeros == std::vector<int32_t>(file.qzeros.size(), int32_t(0x88888888)));
            auto tensors = tensors_of(file, planes);
            tensors.version = 0;
            ref.gptq_import(tensors);
            CHECK(tensors.version == version);
            CHECK(tensors.ambiguous_zeros == 0);
            if (version == 1) first = planes.memory;
            else CHECK(planes.memory == first);
        }
        File other = random_file(format, 32, 64, 32, 1, false, false, 9);
        auto tensors = tensors_of(other, planes);
        tensors.version = 0;
        CHECK(qlora_gptq_import(ref.get(), &tensors) == QLORA_ERROR_VALUE);
    }
}

TEST_CASE("what the quantizer makes goes to a checkpoint and comes back") {
    const qlora::Context &ref = shared_context(reference());
    for (int32_t format : gptq_formats)
        for (uint32_t flags : {0u, QLORA_FLAG_ACT_ORDER, QLORA_FLAG_ACT_ORDER | QLORA_FLAG_STATIC_GROUPS, QLORA_FLAG_SYMMETRIC}) {
            const uint64_t rows = 32, cols = 96;
            CalibrateOptions options;
            options.format = format;
            options.block = 32;
            options.flags = flags;
            const Calibrated made = calibrate(ref, rows, cols, random_values(rows * cols, 1), hessian_of(related_inputs(128, cols, 2, 0.5f), 128, cols), options);
            const bool indexed = !made.planes[QLORA_PLANE_INDEX].empty();
            HostPlanes planes(format, rows, cols, 32, indexed ? QLORA_WEIGHT_INDEXED : 0), again(format, rows, cols, 32, indexed ? QLORA_WEIGHT_INDEXED : 0);
            for (int plane = 0; plane < QLORA_PLANE_COUNT; plane++)
                if (!made.planes[plane].empty()) std::memcpy(reinterpret_cast<void *>(planes.weight.planes[plane].handle + planes.weight.planes[plane].offset), made.planes[plane].data(), made.planes[plane].size());
            File file = random_file(format, rows, cols, 32, 1, false, false, 4);
            for (uint32_t version : {1u, 2u}) {
                file.version = version;
                auto out = tensors_of(file, planes);
                ref.gptq_export(out);
                auto in = tensors_of(file, again);
                ref.gptq_import(in);
                for (int plane = 0; plane < QLORA_PLANE_COUNT; plane++) {
                    const qlora_span &place = again.weight.planes[plane];
                    CHECK((made.planes[plane].empty() || std::memcmp(reinterpret_cast<void *>(place.handle + place.offset), made.planes[plane].data(), made.planes[plane].size()) == 0));
                }
            }
            if (flags == QLORA_FLAG_SYMMETRIC && format == QLORA_FORMAT_GPTQ4) CHECK(file.qzeros[0] == int32_t(0x88888888));
        }
}

TEST_CASE("files that lie are refused") {
    const qlora::Context &ref = shared_context(reference());
    auto status = [&](auto &&spoil, bool importing = true) {
        File file = random_file(QLORA_FORMAT_GPTQ4, 32, 64, 16, 1, false, false, 5);
        HostPlanes planes(QLORA_FORMAT_GPTQ4, 32, 64, 16, 0);
        auto tensors = tensors_of(file, planes);
        spoil(file, planes, tensors);
        const int32_t found = importing ? qlora_gptq_import(ref.get(), &tensors) : qlora_gptq_export(ref.get(), &tensors);
        if (found != QLORA_OK) CHECK(std::string(qlora_context_message(ref.get())).find(importing ? "qlora_gptq_import" : "qlora_gptq_export") == 0);
        return found;
    };
    using F = File &;
    using P = HostPlanes &;
    using T = qlora_gptq_tensors &;
    CHECK(status([](F, P, T) {}) == QLORA_OK);
    CHECK(status([](F, P, T) {}, false) == QLORA_OK);
    for (bool importing : {true, false}) {
        CHECK(status([](F, P, T t) { t.qweight.size -= 4; }, importing) == QLORA_ERROR_SHAPE);
        CHECK(status([](F, P, T t) { t.qzeros.size -= 1; }, importing) == QLORA_ERROR_SHAPE);
        CHECK(status([](F, P, T t) { t.scales.size = 0; }, importing) == QLORA_ERROR_SHAPE);
        CHECK(status([](F, P, T t) { t.g_idx.size /= 2; }, importing) == QLORA_ERROR_SHAPE);
        CHECK(status([](F, P, T t) { t.qweight.handle = 0; }, importing) == QLORA_ERROR_ARGUMENT);
        CHECK(status([](F, P, T t) { t.qweight.offset = 2; }, importing) == QLORA_ERROR_ARGUMENT);
        CHECK(status([](F, P, T t) { t.weight = nullptr; }, importing) == QLORA_ERROR_ARGUMENT);
        CHECK(status([](F, P, T t) { t.version = 3; }, importing) == QLORA_ERROR_ARGUMENT);
        CHECK(status([](F, P, T t) { t.flags = 1; }, importing) == QLORA_ERROR_ARGUMENT);
        CHECK(status([](F, P, T t) { t.struct_size = 4; }, importing) == QLORA_ERROR_ARGUMENT);
        CHECK(status([](F, P p, T) { p.weight.planes[QLORA_PLANE_ZERO].size -= 1; }, importing) == QLORA_ERROR_SHAPE);
        CHECK(status([](F, P p, T) { p.weight.planes[QLORA_PLANE_SCALE].handle = 0; }, importing) == QLORA_ERROR_ARGUMENT);
        CHECK(status([](F, P p, T) { p.weight.rows = 31; }, importing) == QLORA_ERROR_SHAPE);  // not whole words
        CHECK(status([](F, P p, T) { p.weight.cols = 63; }, importing) == QLORA_ERROR_SHAPE);
        CHECK(status([](F, P p, T) { p.weight.block = 8; }, importing) == QLORA_ERROR_SHAPE);  // more groups than the file has
        CHECK(status([](F, P p, T) { p.weight.cols = 1u << 30; }, importing) == QLORA_ERROR_SHAPE);
        CHECK(status([](F, P p, T) { p.weight.format = QLORA_FORMAT_NF4; p.weight.block = 64; }, importing) != QLORA_OK);
    }
    CHECK(status([](F f, P, T) { f.g_idx[60] = 4; }) == QLORA_ERROR_VALUE);
    CHECK(status([](F f, P, T) { f.g_idx[60] = -1; }) == QLORA_ERROR_VALUE);
    CHECK(status([](F f, P, T) { f.g_idx[60] = 2; }) == QLORA_ERROR_ARGUMENT); // not column / block, and the weight has no index
    CHECK(status([](F, P, T t) { t.g_idx = qlora_span{}; }) == QLORA_OK);
    CHECK(qlora_gptq_import(nullptr, nullptr) == QLORA_ERROR_ARGUMENT);
    CHECK(qlora_gptq_import(ref.get(), nullptr) == QLORA_ERROR_ARGUMENT);
}

TEST_SUITE_END();
