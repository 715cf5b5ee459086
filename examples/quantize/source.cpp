#include "source.h"

#include "format_choice.h"

#include <cctype>
#include <cstring>

namespace quantize {
namespace {

bool begins_with_magic(const std::string &path) {
    if (is_directory(path)) return false;
    const MappedFile file(path);
    return file.size() >= 4 && memcmp(file.data(), "GGUF", 4) == 0;
}

std::string lower(std::string text) {
    for (char &c : text) c = static_cast<char>(tolower(static_cast<unsigned char>(c)));
    return text;
}

} // namespace

uint64_t SourceTensor::bytes() const {
    uint64_t bytes = gguf != nullptr ? gguf->bytes : 0;
    for (const SafeTensor *part : parts) bytes += part->bytes;
    return bytes;
}

bool SourceTensor::is_linear() const {
    const std::string ending = ".weight";
    const bool weight_name =
        name.size() > ending.size() && name.compare(name.size() - ending.size(), ending.size(), ending) == 0;
    const bool in_block = name.rfind("blk.", 0) == 0 || name.find(".layers.") != std::string::npos ||
                          name.rfind("layers.", 0) == 0 || name.find(".h.") != std::string::npos;
    // A router chooses experts by small differences: never quantized unasked.
    const bool other = name.find("norm") != std::string::npos || name.find("ffn_gate_inp") != std::string::npos;
    return is_matrix() && shape.size() == 2 && weight.rows > 1 && weight_name && in_block && !other;
}

Source::Source(const std::string &path) : path_(path) {
    if (begins_with_magic(path)) {
        gguf_ = std::make_unique<Gguf>(path);
        for (const GgufTensor &tensor : gguf_->tensors()) {
            SourceTensor one;
            one.name = std::string(tensor.name);
            for (uint32_t d = tensor.dims; d > 0; --d) one.shape.push_back(tensor.ne[d - 1]);
            one.type = lower(tensor.type->name);
            one.weight = view_weight(*gguf_, tensor);
            one.elements = tensor.elements;
            one.gguf = &tensor;
            tensors_.push_back(std::move(one));
        }
        mark_scales();
        return;
    }
    safetensors_ = std::make_unique<SafeTensors>(path);
    for (PackedTensor &tensor : read_packed(*safetensors_)) {
        SourceTensor one;
        one.name = tensor.name;
        one.shape = tensor.shape;
        one.type = tensor.weight.format == 0 ? lower(tensor.parts[0]->dtype) : format_name(tensor.weight.format);
        one.weight = std::move(tensor.weight);
        for (uint64_t size : one.shape) one.elements *= size;
        one.parts = std::move(tensor.parts);
        tensors_.push_back(std::move(one));
    }
}

void Source::mark_scales() {
    for (SourceTensor &tensor : tensors_) {
        if (tensor.weight.tensor_scale == 0) continue;
        const GgufTensor *scale = find_tensor_scale(*gguf_, *tensor.gguf);
        for (SourceTensor &other : tensors_) other.is_scale = other.is_scale || other.gguf == scale;
    }
}

uint64_t Source::bytes() const {
    uint64_t bytes = 0;
    for (const SourceTensor &tensor : tensors_) bytes += tensor.bytes();
    return bytes;
}

} // namespace quantize
