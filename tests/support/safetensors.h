// Reads a safetensors file whole into memory.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace test {

struct SafeTensor {
    std::string type; // "F32", "BF16", "U8"
    std::vector<uint64_t> shape;
    std::vector<uint8_t> bytes;

    uint64_t count() const;
    std::vector<float> floats() const; // F64, F32, F16, BF16 as f32
    std::vector<double> doubles() const;
};

// Throws std::runtime_error with the path and the reason.
std::map<std::string, SafeTensor> read_safetensors(const std::string &path, std::map<std::string, std::string> *metadata = nullptr);

// "F32" -> QLORA_FORMAT_F32, and "f32" as well; 0 when it is none of the activations' types.
int32_t activation_type(const std::string &name);

// The folder of golden files made elsewhere: QLORA_SHARED, else what the build was told. Empty when it is not there.
std::string golden_folder();

} // namespace test
