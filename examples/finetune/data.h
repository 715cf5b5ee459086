// Instruction data as token ids. A row is a prompt and an answer; the loss counts the answer's tokens only, and an
// answer read from text ends with the end-of-text token.
#pragma once

#include "tokenizer.h"

#include <string>
#include <vector>

namespace finetune {

struct Row {
    std::vector<int32_t> prompt, answer;
    std::string prompt_text, answer_text; // empty when the data were token ids

    size_t tokens() const { return prompt.size() + answer.size(); }
};

enum class TooLong { error, drop, truncate };

struct DataLimits {
    uint64_t sequence;   // most tokens of a row
    uint64_t vocabulary; // ids are below this
    TooLong too_long = TooLong::error;
};

struct Dataset {
    std::string source;
    std::vector<Row> rows;
    uint64_t dropped = 0, truncated = 0;
    uint64_t answer_tokens = 0, tokens = 0, longest = 0;
};

// One JSON object a line, blank lines skipped. Keys, the first pair that is present:
//   prompt, answer (or completion)        the prompt as it is
//   instruction (and input), output       "### Instruction:\n...\n\n### Input:\n...\n\n### Response:\n"
//   question, answer                      "### Question:\n...\n\n### Answer:\n"
// Errors name file:line.
Dataset read_jsonl(const std::string &path, const Tokenizer &tokenizer, const DataLimits &limits);

// "file.json:key": {"key": [[[prompt ids], [answer ids]], ...]}.
Dataset read_token_ids(const std::string &path_and_key, const DataLimits &limits);

// "file.safetensors:name": one long I32 or I64 sequence, for perplexity.
std::vector<int32_t> read_token_sequence(const std::string &path_and_name, uint64_t vocabulary);

} // namespace finetune
