#include "gguf.h"

#include "cursor.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

namespace finetune {
namespace {

enum ValueType : uint32_t {
    value_u8,
    value_i8,
    value_u16,
    value_i16,
    value_u32,
    value_i32,
    value_f32,
    value_bool,
    value_string,
    value_array,
    value_u64,
    value_i64,
    value_f64,
    value_types
};
const char *const value_names[value_types] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                              "bool", "string", "array", "u64", "i64", "f64"};
const uint64_t value_bytes[value_types] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

const uint32_t default_alignment = 32;
const uint64_t most_alignment = 1 << 16;
const uint64_t longest_name = 63; // llama.cpp keeps names in 64 bytes with a terminator

const TensorType tensor_types[] = {
    {0, "F32", 1, 4},         {1, "F16", 1, 2},         {2, "Q4_0", 32, 18},      {3, "Q4_1", 32, 20},
    {6, "Q5_0", 32, 22},      {7, "Q5_1", 32, 24},      {8, "Q8_0", 32, 34},      {9, "Q8_1", 32, 36},
    {10, "Q2_K", 256, 84},    {11, "Q3_K", 256, 110},   {12, "Q4_K", 256, 144},   {13, "Q5_K", 256, 176},
    {14, "Q6_K", 256, 210},   {15, "Q8_K", 256, 292},   {16, "IQ2_XXS", 256, 66}, {17, "IQ2_XS", 256, 74},
    {18, "IQ3_XXS", 256, 98}, {19, "IQ1_S", 256, 50},   {20, "IQ4_NL", 32, 18},   {21, "IQ3_S", 256, 110},
    {22, "IQ2_S", 256, 82},   {23, "IQ4_XS", 256, 136}, {24, "I8", 1, 1},         {25, "I16", 1, 2},
    {26, "I32", 1, 4},        {27, "I64", 1, 8},        {28, "F64", 1, 8},        {29, "IQ1_M", 256, 56},
    {30, "BF16", 1, 2},       {34, "TQ1_0", 256, 54},   {35, "TQ2_0", 256, 66},   {39, "MXFP4", 32, 17},
    {40, "NVFP4", 64, 36},    {41, "Q1_0", 128, 18},    {42, "Q2_0", 64, 18},
};

bool is_integer(uint32_t type) { return type <= value_i32 || type == value_u64 || type == value_i64; }

template <class T> T load(const uint8_t *data) {
    T value;
    memcpy(&value, data, sizeof(T));
    return value;
}

} // namespace

const TensorType *find_tensor_type(uint32_t id) {
    for (const TensorType &type : tensor_types)
        if (type.id == id) return &type;
    return nullptr;
}

Gguf::Gguf(const std::string &path) : Gguf(path, false) {
    if (find_unsigned("split.count").value_or(1) > 1) join_parts();
}

Gguf::Gguf(const std::string &path, bool) : file_(path) { parse(); }

// Parts are called NAME-00001-of-00003.gguf and so on; keys lie in the first, tensors in all.
void Gguf::join_parts() {
    const uint64_t count = *find_unsigned("split.count"), number = find_unsigned("split.no").value_or(0);
    const auto ending = [count](uint64_t part) {
        char text[64];
        snprintf(text, sizeof(text), "-%05llu-of-%05llu.gguf", static_cast<unsigned long long>(part + 1), static_cast<unsigned long long>(count));
        return std::string(text);
    };
    const std::string own = ending(number);
    if (path().size() <= own.size() || path().compare(path().size() - own.size(), own.size(), own) != 0)
        reject("part ", number + 1, " of ", count, " of a model, whose name should end with ", own,
               "; give all parts their names back");
    const std::string stem = path().substr(0, path().size() - own.size());
    if (number != 0) reject("part ", number + 1, " of ", count, " of a model; give the first, ", stem, ending(0));
    for (uint64_t i = 1; i < count; ++i) {
        const std::string other = stem + ending(i);
        if (!exists(other)) reject("part ", i + 1, " of ", count, " of this model is missing: ", other, "; fetch it into the same folder");
        parts_.emplace_back(new Gguf(other, true));
        const Gguf &part = *parts_.back();
        if (part.find_unsigned("split.no").value_or(0) != i || part.find_unsigned("split.count").value_or(1) != count)
            part.reject("not part ", i + 1, " of ", count, ": its keys split.no and split.count say otherwise");
        for (const GgufTensor &tensor : part.tensors_) {
            if (!tensor_index_.emplace(tensor.name, tensors_.size()).second)
                part.reject("tensor ", shown(tensor.name), ": also in another part");
            tensors_.push_back(tensor);
        }
    }
    const uint64_t expected = find_unsigned("split.tensors.count").value_or(tensors_.size());
    if (expected != tensors_.size())
        reject("its ", count, " parts hold ", tensors_.size(), " tensors, but key 'split.tensors.count' says ", expected, "; fetch them again");
}

void Gguf::parse() {
    Cursor in(file_.data(), file_.size(), path());
    if (in.remaining() >= 4 && memcmp(file_.data(), "GGUF", 4) != 0)
        in.reject("magic is not 'GGUF': this is not a GGUF file");
    in.skip(4, "magic");
    version_ = in.read<uint32_t>("version");
    if (version_ != 0 && (version_ & 0xffff) == 0)
        in.reject("version ", version_, ": a big-endian file; convert it to little-endian first");
    if (version_ == 1)
        in.reject("version 1: too old to be read safely; convert the model again with a current llama.cpp");
    if (version_ != 2 && version_ != 3) in.reject("version ", version_, ": expected 2 or 3");

    const int64_t tensors = in.read<int64_t>("number of tensors");
    const int64_t values = in.read<int64_t>("number of keys");
    if (values < 0 || static_cast<uint64_t>(values) > in.remaining() / 13)
        in.reject("number of keys: ", values, " cannot fit in the ", in.remaining(), " bytes that remain");
    if (tensors < 0 || static_cast<uint64_t>(tensors) > in.remaining() / 24)
        in.reject("number of tensors: ", tensors, " cannot fit in the ", in.remaining(), " bytes that remain");
    parse_values(in, static_cast<uint64_t>(values));
    parse_tensors(in, static_cast<uint64_t>(tensors));
}

void Gguf::parse_values(Cursor &in, uint64_t count) {
    for (uint64_t i = 0; i < count; ++i) {
        Value value = {};
        value.begin = in.offset();
        value.key = in.read_string("key");
        if (value.key.empty() || value.key.size() > 65535)
            in.reject("key ", i, ": its name has ", value.key.size(), " bytes, expected 1 to 65535");
        const std::string name = "key " + shown(value.key);
        value.type = in.read<uint32_t>(name.c_str());
        value.array = value.type == value_array;
        value.count = 1;
        if (value.array) {
            value.type = in.read<uint32_t>(name.c_str());
            value.count = in.read<uint64_t>(name.c_str());
            if (value.type == value_array) in.reject(name, ": an array of arrays, which this reader refuses");
        }
        if (value.type >= value_types) in.reject(name, ": value type ", value.type, " is unknown, expected 0 to 12");
        value.offset = in.offset();
        if (value.type == value_string) {
            if (value.count > in.remaining() / 8)
                in.reject(name, ": ", value.count, " strings cannot fit in the ", in.remaining(), " bytes that remain");
            for (uint64_t k = 0; k < value.count; ++k) in.read_string(name.c_str());
        } else {
            uint64_t bytes;
            if (!multiply(value.count, value_bytes[value.type], &bytes) || bytes > in.remaining())
                in.reject(name, ": ", value.count, " values of type ", value_names[value.type], " cannot fit in the ",
                          in.remaining(), " bytes that remain");
            in.skip(bytes, name.c_str());
        }
        value.bytes = in.offset() - value.offset;
        if (!value.array && value.type == value_bool && file_.data()[value.offset] > 1)
            in.reject(name, ": a bool with value ", int(file_.data()[value.offset]), ", expected 0 or 1");
        if (!value_index_.emplace(value.key, values_.size()).second) in.reject(name, ": appears twice");
        values_.push_back(value);
    }
}

uint64_t Gguf::read_alignment() const {
    const Value *value = find("general.alignment");
    if (value == nullptr) return default_alignment;
    if (value->array || value->type != value_u32) wrong_type(*value, "u32");
    const uint64_t alignment = load<uint32_t>(file_.data() + value->offset);
    if (alignment < 8 || alignment > most_alignment || (alignment & (alignment - 1)) != 0)
        reject("byte ", value->offset, ": general.alignment is ", alignment, ", expected a power of two from 8 to ",
               most_alignment);
    return alignment;
}

void Gguf::parse_tensors(Cursor &in, uint64_t count) {
    std::vector<uint64_t> offsets;
    for (uint64_t i = 0; i < count; ++i) {
        GgufTensor tensor = {};
        tensor.name = in.read_string("tensor name");
        if (tensor.name.empty() || tensor.name.size() > longest_name)
            in.reject("tensor ", i, ": its name has ", tensor.name.size(), " bytes, expected 1 to ", longest_name);
        const std::string name = "tensor " + shown(tensor.name);
        tensor.dims = in.read<uint32_t>(name.c_str());
        if (tensor.dims < 1 || tensor.dims > 4) in.reject(name, ": ", tensor.dims, " dimensions, expected 1 to 4");
        tensor.elements = 1;
        for (uint32_t d = 0; d < 4; ++d) {
            const int64_t size = d < tensor.dims ? in.read<int64_t>(name.c_str()) : 1;
            if (size <= 0) in.reject(name, ": dimension ", d, " is ", size, ", expected at least 1");
            tensor.ne[d] = static_cast<uint64_t>(size);
            if (!multiply(tensor.elements, tensor.ne[d], &tensor.elements) || tensor.elements > INT64_MAX)
                in.reject(name, ": the product of its dimensions does not fit in 63 bits");
        }
        const uint32_t type = in.read<uint32_t>(name.c_str());
        tensor.type = find_tensor_type(type);
        if (tensor.type == nullptr)
            in.reject(name, ": type ", type,
                      " is unknown or was removed from ggml; convert the model again with a current llama.cpp");
        if (tensor.ne[0] % tensor.type->block != 0)
            in.reject(name, ": rows of ", tensor.ne[0], " elements do not divide into ", tensor.type->name,
                      " blocks of ", tensor.type->block);
        if (!multiply(tensor.elements / tensor.type->block, tensor.type->bytes, &tensor.bytes))
            in.reject(name, ": its size in bytes does not fit in 64 bits");
        offsets.push_back(in.read<uint64_t>(name.c_str()));
        if (!tensor_index_.emplace(tensor.name, tensors_.size()).second) in.reject(name, ": appears twice");
        tensors_.push_back(tensor);
    }
    const uint64_t alignment = read_alignment();
    const uint64_t data_start = (in.offset() + alignment - 1) / alignment * alignment;
    if (count > 0 && data_start > file_.size())
        in.reject("the tensor data begins at byte ", data_start, ", but the file has ", file_.size(),
                  " bytes; it is truncated, fetch it again");
    place_tensors(data_start, offsets, alignment);
}

void Gguf::place_tensors(uint64_t data_start, const std::vector<uint64_t> &offsets, uint64_t alignment) {
    std::vector<size_t> order(tensors_.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return offsets[a] < offsets[b]; });

    uint64_t free_from = 0; // within the data section
    std::string_view before;
    for (size_t i : order) {
        GgufTensor &tensor = tensors_[i];
        const std::string name = "tensor " + shown(tensor.name);
        const uint64_t space = file_.size() - data_start;
        uint64_t end;
        if (offsets[i] % alignment != 0)
            reject(name, ": data offset ", offsets[i], " is not a multiple of the alignment ", alignment);
        if (!add(offsets[i], tensor.bytes, &end) || !add(end, alignment - 1, &end) ||
            end / alignment * alignment > space)
            reject(name, ": its ", tensor.bytes, " bytes at data offset ", offsets[i], " (padded to ", alignment,
                   ") reach beyond the ", space, " bytes of tensor data in the file; it is truncated, fetch it again");
        if (offsets[i] < free_from)
            reject(name, ": its data at offset ", offsets[i], " overlaps that of ", shown(before));
        free_from = offsets[i] + tensor.bytes;
        before = tensor.name;
        tensor.data = file_.data() + data_start + offsets[i];
    }
}

const GgufTensor *Gguf::find_tensor(std::string_view name) const {
    const auto found = tensor_index_.find(name);
    return found == tensor_index_.end() ? nullptr : &tensors_[found->second];
}

const GgufTensor &Gguf::tensor(std::string_view name) const {
    const GgufTensor *found = find_tensor(name);
    if (found == nullptr)
        reject("tensor ", shown(name), " is missing; the model is incomplete or of another architecture");
    return *found;
}

const Gguf::Value *Gguf::find(std::string_view key) const {
    const auto found = value_index_.find(key);
    return found == value_index_.end() ? nullptr : &values_[found->second];
}

void Gguf::wrong_type(const Value &value, const char *expected) const {
    reject("byte ", value.offset, ": key ", shown(value.key), " has type ", value.array ? "array of " : "",
           value_names[value.type], ", expected ", expected);
}

bool Gguf::is_array(std::string_view key) const {
    const Value *value = find(key);
    return value != nullptr && value->array;
}

std::vector<std::string_view> Gguf::keys() const {
    std::vector<std::string_view> keys;
    for (const Value &value : values_) // what says that this is a part is not of the model
        if (parts_.empty() || value.key.substr(0, 6) != "split.") keys.push_back(value.key);
    return keys;
}

std::string_view Gguf::entry(std::string_view key) const {
    const Value *value = find(key);
    if (value == nullptr) return {};
    return file_.text().substr(value->begin, value->offset + value->bytes - value->begin);
}

int64_t Gguf::integer_at(const Value &value, uint64_t index) const {
    const uint8_t *data = file_.data() + value.offset + index * value_bytes[value.type];
    switch (value.type) {
    case value_u8:
    case value_bool:
        return load<uint8_t>(data);
    case value_i8:
        return load<int8_t>(data);
    case value_u16:
        return load<uint16_t>(data);
    case value_i16:
        return load<int16_t>(data);
    case value_u32:
        return load<uint32_t>(data);
    case value_i32:
        return load<int32_t>(data);
    case value_i64:
        return load<int64_t>(data);
    default:
        break;
    }
    const uint64_t wide = load<uint64_t>(data);
    if (wide > INT64_MAX) reject("key ", shown(value.key), ": value ", wide, " does not fit in 63 bits");
    return static_cast<int64_t>(wide);
}

std::optional<uint64_t> Gguf::find_unsigned(std::string_view key) const {
    const Value *value = find(key);
    if (value == nullptr) return {};
    if (value->array || !is_integer(value->type)) wrong_type(*value, "an integer");
    const int64_t integer = integer_at(*value, 0);
    if (integer < 0) reject("key ", shown(key), ": value ", integer, ", expected one that is not negative");
    return static_cast<uint64_t>(integer);
}

std::optional<double> Gguf::find_float(std::string_view key) const {
    const Value *value = find(key);
    if (value == nullptr) return {};
    if (value->array || (value->type != value_f32 && value->type != value_f64)) wrong_type(*value, "f32");
    const uint8_t *data = file_.data() + value->offset;
    const double number = value->type == value_f32 ? double(load<float>(data)) : load<double>(data);
    if (!std::isfinite(number)) reject("key ", shown(key), ": value ", number, ", expected a finite number");
    return number;
}

std::optional<bool> Gguf::find_bool(std::string_view key) const {
    const Value *value = find(key);
    if (value == nullptr) return {};
    if (value->array || value->type != value_bool) wrong_type(*value, "bool");
    return file_.data()[value->offset] != 0;
}

std::optional<std::string_view> Gguf::find_string(std::string_view key) const {
    const Value *value = find(key);
    if (value == nullptr) return {};
    if (value->array || value->type != value_string) wrong_type(*value, "string");
    Cursor in(file_.data() + value->offset, value->bytes, path());
    return in.read_string("string");
}

const Gguf::Value *Gguf::find_array(std::string_view key, const char *expected) const {
    const Value *value = find(key);
    if (value != nullptr && !value->array) wrong_type(*value, expected);
    return value;
}

std::optional<std::vector<std::string_view>> Gguf::find_strings(std::string_view key) const {
    const Value *value = find_array(key, "array of string");
    if (value == nullptr) return {};
    if (value->type != value_string) wrong_type(*value, "array of string");
    Cursor in(file_.data() + value->offset, value->bytes, path());
    std::vector<std::string_view> strings(value->count);
    for (std::string_view &text : strings) text = in.read_string("string");
    return strings;
}

std::optional<std::vector<float>> Gguf::find_floats(std::string_view key) const {
    const Value *value = find_array(key, "array of f32");
    if (value == nullptr) return {};
    if (value->type != value_f32) wrong_type(*value, "array of f32");
    std::vector<float> floats(value->count);
    if (!floats.empty()) memcpy(floats.data(), file_.data() + value->offset, floats.size() * sizeof(float));
    return floats;
}

std::optional<std::vector<int64_t>> Gguf::find_integers(std::string_view key) const {
    const Value *value = find_array(key, "array of integers");
    if (value == nullptr) return {};
    if (!is_integer(value->type) && value->type != value_bool) wrong_type(*value, "array of integers");
    std::vector<int64_t> integers(value->count);
    for (uint64_t i = 0; i < value->count; ++i) integers[i] = integer_at(*value, i);
    return integers;
}

} // namespace finetune
