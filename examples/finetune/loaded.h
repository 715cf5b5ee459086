// A base and adapters, read and ready to be planned for: what eval, generate, chat and merge begin with.
#pragma once

#include "adapter_options.h"
#include "batch.h"
#include "options_common.h"
#include "planner.h"
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
    // Some of the adapters, by number, as one; none: the base alone.
    TunedAdapter tuned(const std::vector<size_t> &which) const;
};

// A task that trains nothing, of the first of `adapters` and then of the others, which outlive it. Linear layers become what
// --quant says; without, they stay as they are.
Task untrained_task(const CommonOptions &options, const std::vector<TunedAdapter> &adapters);

// Tokens of a text file, or token ids FILE.safetensors:NAME, for windows of a perplexity; none where neither is given. most: of
// the tokens; 0: all.
std::vector<int32_t> perplexity_tokens(const LoadedFiles &files, const std::string &text, const std::string &token_ids, uint32_t window,
                                       uint64_t most);

} // namespace finetune
