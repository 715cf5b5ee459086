// What becomes of each tensor, and what that costs.
#pragma once

#include "command.h"
#include "source.h"

namespace quantize {

enum class Container { gguf, safetensors };

struct Choice {
    const SourceTensor *tensor;
    bool linear;
    int32_t format;   // 0: copied as it is, for what the library does not decode
    uint32_t block;   // 0: the format's default
    bool asked;       // false: nobody named a format for it
    bool scaled = false; // NVFP4 with a scale per tensor
    std::string note; // why it is not the format that was asked for; "" when it is
    uint64_t outliers = 0; // of SpQR, once they are known

    // True when neither format nor block changes: nothing is rounded.
    bool same() const;
    // True when every byte of the file stays, foreign tables included.
    bool untouched() const { return same() && !(asked && tensor->weight.decoded); }
    uint64_t bytes() const; // of its planes
};

// `format` is that of linear weights, 0 as they are; rules and block are the command's. Throws for a format that the
// container cannot hold.
std::vector<Choice> choose(const Source &source, Container container, int32_t format, const Command &command);

struct Cost {
    uint64_t tensors = 0, values = 0, bytes = 0;
    double bits() const { return values == 0 ? 0 : 8 * double(bytes) / double(values); }
};
Cost linear_cost(const std::vector<Choice> &choices);

// A row for every format: bits of a linear weight, bytes of all of them, sizes of the files.
void print_plan(const Source &source, const Command &command, FILE *out);
// A row for every format that occurs.
void print_memory(const Source &source, const std::vector<Choice> &choices, FILE *out);

} // namespace quantize
