#include "adapter_options.h"

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdlib>

namespace finetune {
namespace {

// A file whose name has "=" in it may be given as it is.
std::string split(const std::string &text, double *weight) {
    *weight = 1;
    const size_t equals = text.rfind('=');
    if (equals == std::string::npos || equals == 0 || exists(text)) return text;
    char *end = nullptr;
    const std::string number = text.substr(equals + 1);
    *weight = strtod(number.c_str(), &end);
    if (number.empty() || *end != 0 || !std::isfinite(*weight))
        fail("--adapter ", shown(text), ": ", shown(number), " is not a weight; expected FILE or FILE=WEIGHT");
    return text.substr(0, equals);
}

} // namespace

std::string AdapterOptions::name(size_t which) const {
    double weight = 1;
    const std::string path = split(texts[which], &weight);
    std::ostringstream name;
    if (weight != 1) name << weight << " ";
    name << path.substr(path.find_last_of('/', path.size() < 2 ? 0 : path.size() - 2) + 1);
    return name.str();
}

std::string AdapterOptions::names() const {
    std::string all;
    for (size_t i = 0; i < texts.size(); ++i) all += (i == 0 ? "" : " + ") + name(i);
    return all;
}

std::vector<AdapterFile> AdapterOptions::read(std::vector<double> *weights) const {
    std::vector<AdapterFile> files;
    weights->clear();
    for (const std::string &text : texts) {
        weights->push_back(1);
        files.push_back(read_adapter_file(split(text, &weights->back()), alpha));
    }
    return files;
}

void add_adapter_options(CLI::App &app, AdapterOptions &o, bool required) {
    app.add_option("--adapter", o.texts,
                   "adapter: a GGUF file, PEFT's directory or its safetensors file; FILE=WEIGHT for a part of it. Several "
                   "add up")
        ->required(required)
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
        ->expected(1)
        ->group("Files");
    app.add_option("--alpha", o.alpha, "LoRA alpha of a safetensors adapter without adapter_config.json")->group("Files");
}

} // namespace finetune
