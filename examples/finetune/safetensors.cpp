#include "safetensors.h"

#include "cursor.h"
#include "decode.h"
#include "json.h"

#include <algorithm>

namespace finetune {
namespace {

const uint64_t most_header_bytes = 100000000;

struct Dtype {
    const char *name;
    uint64_t bytes;
};
const Dtype dtypes[] = {{"F64", 8}, {"F32", 4}, {"F16", 2},  {"BF16", 2},    {"I64", 8},
                        {"I32", 4}, {"I16", 2}, {"I8", 1},   {"U64", 8},     {"U32", 4},
                        {"U16", 2}, {"U8", 1},  {"BOOL", 1}, {"F8_E4M3", 1}, {"F8_E5M2", 1}};

uint64_t dtype_bytes(const std::string &name) {
    for (const Dtype &dtype : dtypes)
        if (name == dtype.name) return dtype.bytes;
    return 0;
}

} // namespace

SafeTensors::SafeTensors(const std::string &path) : path_(path) {
    const bool directory = is_directory(path);
    const std::string whole = directory ? folder() + "model.safetensors" : path, index = whole + ".index.json";
    if (directory && exists(index)) {
        open_shards(index);
    } else {
        if (directory && !exists(whole))
            reject("expected model.safetensors or model.safetensors.index.json in this directory; other kinds of weight "
                   "files are not read, save the model as safetensors");
        open(whole);
    }
}

std::string SafeTensors::folder() const {
    if (is_directory(path_)) return path_.back() == '/' ? path_ : path_ + '/';
    return folder_of(path_);
}

void SafeTensors::open_shards(const std::string &index_path) {
    const MappedFile file(index_path);
    const Json json = parse_json(file.text(), index_path, 4);
    if (!json.is_object() || !json.contains("weight_map") || !json["weight_map"].is_object())
        fail(index_path, ": expected {\"weight_map\": {tensor: file}}");
    std::unordered_map<std::string, size_t> opened; // file -> one more than its last tensor
    for (const auto &[name, shard] : json["weight_map"].items()) {
        const std::string where = index_path + ": tensor " + shown(name);
        if (!shard.is_string()) fail(where, ": its file is not a string");
        const std::string shard_name = shard.get<std::string>();
        if (shard_name.empty() || shard_name.find('/') != std::string::npos || shard_name == "..")
            fail(where, ": ", shown(shard_name), " is not the name of a file in the same directory");
        if (opened.count(shard_name) == 0) {
            open(folder() + shard_name);
            opened.emplace(shard_name, files_.size());
        }
        const SafeTensor *found = find(name);
        const MappedFile &its = files_[opened[shard_name] - 1];
        if (found == nullptr || found->data < its.data() || found->data > its.data() + its.size())
            fail(where, " is not in ", shown(shard_name), "; fetch the model again");
    }
}

void SafeTensors::open(const std::string &path) {
    files_.emplace_back(path);
    const MappedFile &file = files_.back();
    const auto reject = [&](const auto &...parts) { fail(path, ": ", parts...); };
    const size_t first = tensors_.size();
    Cursor in(file.data(), file.size(), path);
    const uint64_t header_bytes = in.read<uint64_t>("header length");
    if (header_bytes > most_header_bytes || header_bytes > in.remaining())
        in.reject("header length ", header_bytes, ": more than the ", in.remaining(), " bytes that remain or than ",
                  most_header_bytes, "; not a safetensors file, or truncated");
    const std::string_view text(reinterpret_cast<const char *>(file.data()) + 8, header_bytes);
    const Json header = parse_json(text, path + ": header", 4);
    if (!header.is_object()) reject("expected the header to be a JSON object");
    in.skip(header_bytes, "header");

    for (const auto &[name, entry] : header.items()) {
        if (name == "__metadata__") {
            for (const auto &[key, value] : entry.items())
                if (value.is_string()) metadata_.emplace(key, value.get<std::string>());
            continue;
        }
        const std::string who = "tensor " + shown(name);
        SafeTensor tensor = {};
        tensor.name = name;
        if (!entry.is_object() || !entry.contains("dtype") || !entry.contains("shape") ||
            !entry.contains("data_offsets") || !entry["dtype"].is_string() || !entry["shape"].is_array() ||
            !entry["data_offsets"].is_array() || entry["data_offsets"].size() != 2)
            reject(who, ": expected {dtype, shape, data_offsets: [begin, end]}");
        tensor.dtype = entry["dtype"].get<std::string>();
        const uint64_t element_bytes = dtype_bytes(tensor.dtype);
        if (element_bytes == 0) reject(who, ": dtype ", shown(tensor.dtype), " is unknown");
        tensor.elements = 1;
        for (const Json &size : entry["shape"]) {
            if (!size.is_number_unsigned()) reject(who, ": its shape holds something other than sizes");
            tensor.shape.push_back(size.get<uint64_t>());
            if (!multiply(tensor.elements, tensor.shape.back(), &tensor.elements))
                reject(who, ": its shape overflows 64 bits");
        }
        if (!multiply(tensor.elements, element_bytes, &tensor.bytes)) reject(who, ": its size overflows 64 bits");
        const Json &offsets = entry["data_offsets"];
        if (!offsets[0].is_number_unsigned() || !offsets[1].is_number_unsigned())
            reject(who, ": its data_offsets are not two sizes");
        const uint64_t begin = offsets[0].get<uint64_t>(), end = offsets[1].get<uint64_t>();
        if (begin > end || end > in.remaining())
            reject(who, ": data_offsets ", begin, " to ", end, " reach beyond the ", in.remaining(),
                   " bytes of data; truncated?");
        if (end - begin != tensor.bytes)
            reject(who, ": data_offsets span ", end - begin, " bytes, its shape needs ", tensor.bytes);
        tensor.data = file.data() + in.offset() + begin;
        if (!index_.emplace(name, tensors_.size()).second) reject(who, " is in another file of the model as well");
        tensors_.push_back(std::move(tensor));
    }

    std::vector<const SafeTensor *> order;
    for (size_t i = first; i < tensors_.size(); ++i) order.push_back(&tensors_[i]);
    std::sort(order.begin(), order.end(), [](const SafeTensor *a, const SafeTensor *b) {
        return a->data != b->data ? a->data < b->data : a->bytes < b->bytes;
    });
    const uint8_t *next = file.data() + in.offset();
    for (const SafeTensor *tensor : order) {
        if (tensor->data != next)
            reject("tensor ", shown(tensor->name), ": its data leaves a hole or overlaps another tensor");
        next += tensor->bytes;
    }
    if (next != file.data() + file.size())
        reject("the file is longer than its tensors; expected no bytes after the last");
}

const std::string *SafeTensors::metadata(const std::string &key) const {
    const auto found = metadata_.find(key);
    return found == metadata_.end() ? nullptr : &found->second;
}

const SafeTensor *SafeTensors::find(const std::string &name) const {
    const auto found = index_.find(name);
    return found == index_.end() ? nullptr : &tensors_[found->second];
}

const SafeTensor &SafeTensors::get(const std::string &name) const {
    const SafeTensor *found = find(name);
    if (found == nullptr) reject("tensor ", shown(name), " is missing");
    return *found;
}

std::vector<float> SafeTensors::floats(const SafeTensor &tensor) const {
    std::vector<float> values(tensor.elements);
    if (values.empty()) return values;
    if (tensor.dtype == "F32") {
        memcpy(values.data(), tensor.data, tensor.bytes);
    } else if (tensor.dtype == "F16" || tensor.dtype == "BF16") {
        const bool half = tensor.dtype == "F16";
        for (uint64_t i = 0; i < tensor.elements; ++i) {
            uint16_t bits;
            memcpy(&bits, tensor.data + 2 * i, 2);
            values[i] = half ? half_to_float(bits) : bfloat_to_float(bits);
        }
    } else {
        reject("tensor ", shown(tensor.name), " is ", tensor.dtype, ", expected F32, F16 or BF16");
    }
    return values;
}

std::vector<int32_t> SafeTensors::integers(const SafeTensor &tensor) const {
    std::vector<int32_t> values(tensor.elements);
    if (values.empty()) return values;
    if (tensor.dtype == "I32") {
        memcpy(values.data(), tensor.data, tensor.bytes);
    } else if (tensor.dtype == "I64") {
        for (uint64_t i = 0; i < tensor.elements; ++i) {
            int64_t wide;
            memcpy(&wide, tensor.data + 8 * i, 8);
            if (wide < INT32_MIN || wide > INT32_MAX)
                reject("tensor ", shown(tensor.name), ": element ", i, " does not fit in 32 bits");
            values[i] = static_cast<int32_t>(wide);
        }
    } else {
        reject("tensor ", shown(tensor.name), " is ", tensor.dtype, ", expected I32 or I64");
    }
    return values;
}

void SafeTensorsWriter::add_f32(const std::string &name, std::vector<uint64_t> shape, const float *data) {
    add(name, "F32", std::move(shape), data);
}

void SafeTensorsWriter::add(const std::string &name, const std::string &dtype, std::vector<uint64_t> shape,
                            const void *data) {
    SafeTensor tensor = {name, dtype, std::move(shape), 1, 0, static_cast<const uint8_t *>(data)};
    for (uint64_t size : tensor.shape)
        if (!multiply(tensor.elements, size, &tensor.elements))
            fail("tensor ", shown(name), ": its shape overflows 64 bits");
    tensor.bytes = tensor.elements * dtype_bytes(dtype);
    tensors_.push_back(std::move(tensor));
}

std::string SafeTensorsWriter::head() const {
    Json header = Json::object();
    for (const auto &[key, value] : metadata_) header["__metadata__"][key] = value;
    uint64_t offset = 0;
    for (const SafeTensor &tensor : tensors_) {
        if (header.contains(tensor.name)) fail("tensor ", shown(tensor.name), " would be written twice");
        header[tensor.name] = {
            {"dtype", tensor.dtype}, {"shape", tensor.shape}, {"data_offsets", {offset, offset + tensor.bytes}}};
        offset += tensor.bytes;
    }
    std::string text = header.dump();
    text.resize((text.size() + 7) / 8 * 8, ' ');
    const uint64_t length = text.size();
    return std::string(reinterpret_cast<const char *>(&length), sizeof(length)) + text;
}

uint64_t SafeTensorsWriter::file_bytes() const {
    uint64_t bytes = head().size();
    for (const SafeTensor &tensor : tensors_) bytes += tensor.bytes;
    return bytes;
}

void SafeTensorsWriter::save(const std::string &path) const {
    save(path, [this](size_t i) { return tensors_[i].data; });
}

void SafeTensorsWriter::save(const std::string &path, const std::function<const void *(size_t)> &produce) const {
    const std::string head = this->head();
    NewFile file(path);
    file.write(head.data(), head.size());
    for (size_t i = 0; i < tensors_.size(); ++i) file.write(produce(i), tensors_[i].bytes);
    file.commit();
}

} // namespace finetune
