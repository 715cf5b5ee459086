// Adapters as commands take them: FILE or FILE=WEIGHT, any number of them.
#pragma once

#include "adapter_file.h"

namespace CLI {
class App;
}

namespace finetune {

struct AdapterOptions {
    std::vector<std::string> texts;
    double alpha = -1; // for PEFT's files without a config

    std::string name(size_t which) const; // for people: "0.5 b.gguf"
    std::string names() const;            // "a.gguf + 0.5 b.gguf"
    std::vector<AdapterFile> read(std::vector<double> *weights) const;
};

void add_adapter_options(CLI::App &app, AdapterOptions &options, bool required);

} // namespace finetune
