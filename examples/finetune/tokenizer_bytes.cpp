// Byte-level byte pairs, as in GPT-2: a text is cut into words, and in a word bytes merge by rank. Pieces are spelled
// with a printable character for each byte.
#include "merges.h"
#include "pre_tokenizer.h"
#include "tokenizer.h"
#include "utf8.h"

#include <algorithm>
#include <unordered_map>

namespace finetune {
namespace {

// GPT-2's table: printable Latin-1 bytes are themselves, the others in turn U+0100 and up.
uint32_t byte_character(int byte) {
    const auto printable = [](int b) { return (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae; };
    if (printable(byte)) return static_cast<uint32_t>(byte);
    uint32_t code = 0x100;
    for (int b = 0; b < byte; ++b) code += !printable(b);
    return code;
}

class BytePairs : public TokenizerFamily {
public:
    explicit BytePairs(const Vocabulary &vocabulary)
        : vocabulary_(vocabulary),
          words_(vocabulary.words.empty() ? PreTokenizer(vocabulary.patterns, vocabulary.whole_words, vocabulary.source)
                                          : PreTokenizer(vocabulary.words, vocabulary.source)) {
        std::fill(std::begin(values_), std::end(values_), -1);
        std::fill(std::begin(bytes_), std::end(bytes_), -1);
        std::unordered_map<std::string_view, int32_t> ids;
        ids.reserve(vocabulary.pieces.size());
        for (size_t i = 0; i < vocabulary.pieces.size(); ++i)
            if (vocabulary.types[i] == piece_normal || vocabulary.types[i] == piece_user_defined)
                ids.emplace(vocabulary.pieces[i], static_cast<int32_t>(i));
        for (int byte = 0; byte < 256; ++byte) {
            const uint32_t code = byte_character(byte);
            values_[code] = static_cast<int16_t>(byte);
            std::string spelled;
            append_character(spelled, code);
            const auto found = ids.find(spelled);
            if (found != ids.end()) bytes_[byte] = found->second;
        }
        if (vocabulary.merges.size() > INT32_MAX - 1) vocabulary.reject("more than 2^31 merges");
        merges_.reserve(vocabulary.merges.size());
        for (size_t rank = 0; rank < vocabulary.merges.size(); ++rank) {
            const std::string &merge = vocabulary.merges[rank];
            const size_t space = merge.find(' ', 1);
            if (space == std::string::npos || space + 1 == merge.size())
                vocabulary.reject("merge ", rank, " ", shown(merge), ": expected two tokens with a space between");
            const auto left = ids.find(std::string_view(merge).substr(0, space));
            const auto right = ids.find(std::string_view(merge).substr(space + 1));
            const auto both = ids.find(merge.substr(0, space) + merge.substr(space + 1));
            if (left == ids.end() || right == ids.end() || both == ids.end()) continue; // of no use in this vocabulary
            merges_.add(left->second, right->second, static_cast<int32_t>(rank), both->second);
        }
        if (words_.whole_words())
            for (const auto &[piece, id] : ids) whole_.emplace(spelled_bytes(piece), id);
    }

    void encode(std::string_view text, bool prefix, std::vector<int32_t> &out) const override {
        std::string with_space;
        if (prefix && !text.empty() && text[0] != ' ') text = with_space = " " + std::string(text);
        std::vector<Symbol> symbols;
        words_.split(text, [&](std::string_view word) { encode_word(word, symbols, out); });
    }

    void decode(int32_t id, std::string &out) const override {
        const std::string &piece = vocabulary_.pieces[size_t(id)];
        out += vocabulary_.types[size_t(id)] == piece_normal ? spelled_bytes(piece) : piece;
    }

private:
    std::string spelled_bytes(std::string_view piece) const {
        std::string bytes;
        for (size_t i = 0; i < piece.size();) {
            uint32_t code = 0;
            const size_t length = std::max<size_t>(read_character(piece, i, &code), 1);
            if (code < characters && values_[code] >= 0) bytes += static_cast<char>(values_[code]);
            else bytes += piece.substr(i, length);
            i += length;
        }
        return bytes;
    }

    void encode_word(std::string_view word, std::vector<Symbol> &symbols, std::vector<int32_t> &out) const {
        if (!whole_.empty() && word.size() <= longest_whole) {
            scratch_.assign(word);
            const auto found = whole_.find(scratch_);
            if (found != whole_.end()) return out.push_back(found->second);
        }
        symbols.clear();
        for (unsigned char byte : word) symbols.push_back({bytes_[byte], 1});
        if (symbols.size() > 1) merges_.apply(symbols);
        for (const Symbol &symbol : symbols)
            // A byte that the vocabulary has no token for is left out, as everywhere.
            if (symbol.id >= 0) out.push_back(symbol.id);
    }

    static constexpr uint32_t characters = 0x180;
    static constexpr size_t longest_whole = 512;

    const Vocabulary &vocabulary_;
    PreTokenizer words_;
    Merges merges_;
    std::unordered_map<std::string, int32_t> whole_; // by bytes, where words that are tokens are taken whole
    mutable std::string scratch_;
    int32_t bytes_[256];
    int16_t values_[characters];
};

} // namespace

std::unique_ptr<TokenizerFamily> make_byte_pairs(const Vocabulary &vocabulary) {
    return std::make_unique<BytePairs>(vocabulary);
}

} // namespace finetune
