#include "tokenizer.h"

#include "unicode.h"

#include <cstring>

namespace finetune {
namespace {

int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

} // namespace

int byte_value(std::string_view piece) {
    if (piece.size() != 6 || piece.substr(0, 3) != "<0x" || piece[5] != '>') return -1;
    const int high = hex_digit(piece[3]), low = hex_digit(piece[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

Tokenizer::Tokenizer(Vocabulary vocabulary) : vocabulary_(std::move(vocabulary)) {
    vocabulary_.check();
    std::vector<std::pair<std::string_view, int32_t>> whole, controls;
    for (int32_t id = 0; id < size(); ++id) {
        const int64_t type = vocabulary_.types[size_t(id)];
        if (type == piece_user_defined) whole.emplace_back(piece(id), id);
        if (type == piece_control || type == piece_user_defined) controls.emplace_back(piece(id), id);
        if (type == piece_unknown && vocabulary_.unknown < 0) vocabulary_.unknown = id;
    }
    whole_ = Trie(std::move(whole));
    controls_ = Trie(std::move(controls));
    switch (vocabulary_.kind) {
    case TokenizerKind::sentencepiece_pairs:
        family_ = make_sentencepiece_pairs(vocabulary_);
        break;
    case TokenizerKind::unigram:
        family_ = make_unigram(vocabulary_);
        break;
    case TokenizerKind::byte_pairs:
        family_ = make_byte_pairs(vocabulary_);
        break;
    }
}

int32_t Tokenizer::find(std::string_view piece) const {
    int32_t id = -1;
    return !piece.empty() && controls_.longest(piece, 0, &id) == piece.size() ? id : -1;
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, std::string_view markup, bool add_prefix) const {
    std::vector<int32_t> ids;
    const bool prefix = add_prefix && vocabulary_.adds_prefix;
    const Trie &trie = markup.empty() ? whole_ : controls_;
    size_t plain = 0; // start of the text not yet encoded
    const auto encode_plain = [&](std::string_view part, bool begins) {
        if (vocabulary_.composes) family_->encode(composed(part), begins, ids);
        else family_->encode(part, begins, ids);
    };
    bool first = prefix;
    for (size_t i = 0; i < text.size() && !trie.empty();) {
        int32_t id = -1;
        size_t bytes = 0;
        trie.each(text, i, [&](size_t length, int32_t found) {
            const bool control = vocabulary_.types[size_t(found)] == piece_control;
            if (control && memchr(markup.data() + i, 0, length) != nullptr) return;
            id = found;
            bytes = length;
        });
        if (bytes == 0) {
            ++i;
            continue;
        }
        if (i > plain) encode_plain(text.substr(plain, i - plain), first);
        ids.push_back(id);
        i += bytes;
        const bool control = vocabulary_.types[size_t(id)] == piece_control;
        if (control && vocabulary_.control_trims && id != vocabulary_.begin && piece(id) != "<|endoftext|>")
            while (i < text.size() && strchr(" \t\n\v\f\r", text[i]) != nullptr && text[i] != 0) ++i;
        plain = i;
        first = vocabulary_.adds_prefix && !vocabulary_.prefix_first_only;
    }
    if (plain < text.size()) encode_plain(text.substr(plain), first);
    return ids;
}

std::string Tokenizer::decode(const std::vector<int32_t> &ids, bool trim) const {
    std::string text;
    for (int32_t id : ids) {
        if (id < 0 || id >= size()) fail("token ", id, " is outside the vocabulary of ", size());
        const int64_t type = vocabulary_.types[size_t(id)];
        if (type != piece_control && type != piece_unknown) family_->decode(id, text);
    }
    return trim && vocabulary_.adds_prefix && !text.empty() && text[0] == ' ' ? text.substr(1) : text;
}

} // namespace finetune
