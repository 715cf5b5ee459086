#include "packed_gptq.h"

#include "format_choice.h"
#include "json.h"

#include <cmath>
#include <cstring>

namespace finetune {

const char *const gptq_mark = ".qweight";

namespace {

const std::string weight_ending = ".weight";

// The name before its ending, when it has that ending.
std::string stem(const std::string &name, const std::string &ending) {
    const bool has =
        name.size() > ending.size() && name.compare(name.size() - ending.size(), ending.size(), ending) == 0;
    return has ? name.substr(0, name.size() - ending.size()) : name;
}

const SafeTensor &matrix(const SafeTensors &file, const std::string &name, const char *dtype) {
    const SafeTensor *tensor = file.find(name);
    if (tensor == nullptr)
        file.reject("tensor ", shown(name),
                    " of a GPTQ weight is missing; the file is incomplete, save the model again");
    if (tensor->dtype != dtype || tensor->shape.size() != 2 || tensor->elements == 0)
        file.reject("tensor ", shown(name), ": expected a matrix of ", dtype, " values in a GPTQ weight");
    return *tensor;
}

uint32_t version_named(const SafeTensors &file, const std::string &name) {
    if (name == "gptq") return 1;
    if (name == "gptq_v2") return 2;
    file.reject("checkpoint_format ", shown(name), ": expected gptq or gptq_v2");
}

// Where a config names no format it is the first one; 0: nothing is said.
uint32_t version_in(const SafeTensors &file, const std::string &path, const char *key) {
    if (!exists(path)) return 0;
    const MappedFile config(path);
    const Json json = parse_json(config.text(), path, 16);
    if (!json.is_object()) fail(path, ": expected a JSON object");
    if (key != nullptr && !json.contains(key)) return 0;
    const Json &said = key == nullptr ? json : json[key];
    if (!said.is_object()) fail(path, ": key '", key, "' is not an object");
    if (!said.contains("checkpoint_format")) return 1;
    if (!said["checkpoint_format"].is_string()) fail(path, ": key 'checkpoint_format' is not a string");
    return version_named(file, said["checkpoint_format"].get<std::string>());
}

uint32_t find_version(const SafeTensors &file) {
    if (const std::string *said = file.metadata("checkpoint_format")) return version_named(file, *said);
    const uint32_t version = version_in(file, file.folder() + "quantize_config.json", nullptr);
    return version != 0 ? version : version_in(file, file.folder() + "config.json", "quantization_config");
}

int32_t format_of_bits(uint64_t bits) {
    return bits == 2   ? QLORA_FORMAT_GPTQ2
           : bits == 3 ? QLORA_FORMAT_GPTQ3
           : bits == 4 ? QLORA_FORMAT_GPTQ4
           : bits == 8 ? QLORA_FORMAT_GPTQ8
                       : 0;
}

qlora_span host_span(const void *memory, uint64_t bytes) {
    return memory == nullptr ? qlora_span{} : qlora_span{uint64_t(reinterpret_cast<uintptr_t>(memory)), 0, bytes};
}

struct Sizes {
    uint64_t rows, cols, groups, qweight, qzeros, scales, index; // the last four in bytes
};

Sizes sizes_of(int32_t format, uint32_t block, uint64_t rows, uint64_t cols) {
    const uint64_t bits = qlora::format_query(format).bits;
    if (block == 0) block = qlora::format_query(format).block;
    const uint64_t groups = (cols + block - 1) / block;
    return {rows,    cols, groups, cols * bits / 32 * rows * 4, groups * (rows * bits / 32) * 4, groups * rows * 2,
            cols * 4};
}

// A weight with planes in host memory, and the checkpoint's tensors around it.
struct Exchange {
    std::vector<uint8_t> memory;
    qlora_weight weight = qlora::make<qlora_weight>();
    qlora_gptq_tensors tensors = qlora::make<qlora_gptq_tensors>();

    Exchange(int32_t format, uint32_t block, uint32_t flags, uint64_t rows, uint64_t cols) {
        weight.format = format;
        weight.block = block;
        weight.flags = flags;
        weight.rows = rows;
        weight.cols = cols;
        auto layout = qlora::make<qlora_weight_layout_info>();
        if (qlora_weight_layout(&weight, &layout) != QLORA_OK)
            fail(format_name(format), " does not take a matrix of ", rows, " x ", cols);
        memory.resize(layout.total_bytes + 256);
        const uintptr_t start = (reinterpret_cast<uintptr_t>(memory.data()) + 255) / 256 * 256;
        qlora_weight_place(&weight, {uint64_t(start), 0, layout.total_bytes});
        tensors.weight = &weight;
    }
    uint8_t *plane(int index) const {
        const qlora_span &span = weight.planes[index];
        return reinterpret_cast<uint8_t *>(static_cast<uintptr_t>(span.handle)) + span.offset;
    }
};

} // namespace

PackedTensor read_gptq(const SafeTensors &file, const SafeTensor &qweight) {
    const std::string name = stem(qweight.name, gptq_mark), who = "tensor " + shown(qweight.name);
    matrix(file, qweight.name, "I32");
    const std::string qzeros_name = name + ".qzeros", scales_name = name + ".scales"; // named: gcc 13 suspects temporaries here
    const SafeTensor &qzeros = matrix(file, qzeros_name, "I32"), &scales = matrix(file, scales_name, "F16");
    const SafeTensor *index = file.find(name + ".g_idx");
    const uint64_t rows = qweight.shape[1], groups = scales.shape[0], words = qzeros.shape[1];
    const uint64_t bits = words * 32 / rows, cols = bits == 0 ? 0 : qweight.shape[0] * 32 / bits;
    const int32_t format = format_of_bits(bits);
    if (format == 0 || words * 32 != rows * bits || cols * bits != qweight.shape[0] * 32 || scales.shape[1] != rows ||
        qzeros.shape[0] != groups || groups > cols || cols > INT32_MAX)
        file.reject(who, ": ", qweight.shape[0], " x ", rows, ", its qzeros ", qzeros.shape[0], " x ", words,
                    " and its scales ", groups, " x ", scales.shape[1], " are no GPTQ weight of 2, 3, 4 or 8 bits");

    PackedTensor packed;
    packed.name = name + weight_ending;
    packed.shape = {rows, cols};
    packed.parts = {&qweight, &qzeros, &scales};
    StoredWeight &weight = packed.weight;
    weight.format = format;
    weight.rows = rows;
    weight.cols = cols;
    weight.dtype = QLORA_FORMAT_F16;
    weight.block = static_cast<uint32_t>((cols + groups - 1) / groups);
    weight.gptq = {qweight.data, qzeros.data, scales.data, nullptr, find_version(file)};
    for (uint64_t i = 0; i < scales.elements; ++i) {
        uint16_t half;
        memcpy(&half, scales.data + 2 * i, 2);
        if ((half & 0x7c00) == 0x7c00) file.reject("tensor ", shown(scales.name), ": element ", i, " is not finite");
    }
    if (index != nullptr) {
        if (index->dtype != "I32" || index->elements != cols)
            file.reject("tensor ", shown(index->name), " has ", index->elements, " values of ", index->dtype,
                        ", expected ", cols, " of I32");
        packed.parts.push_back(index);
        weight.gptq.index = index->data;
        const std::vector<int32_t> group = file.integers(*index);
        uint64_t first = 0; // columns of group 0 at the beginning
        while (first < cols && group[first] == 0) ++first;
        bool straight = first > 0 && (cols + first - 1) / first == groups;
        for (uint64_t c = 0; c < cols; ++c) {
            if (group[c] < 0 || uint64_t(group[c]) >= groups)
                file.reject("tensor ", shown(index->name), ": element ", c, " is ", group[c], ", but there are ",
                            groups, " groups");
            straight = straight && uint64_t(group[c]) == c / first;
        }
        if (straight) weight.block = static_cast<uint32_t>(first);
        else weight.flags = QLORA_WEIGHT_INDEXED;
    } else if (const std::string *size = file.metadata("group_size")) {
        const uint64_t named = strtoull(size->c_str(), nullptr, 10);
        if (named > 0 && named < cols) weight.block = static_cast<uint32_t>(named);
    } else if (cols % groups != 0) {
        weight.block = 1; // nothing tells
    }
    if ((cols + weight.block - 1) / weight.block != groups)
        file.reject(who, ": ", cols, " inputs in ", groups, " groups need a g_idx or a group_size");
    return packed;
}

bool fits_gptq_words(int32_t format, uint64_t rows, uint64_t cols) {
    const uint64_t bits = qlora::format_query(format).bits;
    return rows * bits % 32 == 0 && cols * bits % 32 == 0;
}

std::vector<PackedPart> gptq_parts(const std::string &name, int32_t format, uint32_t block, uint64_t rows,
                                   uint64_t cols, uint32_t version) {
    if (!fits_gptq_words(format, rows, cols))
        fail("tensor ", shown(name), ": ", rows, " x ", cols, " codes of ", format_name(format),
             " do not fill words of 32 bits both ways, which a GPTQ checkpoint needs");
    const Sizes sizes = sizes_of(format, block, rows, cols);
    const std::string before = stem(name, weight_ending);
    std::vector<PackedPart> parts = {
        {PackedPart::gptq, 0, before + gptq_mark, "I32", {sizes.qweight / 4 / rows, rows}, sizes.qweight},
        {PackedPart::gptq, 1, before + ".qzeros", "I32", {sizes.groups, sizes.qzeros / 4 / sizes.groups}, sizes.qzeros},
        {PackedPart::gptq, 2, before + ".g_idx", "I32", {cols}, sizes.index},
        {PackedPart::gptq, 3, before + ".scales", "F16", {sizes.groups, rows}, sizes.scales}};
    for (PackedPart &part : parts) part.version = version;
    return parts;
}

std::vector<uint8_t> gptq_bytes(const PackedPart &part, const qlora::Weight &weight) {
    const HostWeight host = download_weight(weight);
    const Sizes sizes = sizes_of(host.format, host.block, host.rows, host.cols);
    Exchange exchange(host.format, host.block, host.flags, host.rows, host.cols);
    for (int plane = 0; plane < QLORA_PLANE_COUNT; ++plane)
        if (!host.planes[plane].empty())
            memcpy(exchange.plane(plane), host.planes[plane].data(), host.planes[plane].size());
    std::vector<uint8_t> parts[4];
    const uint64_t bytes[4] = {sizes.qweight, sizes.qzeros, sizes.index, sizes.scales};
    for (int i = 0; i < 4; ++i) parts[i].resize(bytes[i]);
    exchange.tensors.qweight = host_span(parts[0].data(), bytes[0]);
    exchange.tensors.qzeros = host_span(parts[1].data(), bytes[1]);
    exchange.tensors.g_idx = host_span(parts[2].data(), bytes[2]);
    exchange.tensors.scales = host_span(parts[3].data(), bytes[3]);
    exchange.tensors.version = part.version;
    const qlora::Context context(QLORA_BACKEND_REF);
    context.gptq_export(exchange.tensors);
    return parts[part.plane_index];
}

void reorder_gptq_rows(StoredWeight &weight, const std::vector<uint64_t> &from) {
    const Sizes sizes = sizes_of(weight.format, weight.block, weight.rows, weight.cols);
    const uint64_t rows = weight.rows, lines = sizes.qweight / 4 / rows, words = sizes.qzeros / 4 / sizes.groups,
                   bits = qlora::format_query(weight.format).bits;
    std::vector<float> made((sizes.qweight + sizes.qzeros + sizes.scales + 3) / 4); // zeros, which codes are added to
    uint8_t *qweight = reinterpret_cast<uint8_t *>(made.data()), *qzeros = qweight + sizes.qweight, *scales = qzeros + sizes.qzeros;
    for (uint64_t line = 0; line < lines; ++line)
        for (uint64_t row = 0; row < rows; ++row)
            memcpy(qweight + 4 * (line * rows + row), weight.gptq.qweight + 4 * (line * rows + from[row]), 4);
    for (uint64_t group = 0; group < sizes.groups; ++group) {
        const uint8_t *theirs = weight.gptq.qzeros + 4 * group * words;
        uint8_t *ours = qzeros + 4 * group * words;
        for (uint64_t row = 0; row < rows; ++row) {
            memcpy(scales + 2 * (group * rows + row), weight.gptq.scales + 2 * (group * rows + from[row]), 2);
            for (uint64_t bit = 0; bit < bits; ++bit) { // a code may lie in two words
                const uint64_t source = from[row] * bits + bit, target = row * bits + bit;
                ours[target / 8] |= static_cast<uint8_t>((theirs[source / 8] >> source % 8 & 1) << target % 8);
            }
        }
    }
    weight.made = std::move(made);
    weight.gptq.qweight = qweight;
    weight.gptq.qzeros = qzeros;
    weight.gptq.scales = scales;
}

HostWeight import_gptq_planes(const StoredWeight &stored) {
    Exchange exchange(stored.format, stored.block, stored.flags, stored.rows, stored.cols);
    const Sizes sizes = sizes_of(stored.format, stored.block, stored.rows, stored.cols);
    exchange.tensors.qweight = host_span(stored.gptq.qweight, sizes.qweight);
    exchange.tensors.qzeros = host_span(stored.gptq.qzeros, sizes.qzeros);
    exchange.tensors.scales = host_span(stored.gptq.scales, sizes.scales);
    exchange.tensors.g_idx = host_span(stored.gptq.index, sizes.index);
    exchange.tensors.version = stored.gptq.version;
    const qlora::Context context(QLORA_BACKEND_REF); // planes are in host memory, whatever the context
    context.gptq_import(exchange.tensors);
    const qlora_weight shape = weight_shape(stored);
    HostWeight weight = host_weight(shape);
    auto layout = qlora::make<qlora_weight_layout_info>();
    qlora_weight_layout(&shape, &layout);
    for (int plane = 0; plane < QLORA_PLANE_COUNT; ++plane) {
        const uint8_t *data = static_cast<const uint8_t *>(exchange.plane(plane));
        weight.planes[plane].assign(data, data + layout.plane_bytes[plane]);
    }
    return weight;
}

qlora::Weight import_gptq(const qlora::Context &context, const StoredWeight &stored) {
    return upload_weight(context, import_gptq_planes(stored));
}

} // namespace finetune
