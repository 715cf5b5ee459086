// The tokens of a model as its files list them: of a GGUF file, a SentencePiece tokenizer.model or a tokenizer.json.
#pragma once

#include "gguf.h"

namespace finetune {

enum class TokenizerKind {
    sentencepiece_pairs, // "llama": pieces with scores, byte fallback, U+2581 for the space
    unigram,             // "t5": the likeliest pieces
    byte_pairs           // "gpt2": bytes as characters, merges by rank inside words
};

enum : uint8_t {
    piece_normal = 1,
    piece_unknown = 2,
    piece_control = 3,
    piece_user_defined = 4,
    piece_unused = 5,
    piece_byte = 6
};

struct Vocabulary {
    TokenizerKind kind = TokenizerKind::sentencepiece_pairs;
    std::string source; // for messages
    std::vector<std::string> pieces;
    std::vector<float> scores;  // empty for byte pairs
    std::vector<int64_t> types; // as in GGUF and SentencePiece alike: 1 normal ... 6 byte
    int32_t begin = -1, end = -1, turn_end = -1, unknown = -1;
    bool adds_begin = true, adds_prefix = true;

    std::vector<std::string> merges; // of byte pairs: "left right", lowest rank first
    std::string words;               // of byte pairs: the name of the pre-tokenizer
    std::string character_map;       // of unigram: SentencePiece's precompiled normalization, or empty
    bool trims = false;              // of unigram: runs of spaces become one, none at the ends
    bool control_trims = false;      // white space after a control token is not text (Phi-3)
    std::string chat_template;       // the model's own, in Jinja; empty: none

    // What a tokenizer.json says beyond that. merges may be there for SentencePiece pairs too, in place of scores.
    std::vector<std::string> patterns;  // of byte pairs, in place of a name: cut by one after the other
    bool composes = false;              // texts are brought to Unicode's form C first
    bool whole_words = false;           // of byte pairs: a word that is a token is taken as such
    bool prefix_first_only = false;     // the space before a text is not added again after a special token
    bool prefix_unless_space = false;   // nor where there is one
    bool splits_at_spaces = false;      // of SentencePiece pairs: pieces hold no space but their first character

    // Whether a text that begins a sentence gets a space before it.
    bool takes_prefix(std::string_view text) const {
        return !prefix_unless_space || (text.substr(0, 1) != " " && text.substr(0, 3) != "\xe2\x96\x81");
    }
    // A piece at a place that may lie beyond the last; what is skipped is never produced.
    void place(uint64_t id, const std::string &piece, int64_t type);
    // Throws Error unless lengths, types, scores and ids agree.
    void check() const;
    template <class... Parts> [[noreturn]] void reject(const Parts &...parts) const { fail(source, ": ", parts...); }
};

Vocabulary read_vocabulary(const Gguf &model);
Vocabulary read_sentencepiece(const std::string &path);
// The tokenizer.json of Hugging Face's tokenizers. Parts that are not known are refused by their names.
Vocabulary read_tokenizer_json(const std::string &path);

} // namespace finetune
