// SentencePiece byte-pair tokenizer, from the keys of a GGUF model ("tokenizer.ggml.model" = "llama") or from a
// tokenizer.model file: pieces with scores, byte fallback, U+2581 for the space. Time is near linear in the text: a heap of candidate merges.
#pragma once

#include "gguf.h"

namespace finetune {

// The pieces of a SentencePiece model outside a GGUF file.
struct Vocabulary {
    std::string source; // for messages
    std::vector<std::string> pieces;
    std::vector<float> scores;
    std::vector<int64_t> types; // as in GGUF and SentencePiece alike: 1 normal ... 6 byte
    int32_t begin = -1, end = -1, unknown = -1;
    bool adds_begin = true, adds_prefix = true;

    // A piece at a place that may lie beyond the last; what is skipped is never produced.
    void place(uint64_t id, const std::string &piece, int64_t type);
};

// Reads tokenizer.model: byte-pair models only.
Vocabulary read_sentencepiece(const std::string &path);

class Tokenizer {
public:
    // `model` must outlive the tokenizer: the pieces are views of the file.
    explicit Tokenizer(const Gguf &model);
    explicit Tokenizer(Vocabulary vocabulary);
    Tokenizer(const Tokenizer &) = delete;
    Tokenizer &operator=(const Tokenizer &) = delete;

    // With add_prefix the text gets the leading space that begins a sentence (when the model wants one at all). Control
    // tokens spelled in the text, such as "</s>", are ordinary text here: data cannot forge them. User-defined ones
    // match.
    std::vector<int32_t> encode(std::string_view text, bool add_prefix = true) const;
    // Control tokens are left out; the space that begins a sentence is removed when `trim` is set.
    std::string decode(const std::vector<int32_t> &ids, bool trim = false) const;

    int32_t size() const { return static_cast<int32_t>(pieces_.size()); }
    int32_t begin_token() const { return begin_; }
    int32_t end_token() const { return end_; }
    bool adds_begin() const { return adds_begin_; }

private:
    void encode_plain(std::string_view text, bool prefix, std::vector<int32_t> &out) const;
    void index_pieces(const std::string &source, const std::vector<int64_t> &types);

    std::vector<std::string> own_pieces_; // where no file holds them
    std::vector<std::string_view> pieces_;
    std::vector<float> scores_;
    std::vector<uint8_t> types_;
    std::unordered_map<std::string_view, int32_t> ids_; // pieces that merges may produce
    std::vector<std::string_view> user_defined_;        // longest first
    std::unordered_map<std::string_view, int32_t> user_defined_ids_;
    bool user_defined_first_[256] = {};
    int32_t bytes_[256];
    int32_t begin_ = -1, end_ = -1, unknown_ = -1;
    bool adds_begin_ = true, adds_prefix_ = true;
};

} // namespace finetune
