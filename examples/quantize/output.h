// The layout of the file to write: known, to the byte, before any value is.
#pragma once

#include "plan.h"

#include <functional>

namespace quantize {

class Output {
public:
    // keys: where a GGUF file's keys come from; null for none.
    Output(std::vector<Choice> choices, Container container, const Gguf *keys, uint32_t gptq_version = 0);

    uint64_t file_bytes() const {
        return container_ == Container::gguf ? gguf_.file_bytes() : safetensors_.file_bytes();
    }
    const std::vector<Choice> &choices() const { return choices_; } // in the order of the file

    // A tensor of the file: bytes that are there already, or a part of a weight.
    struct Slot {
        size_t choice;
        const void *data;
        PackedPart part;
    };
    // produce(slot) gives the bytes of slots without data, valid until the next call. A weight's slots are neighbours.
    using Produce = std::function<const void *(const Slot &)>;
    void save(const std::string &path, const Produce &produce) const;

private:
    void lay_out_gguf(const Gguf *keys);
    void lay_out_safetensors();

    void add_gptq_metadata();

    Container container_;
    uint32_t gptq_version_; // 0: that of the source, else 1
    std::vector<Choice> choices_;
    std::vector<Slot> slots_;
    GgufWriter gguf_;
    SafeTensorsWriter safetensors_;
};

} // namespace quantize
