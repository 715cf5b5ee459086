// A base and adapters, ready to compute: what eval, generate and chat begin with.
#pragma once

#include "adapter_options.h"
#include "options_common.h"
#include "tokenizer.h"

namespace finetune {

// Files are read and checked before the device is touched.
struct LoadedFiles {
    BaseModel base;
    std::unique_ptr<Tokenizer> tokenizer;
    std::vector<double> weights;
    std::vector<AdapterFile> adapters;

    LoadedFiles(const CommonOptions &options, const AdapterOptions &adapters, bool needs_text);
};

// Base and all adapters, or the base alone.
struct LoadedAdapter {
    AdapterShape shape;
    Adapter values;
    Trainable trainable;

    LoadedAdapter(Device &device, const LoadedFiles &files, bool with_adapters);

private:
    LoadedAdapter(Device &device, std::pair<AdapterShape, Adapter> made);
};

// Linear layers as --quant says; as they are without.
Model load_model(Device &device, const CommonOptions &options, const BaseModel &base);

} // namespace finetune
