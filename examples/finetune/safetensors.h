// safetensors files: u64 header length, a JSON object of names, then the tensors without hole or overlap. The reader
// maps the file and checks everything at opening. A model in shards is a directory with model.safetensors.index.json,
// {"weight_map": {tensor: file}}; it reads like one file.
#pragma once

#include "error.h"
#include "file.h"

#include <functional>
#include <map>
#include <string>
#include <unordered_map>
#include <vector>

namespace finetune {

struct SafeTensor {
    std::string name;
    std::string dtype; // "F32", "F16", "BF16", "I32", ...
    std::vector<uint64_t> shape;
    uint64_t elements;
    uint64_t bytes;
    const uint8_t *data;
};

class SafeTensors {
public:
    // A file, or a directory with model.safetensors or with shards and their index.
    explicit SafeTensors(const std::string &path);

    const std::string &path() const { return path_; }
    std::string folder() const; // of the file, with its slash; "" when it is the current one
    const std::vector<SafeTensor> &tensors() const { return tensors_; } // of each file in order of name
    const std::string *metadata(const std::string &key) const;          // null when absent
    const std::map<std::string, std::string> &all_metadata() const { return metadata_; }
    const SafeTensor *find(const std::string &name) const;
    const SafeTensor &get(const std::string &name) const; // throws when absent

    template <class... Parts> [[noreturn]] void reject(const Parts &...parts) const { fail(path(), ": ", parts...); }

    // A tensor's values: F32, F16 or BF16 as f32; I32 or I64 as i32.
    std::vector<float> floats(const SafeTensor &tensor) const;
    std::vector<int32_t> integers(const SafeTensor &tensor) const;

private:
    void open(const std::string &path);
    void open_shards(const std::string &index_path);

    std::string path_;
    std::vector<MappedFile> files_;
    std::vector<SafeTensor> tensors_;
    std::unordered_map<std::string, size_t> index_;
    std::map<std::string, std::string> metadata_;
};

class SafeTensorsWriter {
public:
    // Data must stay valid until save(), or is brought to it.
    void add_f32(const std::string &name, std::vector<uint64_t> shape, const float *data);
    void add(const std::string &name, const std::string &dtype, std::vector<uint64_t> shape, const void *data);
    void add_metadata(const std::string &key, const std::string &value) { metadata_.emplace_back(key, value); }
    void save(const std::string &path) const;
    // produce(i) gives the bytes of tensor i, valid until the next call.
    void save(const std::string &path, const std::function<const void *(size_t)> &produce) const;
    uint64_t file_bytes() const; // exactly

private:
    std::string head() const;

    std::vector<SafeTensor> tensors_;
    std::vector<std::pair<std::string, std::string>> metadata_;
};

} // namespace finetune
