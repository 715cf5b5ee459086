// A base and adapters, ready to compute: what eval, generate and chat begin with.
#pragma once

#include "adapter_options.h"
#include "batch.h"
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
    std::vector<size_t> all() const; // adapters
};

// Some of the adapters, by number, on the device; none: the base alone.
struct LoadedAdapter {
    AdapterShape shape;
    Adapter values;
    Trainable trainable;

    LoadedAdapter(Device &device, const LoadedFiles &files, const std::vector<size_t> &which);

private:
    LoadedAdapter(Device &device, std::pair<AdapterShape, Adapter> made);
};

// Windows of a text file, or of token ids FILE.safetensors:NAME; none where neither is given. most: of the tokens; 0: all.
std::vector<Batch> perplexity_windows(const LoadedFiles &files, const std::string &text, const std::string &token_ids,
                                      uint32_t window, uint64_t most, uint64_t tokens_at_once);

// Linear layers as --quant says; as they are without.
Model load_model(Device &device, const CommonOptions &options, const BaseModel &base);

} // namespace finetune
