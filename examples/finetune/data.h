// Training data as token ids. A row is a prompt and an answer; the loss counts the answer's tokens only, and an answer
// read from text ends with the token that ends a text or a turn.
#pragma once

#include "tokenizer.h"

#include <map>
#include <string>
#include <utility>
#include <vector>

namespace finetune {

struct Row {
    std::vector<int32_t> prompt, answer;
    // Tokens [first, end) of the answer that are given, not learned: what others say between two answers.
    std::vector<std::pair<size_t, size_t>> given;
    std::vector<Row> packed; // further rows that are computed with this one, none of which sees another

    size_t tokens() const { return prompt.size() + answer.size(); } // without the packed ones
    size_t losses() const {
        size_t count = answer.size();
        for (const auto &[first, end] : given) count -= end - first;
        return count;
    }
    // The answer up to the first that others say.
    std::vector<int32_t> first_answer() const {
        return {answer.begin(), given.empty() ? answer.end() : answer.begin() + long(given[0].first)};
    }
    void truncate(size_t most_tokens); // of the answer's end
};

enum class TooLong { error, drop, truncate };

struct DataLimits {
    uint64_t sequence;   // most tokens of a row
    uint64_t vocabulary; // ids are below this
    TooLong too_long = TooLong::error;
    bool strict = false; // a broken row is an error, else it is dropped
};

struct Dataset {
    std::string source;
    std::vector<Row> rows;
    std::map<std::string, uint64_t> forms; // rows by what they looked like: "ShareGPT"
    std::string chat_template;             // that conversations were written with, if any
    uint64_t dropped = 0, truncated = 0;   // for their length
    uint64_t broken = 0;
    std::vector<std::string> broken_why; // of the first ones: "line 7: ..."
    uint64_t answer_tokens = 0, tokens = 0, longest = 0;

    void count(); // the last line of numbers again
};

// Rows of a file in whichever form they are: one JSON value a line, or a JSON array of them, with
//   messages: [{role, content}]                 OpenAI
//   conversations: [{from, value}]              ShareGPT
//   instruction (and input, system), output     Alpaca: "### Instruction:\n...\n\n### Input:\n...\n\n### Response:\n"
//   prompt, completion (or answer, response)    the prompt as it is
//   question, answer                            "### Question:\n...\n\n### Answer:\n"
//   text                                        every token counts
// or a plain text, cut into rows of the longest length. Conversations go through a chat template, `chat_template` as
// for ChatTemplate; the other forms too when it is neither empty nor "auto". Errors name file:line.
Dataset read_data(const std::string &path, const Tokenizer &tokenizer, const DataLimits &limits,
                  const std::string &chat_template = "auto");

// Takes a share of the rows, chosen at random by the seed, out of the data: at least one, and at least one stays.
Dataset split_off(Dataset &data, double fraction, uint64_t seed);

// Puts rows together that are computed at once, up to `tokens` tokens each, the longest first.
void pack(Dataset &data, uint64_t tokens);

// "32 rows of ShareGPT, 3 dropped: line 7: ..." and the lengths of rows, one line each.
std::string describe(const Dataset &data);
std::string describe_lengths(const Dataset &data);
// A row as text, what is learned between U+27E6 and U+27E7 (white square brackets), at most so many bytes of each part.
std::string marked(const Row &row, const Tokenizer &tokenizer, size_t most_bytes);

// "file.json:key": {"key": [[[prompt ids], [answer ids]], ...]}.
Dataset read_token_ids(const std::string &path_and_key, const DataLimits &limits);

// "file.safetensors:name": one long I32 or I64 sequence, for perplexity.
std::vector<int32_t> read_token_sequence(const std::string &path_and_name, uint64_t vocabulary);

} // namespace finetune
