#include "tests/support/safetensors.h"
#include "tests/support/numbers.h"

#include <nlohmann/json.hpp>

#include <cstdlib>
#include <fstream>
#include <stdexcept>

namespace test {

uint64_t SafeTensor::count() const {
    uint64_t product = 1;
    for (uint64_t size : shape) product *= size;
    return product;
}

std::vector<double> SafeTensor::doubles() const {
    std::vector<double> values(count());
    if (type == "F64") {
        if (bytes.size() != values.size() * 8) throw std::runtime_error("safetensors: size and shape disagree");
        if (!bytes.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
        return values;
    }
    const int32_t element = activation_type(type);
    if (!element) throw std::runtime_error("safetensors: type " + type + " where a float is needed");
    if (bytes.size() != values.size() * element_bytes(element)) throw std::runtime_error("safetensors: size and shape disagree");
    for (size_t i = 0; i < values.size(); i++) values[i] = load(element, bytes.data() + i * element_bytes(element));
    return values;
}

std::vector<float> SafeTensor::floats() const {
    const std::vector<double> wide = doubles();
    return std::vector<float>(wide.begin(), wide.end());
}

std::map<std::string, SafeTensor> read_safetensors(const std::string &path, std::map<std::string, std::string> *metadata) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error(path + ": cannot be opened");
    const std::vector<char> content((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    uint64_t header_bytes = 0;
    if (content.size() < 8) throw std::runtime_error(path + ": shorter than a safetensors header");
    std::memcpy(&header_bytes, content.data(), 8);
    if (header_bytes > content.size() - 8) throw std::runtime_error(path + ": the header passes the end of the file");
    const auto header = nlohmann::json::parse(content.begin() + 8, content.begin() + 8 + std::ptrdiff_t(header_bytes), nullptr, false);
    if (!header.is_object()) throw std::runtime_error(path + ": the header is no JSON object");

    const uint64_t data_bytes = content.size() - 8 - header_bytes;
    std::map<std::string, SafeTensor> tensors;
    for (const auto &entry : header.items()) {
        if (entry.key() == "__metadata__") {
            if (metadata) *metadata = entry.value().get<std::map<std::string, std::string>>();
            continue;
        }
        SafeTensor tensor;
        tensor.type = entry.value().at("dtype").get<std::string>();
        tensor.shape = entry.value().at("shape").get<std::vector<uint64_t>>();
        const uint64_t begin = entry.value().at("data_offsets").at(0), end = entry.value().at("data_offsets").at(1);
        if (begin > end || end > data_bytes) throw std::runtime_error(path + ": " + entry.key() + " passes the end of the file");
        const char *data = content.data() + 8 + header_bytes;
        tensor.bytes.assign(data + begin, data + end);
        tensors[entry.key()] = std::move(tensor);
    }
    return tensors;
}

int32_t activation_type(const std::string &name) {
    if (name == "F32" || name == "f32") return QLORA_FORMAT_F32;
    if (name == "F16" || name == "f16") return QLORA_FORMAT_F16;
    if (name == "BF16" || name == "bf16") return QLORA_FORMAT_BF16;
    return 0;
}

std::string golden_folder() {
    const char *given = std::getenv("QLORA_SHARED");
#ifdef QLORA_SHARED_DIR
    const std::string folder = std::string(given ? given : QLORA_SHARED_DIR) + "/golden";
#else
    const std::string folder = std::string(given ? given : "") + "/golden";
#endif
    return std::ifstream(folder + "/README.md") ? folder : "";
}

} // namespace test
