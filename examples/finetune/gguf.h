// GGUF files, version 2 and 3, little-endian: a reader that trusts nothing and a writer whose files appear complete or
// not at all. The reader maps the file and hands out views; every count, size and offset is checked at opening, so that
// a tensor's `data` can be used without further thought while the object lives.
#pragma once

#include "error.h"
#include "file.h"

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace finetune {

class Cursor;

// ggml's tensor types: elements per block and bytes per block. Null for a type that is unknown or was removed.
struct TensorType {
    uint32_t id;
    const char *name;
    uint32_t block;
    uint32_t bytes;
};
const TensorType *find_tensor_type(uint32_t id);

enum : uint32_t { type_f32 = 0, type_f16 = 1, type_bf16 = 30 };

struct GgufTensor {
    std::string_view name;
    const TensorType *type;
    uint32_t dims;
    uint64_t ne[4]; // ne[0] is contiguous: the inputs of a linear layer; unused ones are 1
    uint64_t elements;
    uint64_t bytes;
    const uint8_t *data;
};

class Gguf {
public:
    // A file, or the first of the parts that a model is split into: the others are found by their names.
    explicit Gguf(const std::string &path);

    const std::string &path() const { return file_.path(); }
    uint32_t version() const { return version_; }
    const std::vector<GgufTensor> &tensors() const { return tensors_; }
    const GgufTensor *find_tensor(std::string_view name) const;
    const GgufTensor &tensor(std::string_view name) const; // throws when absent

    // Values by key. Absent: no value. Present with another type: an Error that names both types.
    bool has(std::string_view key) const { return find(key) != nullptr; }
    std::optional<uint64_t> find_unsigned(std::string_view key) const; // any integer type, not negative
    std::optional<double> find_float(std::string_view key) const;      // f32 or f64, finite
    std::optional<bool> find_bool(std::string_view key) const;
    std::optional<std::string_view> find_string(std::string_view key) const;
    std::optional<std::vector<std::string_view>> find_strings(std::string_view key) const;
    std::optional<std::vector<float>> find_floats(std::string_view key) const;
    std::optional<std::vector<int64_t>> find_integers(std::string_view key) const; // bools are 0 and 1
    bool is_array(std::string_view key) const;

    // Keys in the file's order, and the bytes of a key with its value, as a writer may repeat them.
    std::vector<std::string_view> keys() const;
    std::string_view entry(std::string_view key) const;

    template <class... Parts> [[noreturn]] void reject(const Parts &...parts) const { fail(path(), ": ", parts...); }

private:
    Gguf(const std::string &path, bool part);
    void join_parts();

    struct Value {
        std::string_view key;
        uint32_t type; // of the value, or of the elements
        bool array;
        uint64_t count;  // elements of an array
        uint64_t offset; // of the value, or of the first element
        uint64_t bytes;  // of the value, or of all elements
        uint64_t begin;  // of the entry, its key included
    };

    void parse();
    void parse_values(Cursor &in, uint64_t count);
    void parse_tensors(Cursor &in, uint64_t count);
    void place_tensors(uint64_t data_start, const std::vector<uint64_t> &offsets, uint64_t alignment);
    uint64_t read_alignment() const;
    const Value *find(std::string_view key) const;
    const Value *find_array(std::string_view key, const char *expected) const;
    [[noreturn]] void wrong_type(const Value &value, const char *expected) const;
    int64_t integer_at(const Value &value, uint64_t index) const;

    MappedFile file_;
    uint32_t version_ = 0;
    std::vector<Value> values_;
    std::unordered_map<std::string_view, size_t> value_index_;
    std::vector<GgufTensor> tensors_;
    std::unordered_map<std::string_view, size_t> tensor_index_;
    std::vector<std::unique_ptr<Gguf>> parts_; // after the first
};

// Collects keys and tensors, then writes one file. Tensor data must stay valid until save(), or is brought to it.
class GgufWriter {
public:
    void add_string(std::string_view key, std::string_view value);
    void add_u32(std::string_view key, uint32_t value);
    void add_f32(std::string_view key, float value);
    void add_entry(std::string_view entry); // of Gguf::entry
    void add_tensor(std::string_view name, uint32_t type, std::vector<uint64_t> ne, const void *data);
    void save(const std::string &path) const;
    // produce(i) gives the bytes of tensor i, valid until the next call.
    void save(const std::string &path, const std::function<const void *(size_t)> &produce) const;
    uint64_t file_bytes() const; // exactly

private:
    struct Tensor {
        std::string name;
        const TensorType *type;
        std::vector<uint64_t> ne;
        const void *data;
        uint64_t bytes;
    };
    void add_key(std::string_view key, uint32_t type);
    std::string head() const;

    std::string values_;
    uint64_t value_count_ = 0;
    std::vector<Tensor> tensors_;
};

} // namespace finetune
