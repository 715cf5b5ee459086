// Files of SpQR's inference library: a packer written here from the layout's description, and what cannot be right.
#include "tests/support/spqr.h"
#include "tests/support/targets.h"

#include <doctest/doctest.h>

#include <cmath>

using namespace test;

TEST_SUITE_BEGIN("spqr");

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
