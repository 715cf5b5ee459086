#include "tests/support/stage.h"
#include "tests/support/inputs.h"
#include "tests/support/targets.h"

#include "backends/formats.h"

#include <algorithm>
#include <map>
#include <stdexcept>
#include <tuple>

namespace test {
namespace {

constexpr uint8_t guard_byte = 0xa5;
constexpr uint64_t guard_bytes = 256;

// A quiet NaN of the type, or guard bytes where there is no type.
void fill_with_nan(uint8_t *place, int32_t type, uint64_t bytes) {
    for (uint64_t i = 0; i < bytes; i++) place[i] = guard_byte;
    if (type && type != QLORA_FORMAT_DYN8)
        for (uint64_t i = 0; i + element_bytes(type) <= bytes; i += element_bytes(type)) store(type, from_bits(0x7fc00000), place + i);
}

bool is_bilevel(int32_t format) { return qlora::format_row(format)->codec == qlora::Codec::BILEVEL; }

// One element of 37 becomes an outlier, as far as there is room; the rest of the room stays unused.
void fill_sparse(HostWeight &host, uint64_t seed) {
    const uint64_t rows = host.shape.rows, cols = host.shape.cols;
    std::vector<uint32_t> offsets, columns;
    std::vector<float> values;
    for (uint64_t r = 0; r < rows; r++) {
        offsets.push_back(uint32_t(columns.size()));
        for (uint64_t c = 0; c < cols; c++)
            if (mix(seed + 5, r * cols + c) % 37 == 0 && columns.size() < host.shape.outliers) {
                columns.push_back(uint32_t(c));
                values.push_back(float(uniform(seed + 6, r * cols + c)) - 0.5f);
            }
    }
    offsets.push_back(uint32_t(columns.size()));
    columns.resize(host.shape.outliers, 0);
    values.resize(host.shape.outliers, 0);
    host.planes[QLORA_PLANE_OFFSET] = bytes_of(offsets);
    host.planes[QLORA_PLANE_COLUMN] = bytes_of(columns);
    host.planes[QLORA_PLANE_OUTLIER] = pack(QLORA_FORMAT_F16, values);
    if (!(host.shape.flags & QLORA_WEIGHT_INDEXED)) return;
    std::vector<int32_t> index(cols);
    for (uint64_t c = 0; c < cols; c++) index[c] = int32_t((c % 2 ? cols - 1 - c / 2 : c / 2) % cols);
    host.planes[QLORA_PLANE_INDEX] = bytes_of(index);
}

} // namespace

const HostWeight &host_weight(int32_t format, uint64_t rows, uint64_t cols, uint32_t block, uint64_t seed) {
    static std::map<std::tuple<int32_t, uint64_t, uint64_t, uint32_t, uint64_t>, HostWeight> made;
    const auto key = std::make_tuple(format, rows, cols, block, seed);
    const auto found = made.find(key);
    if (found != made.end()) return found->second;

    const qlora::Context &ref = shared_context(reference());
    auto shape = qlora::make<qlora_weight>();
    shape.format = format;
    shape.rows = rows;
    shape.cols = cols;
    shape.block = block;
    if (is_bilevel(format)) { // with outliers, and a third of the shapes with columns in other places
        shape.outliers = std::min(rows * cols, rows * cols / 20 + 3);
        shape.flags = (rows + cols) % 3 == 0 ? QLORA_WEIGHT_INDEXED : 0;
    }
    const qlora::Weight weight(ref, shape);
    // Rows of different size, so that a scale taken from the wrong block shows.
    std::vector<float> values = random_values(rows * cols, seed * 7919 + 13, 0.05);
    for (uint64_t i = 0; i < values.size(); i++) values[i] *= 1 + float(i / 32 % 11) * 0.25f;
    const qlora::Buffer src(ref, values);
    auto args = qlora::make<qlora_quantize_args>();
    args.weight = weight.get();
    args.src = qlora::tensor(QLORA_FORMAT_F32, rows, cols, src.span());
    const qlora::Buffer scratch(ref, ref.operation_scratch(QLORA_OP_QUANTIZE, args));
    args.scratch = scratch.span();
    ref.weight_quantize(args);
    HostWeight host = {*weight.get(), {}};
    for (int plane = 0; plane < QLORA_PLANE_COUNT; plane++) host.planes[plane] = weight.read_plane(plane);
    if (is_bilevel(format)) fill_sparse(host, seed);
    return made[key] = host;
}

qlora_span Stage::place_scratch(uint64_t bytes) {
    Placed placed = {Placed::SCRATCH, "scratch", 0, 1, bytes, bytes, 1, guard_bytes, {}, {}};
    placed.image.assign((placed.front + bytes + guard_bytes + 3) / 4 * 4, guard_byte);
    placed.buffer = qlora::Buffer(context_, placed.image);
    const qlora_span span = placed.buffer.span(placed.front, bytes);
    placed_.push_back(std::move(placed));
    return span;
}

qlora_span Stage::add(Placed::Role role, const std::string &name, int32_t type, uint32_t element_size, uint64_t rows, uint64_t cols, uint64_t stride, std::vector<uint8_t> data) {
    // Places differ by multiples of 4 bytes, the least that the header promises to backends.
    const uint64_t front = guard_bytes + placed_.size() % 5 * 4;
    Placed placed = {role, name, type, rows, cols, stride ? stride : cols, element_size, front, {}, {}};
    const uint64_t elements = rows && cols ? (rows - 1) * placed.stride + cols : 0;
    placed.image.assign((placed.front + elements * element_size + guard_bytes + 3) / 4 * 4, guard_byte);
    fill_with_nan(placed.image.data() + placed.front, type, elements * element_size);
    for (uint64_t r = 0; r < rows && !data.empty(); r++)
        std::memcpy(placed.image.data() + placed.front + r * placed.stride * element_size, data.data() + r * cols * element_size, cols * element_size);
    placed.buffer = qlora::Buffer(context_, placed.image);
    const qlora_span span = placed.buffer.span(placed.front, elements * element_size);
    placed_.push_back(std::move(placed));
    return span;
}

qlora_tensor Stage::tensor(int32_t type, uint64_t rows, uint64_t cols, const std::vector<float> &values, uint64_t stride) {
    return qlora::tensor(type, rows, cols, add(Placed::INPUT, "", type, element_bytes(type), rows, cols, stride, pack(type, values)), stride);
}
qlora_span Stage::floats(const std::vector<float> &values) { return add(Placed::INPUT, "", QLORA_FORMAT_F32, 4, 1, values.size(), 0, bytes_of(values)); }
qlora_span Stage::integers(const std::vector<int32_t> &values) { return add(Placed::INPUT, "", 0, 4, 1, values.size(), 0, bytes_of(values)); }

const qlora_weight *Stage::weight(const HostWeight &host) {
    weights_.push_back(host.shape);
    for (int plane = 0; plane < QLORA_PLANE_COUNT; plane++) {
        weights_.back().planes[plane] = qlora_span{};
        if (!host.planes[plane].empty()) weights_.back().planes[plane] = add(Placed::INPUT, "", 0, 1, 1, host.planes[plane].size(), 0, host.planes[plane]);
    }
    return &weights_.back();
}

qlora_tensor Stage::output(const std::string &name, int32_t type, uint64_t rows, uint64_t cols, uint64_t stride, const std::vector<float> &before) {
    return qlora::tensor(type, rows, cols, add(Placed::OUTPUT, name, type, element_bytes(type), rows, cols, stride, pack(type, before)), stride);
}
qlora_span Stage::output_floats(const std::string &name, uint64_t count, const std::vector<float> &before) {
    return add(Placed::OUTPUT, name, QLORA_FORMAT_F32, 4, 1, count, 0, bytes_of(before));
}

qlora_span Stage::output_codes(const std::string &name, const std::vector<uint8_t> &before) { return add(Placed::OUTPUT, name, QLORA_FORMAT_DYN8, 1, 1, before.size(), 0, before); }
qlora_span Stage::output_integers(const std::string &name, uint64_t count) { return add(Placed::OUTPUT, name, 0, 4, 1, count, 0, {}); }

const qlora_weight *Stage::output_weight(int32_t format, uint64_t rows, uint64_t cols, uint32_t block, uint32_t flags, uint64_t outliers) {
    auto weight = qlora::make<qlora_weight>();
    weight.outliers = outliers;
    weight.flags = flags;
    weight.format = format;
    weight.block = block;
    weight.rows = rows;
    weight.cols = cols;
    return output_weight(weight);
}
const qlora_weight *Stage::output_weight(qlora_weight weight) {
    auto layout = qlora::make<qlora_weight_layout_info>();
    const int32_t status = qlora_weight_layout(&weight, &layout);
    if (status != QLORA_OK) throw qlora::Error(status, "output_weight: no layout");
    for (int plane = 0; plane < QLORA_PLANE_COUNT; plane++)
        if (layout.plane_bytes[plane]) weight.planes[plane] = add(Placed::OUTPUT, "plane " + std::to_string(plane), 0, 1, 1, layout.plane_bytes[plane], 0, {});
    weights_.push_back(weight);
    return &weights_.back();
}

std::vector<Output> Stage::outputs() {
    context_.synchronize();
    std::vector<Output> outputs;
    for (Placed &placed : placed_) {
        const std::vector<uint8_t> now = placed.buffer.read<uint8_t>();
        const bool is_input = placed.role == Placed::INPUT, is_output = placed.role == Placed::OUTPUT;
        std::vector<uint8_t> expected = placed.image;
        Output output = {placed.name, placed.type, {}};
        for (uint64_t r = 0; r < placed.rows && !is_input; r++) { // what may have changed is not compared
            const uint64_t begin = placed.front + r * placed.stride * placed.element_size, bytes = placed.cols * placed.element_size;
            if (is_output) output.bytes.insert(output.bytes.end(), now.begin() + std::ptrdiff_t(begin), now.begin() + std::ptrdiff_t(begin + bytes));
            std::memcpy(expected.data() + begin, now.data() + begin, bytes);
        }
        if (now != expected) {
            size_t at = 0;
            while (now[at] == expected[at]) at++;
            throw std::runtime_error((is_input ? std::string("an input") : "'" + placed.name + "'") + ": byte " +
                                     std::to_string(int64_t(at) - int64_t(placed.front)) + " of its data was written, which lies " +
                                     (is_input ? "in what is only read" : "outside it or in a gap between rows"));
        }
        if (is_output) outputs.push_back(std::move(output));
    }
    return outputs;
}

} // namespace test
