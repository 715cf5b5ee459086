#include "importance.h"

#include "gguf.h"
#include "safetensors.h"

#include <cmath>
#include <cstring>

namespace quantize {
namespace {

std::vector<float> floats(const Gguf &file, const GgufTensor &tensor) {
    if (tensor.type->id != type_f32)
        file.reject("tensor ", shown(tensor.name), " is ", tensor.type->name, ", expected F32");
    std::vector<float> values(tensor.elements);
    memcpy(values.data(), tensor.data, tensor.bytes);
    return values;
}

} // namespace

Importance::Importance(const std::string &path) : path_(path) {
    bool is_gguf;
    {
        const MappedFile file(path);
        is_gguf = file.size() >= 4 && memcmp(file.data(), "GGUF", 4) == 0;
    }
    if (!is_gguf) {
        const SafeTensors file(path);
        for (const SafeTensor &tensor : file.tensors()) add(tensor.name, file.floats(tensor));
        return;
    }
    const Gguf file(path);
    const std::string sums = ".in_sum2", counts = ".counts";
    for (const GgufTensor &tensor : file.tensors()) {
        const std::string name(tensor.name);
        if (name.size() <= sums.size() || name.compare(name.size() - sums.size(), sums.size(), sums) != 0) continue;
        const std::string base = name.substr(0, name.size() - sums.size());
        std::vector<float> values = floats(file, tensor);
        const std::vector<float> count = floats(file, file.tensor(base + counts));
        if (tensor.ne[1] != 1 || count.size() != 1) continue; // a matrix for each expert
        if (!(count[0] > 0)) continue;                        // never seen
        for (float &value : values) value /= count[0];
        add(base, std::move(values));
    }
    if (vectors_.empty()) file.reject("holds no '", sums, "' tensors: not an importance matrix");
}

void Importance::add(const std::string &name, std::vector<float> values) {
    for (size_t i = 0; i < values.size(); ++i)
        if (!std::isfinite(values[i]) || values[i] < 0)
            fail(path_, ": tensor ", shown(name), ": element ", i, " is ", values[i],
                 ", expected a finite number from 0");
    vectors_.emplace(name, std::move(values));
}

const std::vector<float> *Importance::find(const std::string &name, uint64_t cols) const {
    const auto found = vectors_.find(name);
    if (found == vectors_.end()) return nullptr;
    if (found->second.size() != cols)
        fail(path_, ": tensor ", shown(name), " has ", found->second.size(), " values, the weight has ", cols,
             " columns");
    return &found->second;
}

} // namespace quantize
