// Random weights to files, tensor by tensor: what is in memory at a time is one tensor.
#pragma once

#include "shape.h"

namespace random_model {

struct Job {
    Shape shape;
    std::string type, out, tokenizer; // tokenizer: a GGUF file whose tokenizer the model gets; empty: none
    uint64_t seed = 1;
    uint32_t threads = 0;
    bool empty = false; // a GGUF file whose values are holes, for plans: it takes next to no room on the disk
};

// Returns the bytes of the model file. `out` is a GGUF file if its name ends so, which takes ggml's types; else a Hugging
// Face directory with config.json and model.safetensors, which takes floats and bitsandbytes' formats.
uint64_t write_model(const Job &job);

} // namespace random_model
