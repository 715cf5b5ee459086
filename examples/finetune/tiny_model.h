// A small model of random weights, the same on every machine, for checks that need one.
#pragma once

#include <string>

namespace finetune {

// Writes a GGUF file: two blocks of the llama architecture, F16.
void write_tiny_model(const std::string &path);

} // namespace finetune
