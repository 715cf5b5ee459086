// The tensors of a model, a GGUF or safetensors file or a Hugging Face directory, in one form.
#pragma once

#include "packed.h"

#include <memory>

namespace quantize {

using namespace finetune;

struct SourceTensor {
    std::string name;
    std::vector<uint64_t> shape; // outermost first
    std::string type;            // for people
    StoredWeight weight;         // format 0: nothing that the library decodes; such a tensor is copied as it is
    uint64_t elements = 1;
    const GgufTensor *gguf = nullptr;
    bool is_scale = false; // of the tensor of its name, which has it in `weight` as well
    std::vector<const SafeTensor *> parts; // in a safetensors file

    uint64_t bytes() const;
    bool is_matrix() const { return weight.format != 0 && shape.size() >= 2; }
    // A weight of a linear layer inside a block, by its name and shape.
    bool is_linear() const;
};

class Source {
public:
    explicit Source(const std::string &path);

    const std::string &path() const { return path_; }
    const std::vector<SourceTensor> &tensors() const { return tensors_; }
    const Gguf *gguf() const { return gguf_.get(); } // null for safetensors
    uint64_t bytes() const;                          // of all tensors

private:
    void mark_scales();

    std::string path_;
    std::unique_ptr<Gguf> gguf_;
    std::unique_ptr<SafeTensors> safetensors_;
    std::vector<SourceTensor> tensors_;
};

} // namespace quantize
