// How much errors of a weight's columns matter, as measured on activations by some other program.
#pragma once

#include "error.h"

#include <string>
#include <unordered_map>
#include <vector>

namespace quantize {

using namespace finetune;

class Importance {
public:
    Importance() = default;
    // safetensors: an f32 vector by each tensor's name. GGUF: what llama.cpp's imatrix writes, sums of squares by
    // <name>.in_sum2 and how many were added by <name>.counts.
    explicit Importance(const std::string &path);

    // Null when the file says nothing about the tensor. Throws when it says something of another length.
    const std::vector<float> *find(const std::string &name, uint64_t cols) const;
    size_t size() const { return vectors_.size(); }

private:
    void add(const std::string &name, std::vector<float> values);

    std::string path_;
    std::unordered_map<std::string, std::vector<float>> vectors_;
};

} // namespace quantize
