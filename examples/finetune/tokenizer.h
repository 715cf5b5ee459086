// Text to token ids and back, in the way of the model: one class, and one implementation for each kind of vocabulary in
// a file of its own. Time is near linear in the text, whatever the text is.
#pragma once

#include "trie.h"
#include "vocabulary.h"

#include <memory>

namespace finetune {

// What the kinds of vocabularies do differently: plain text, with all tokens that match as a whole already cut out.
class TokenizerFamily {
public:
    virtual ~TokenizerFamily() = default;
    // `prefix`: the text begins a sentence.
    virtual void encode(std::string_view text, bool prefix, std::vector<int32_t> &out) const = 0;
    virtual void decode(int32_t id, std::string &out) const = 0;
};
std::unique_ptr<TokenizerFamily> make_sentencepiece_pairs(const Vocabulary &vocabulary);
std::unique_ptr<TokenizerFamily> make_unigram(const Vocabulary &vocabulary);
std::unique_ptr<TokenizerFamily> make_byte_pairs(const Vocabulary &vocabulary);

// The text of a byte piece, "<0x0A>": its value, or -1 when it is none.
int byte_value(std::string_view piece);

// Not for several threads at once.
class Tokenizer {
public:
    explicit Tokenizer(const Gguf &model) : Tokenizer(read_vocabulary(model)) {}
    explicit Tokenizer(Vocabulary vocabulary);
    Tokenizer(const Tokenizer &) = delete;
    Tokenizer &operator=(const Tokenizer &) = delete;

    // With add_prefix the text gets the leading space that begins a sentence (when the model wants one at all). Control
    // tokens spelled in the text, such as "</s>", are ordinary text here: data cannot forge them. User-defined ones
    // match.
    std::vector<int32_t> encode(std::string_view text, bool add_prefix = true) const {
        return encode(text, {}, add_prefix);
    }
    // Control tokens match where every byte of theirs is marked as markup: `markup` is as long as the text, its bytes
    // are not zero where a template wrote the text.
    std::vector<int32_t> encode(std::string_view text, std::string_view markup, bool add_prefix) const;
    // Control tokens are left out; the space that begins a sentence is removed when `trim` is set.
    std::string decode(const std::vector<int32_t> &ids, bool trim = false) const;
    // As the vocabulary spells it.
    const std::string &piece(int32_t id) const { return vocabulary_.pieces.at(size_t(id)); }
    // The id of a control or user-defined token, or -1.
    int32_t find(std::string_view piece) const;
    bool is_control(int32_t id) const { return vocabulary_.types.at(size_t(id)) == piece_control; }

    int32_t size() const { return static_cast<int32_t>(vocabulary_.pieces.size()); }
    int32_t begin_token() const { return vocabulary_.begin; }
    int32_t end_token() const { return vocabulary_.end; }
    int32_t turn_end_token() const { return vocabulary_.turn_end; } // of one turn of a conversation; -1: not said
    bool adds_begin() const { return vocabulary_.adds_begin && vocabulary_.begin >= 0; }
    const std::string &chat_template() const { return vocabulary_.chat_template; }
    const std::string &source() const { return vocabulary_.source; }
    TokenizerKind kind() const { return vocabulary_.kind; }
    const std::string &words() const { return vocabulary_.words; } // the pre-tokenizer's name, or empty

private:
    Vocabulary vocabulary_;
    Trie whole_;    // user-defined tokens
    Trie controls_; // these and control tokens
    std::unique_ptr<TokenizerFamily> family_;
};

} // namespace finetune
