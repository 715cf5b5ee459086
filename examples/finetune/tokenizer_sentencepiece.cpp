// SentencePiece byte pairs: characters merge into pieces, the piece with the highest score first. There are no words:
// what cuts the text is that some neighbours occur side by side in no piece at all, so that no merge ever joins them.
#include "character_map.h"
#include "merges.h"
#include "tokenizer.h"
#include "utf8.h"

#include <algorithm>
#include <unordered_map>

namespace finetune {
namespace {

const uint32_t space_mark = 0x2581;
const uint32_t dense_characters = 0x10000;

class SentencePiecePairs : public TokenizerFamily {
public:
    explicit SentencePiecePairs(const Vocabulary &vocabulary)
        : vocabulary_(vocabulary), map_(vocabulary.character_map, vocabulary.source) {
        std::fill(std::begin(bytes_), std::end(bytes_), -1);
        for (size_t i = 0; i < vocabulary.pieces.size(); ++i) {
            const std::string &piece = vocabulary.pieces[i];
            const int32_t id = static_cast<int32_t>(i);
            if (vocabulary.types[i] == piece_byte) {
                const int value = byte_value(piece);
                if (value < 0)
                    vocabulary.reject("token ", i, " ", shown(piece), ": a byte token must read <0x00> to <0xFF>");
                bytes_[value] = id;
            } else if (vocabulary.types[i] == piece_normal && !piece.empty()) {
                ids_.emplace(piece, id);
            }
        }
        index_merges();
    }

    void encode(std::string_view text, bool prefix, std::vector<int32_t> &out) const override {
        std::string normal; // most models take the text as it is
        if (!vocabulary_.character_map.empty()) text = normal = map_.apply(text);
        if (vocabulary_.trims) text = normal = single_spaced(text);
        if (text.empty()) return;
        const size_t first = out.size();
        std::vector<Symbol> word;
        size_t start = 0; // of the word in the text; the prefix has no bytes there
        if (prefix && vocabulary_.takes_prefix(text)) word.push_back({character_symbol(space_mark), 0});
        const auto flush = [&](size_t end) {
            finish(word, text.substr(start, end - start), first, out);
            word.clear();
            start = end;
        };
        for (size_t i = 0; i < text.size();) {
            uint32_t code = 0;
            size_t bytes = read_character(text, i, &code);
            const int32_t id = bytes == 0 ? -1 : character_symbol(code == ' ' ? space_mark : code);
            bytes = std::max<size_t>(bytes, 1);
            const bool space = vocabulary_.splits_at_spaces && (code == ' ' || code == space_mark);
            if (!word.empty() && (space || !neighbours_.has(word.back().id, id))) flush(i);
            word.push_back({id, static_cast<uint32_t>(bytes)});
            i += bytes;
        }
        flush(text.size());
    }

    void decode(int32_t id, std::string &out) const override {
        const std::string &piece = vocabulary_.pieces[size_t(id)];
        if (vocabulary_.types[size_t(id)] == piece_byte) {
            out += static_cast<char>(byte_value(piece));
            return;
        }
        for (size_t i = 0; i < piece.size();) {
            const bool space = piece.compare(i, 3, "\xe2\x96\x81") == 0;
            out += space ? ' ' : piece[i];
            i += space ? 3 : 1;
        }
    }

private:
    // A piece, or a character that is no piece but part of one: those are numbered after the pieces. Others are -1.
    int32_t character_symbol(uint32_t code) const {
        if (code < dense_characters) return code < characters_.size() ? characters_[code] : -1;
        const auto found = rare_characters_.find(code);
        return found == rare_characters_.end() ? -1 : found->second;
    }

    void index_merges() {
        std::vector<float> scores; // distinct ones, falling: a place in them is a rank
        for (const auto &[piece, id] : ids_) scores.push_back(vocabulary_.scores[size_t(id)]);
        std::sort(scores.begin(), scores.end(), std::greater<float>());
        scores.erase(std::unique(scores.begin(), scores.end()), scores.end());

        characters_.assign(dense_characters, -1);
        int32_t next = static_cast<int32_t>(vocabulary_.pieces.size());
        for (const auto &[piece, id] : ids_)
            for (size_t i = 0; i < piece.size();) {
                uint32_t code = 0;
                const size_t bytes = read_character(piece, i, &code);
                if (bytes == 0) break; // never made from text
                i += bytes;
                int32_t *symbol =
                    code < dense_characters ? &characters_[code] : &rare_characters_.emplace(code, -1).first->second;
                if (bytes == piece.size()) *symbol = id;
                else if (*symbol < 0) *symbol = next++;
            }
        merges_.reserve(4 * ids_.size());
        neighbours_.reserve(ids_.size());
        if (!vocabulary_.merges.empty()) return index_listed_merges();
        std::vector<size_t> places;
        std::vector<int32_t> symbols;
        for (const auto &[piece, id] : ids_) {
            places.clear();
            symbols.clear();
            size_t end = 0;
            while (end < piece.size()) {
                uint32_t code = 0;
                const size_t bytes = read_character(piece, end, &code);
                if (bytes == 0) break;
                places.push_back(end);
                symbols.push_back(character_symbol(code));
                end += bytes;
            }
            if (end < piece.size()) continue;
            const float score = vocabulary_.scores[size_t(id)];
            const int32_t rank = static_cast<int32_t>(
                std::lower_bound(scores.begin(), scores.end(), score, std::greater<float>()) - scores.begin());
            const size_t last = places.size() - 1;
            for (size_t cut = 1; cut <= last; ++cut) {
                neighbours_.add(symbols[cut - 1], symbols[cut], 0, 0);
                const int32_t left = cut == 1 ? symbols[0] : piece_id(piece.substr(0, places[cut]));
                const int32_t right = cut == last ? symbols[last] : piece_id(piece.substr(places[cut]));
                if (left >= 0 && right >= 0) merges_.add(left, right, rank, id);
            }
        }
    }

    // As tokenizer.json lists them: pairs by rank, whatever other pairs make the same piece.
    void index_listed_merges() {
        for (size_t rank = 0; rank < vocabulary_.merges.size(); ++rank) {
            const std::string &merge = vocabulary_.merges[rank];
            const size_t space = merge.find(' ', 1);
            if (space == std::string::npos || space + 1 == merge.size())
                vocabulary_.reject("merge ", rank, " ", shown(merge), ": expected two tokens with a space between");
            const std::string product = merge.substr(0, space) + merge.substr(space + 1);
            const int32_t left = piece_id(std::string_view(merge).substr(0, space)), both = piece_id(product),
                          right = piece_id(std::string_view(merge).substr(space + 1));
            if (left < 0 || right < 0 || both < 0) continue; // of no use in this vocabulary
            merges_.add(left, right, static_cast<int32_t>(rank), both);
            int32_t before = -1;
            for (size_t i = 0; i < product.size();) {
                uint32_t code = 0;
                const size_t bytes = read_character(product, i, &code);
                if (bytes == 0) break;
                const int32_t symbol = character_symbol(code);
                if (i > 0) neighbours_.add(before, symbol, 0, 0);
                before = symbol;
                i += bytes;
            }
        }
    }

    int32_t piece_id(std::string_view piece) const {
        const auto found = ids_.find(piece);
        return found == ids_.end() ? -1 : found->second;
    }

    // Merges a word and appends its ids; `text` is the word's, and the ids of the whole text begin at `first`.
    void finish(std::vector<Symbol> &word, std::string_view text, size_t first, std::vector<int32_t> &out) const {
        if (word.size() > 1) merges_.apply(word);
        const int32_t pieces = static_cast<int32_t>(vocabulary_.pieces.size());
        for (const Symbol &symbol : word) {
            const std::string_view own = text.substr(0, symbol.bytes);
            text.remove_prefix(symbol.bytes);
            if (symbol.id >= 0 && symbol.id < pieces) {
                out.push_back(symbol.id);
                continue;
            }
            // A space that is no piece is the mark that stands for it.
            const std::string_view bytes = own.empty() || own == " " ? "\xe2\x96\x81" : own;
            bool all = true;
            for (unsigned char byte : bytes) all = all && bytes_[byte] >= 0;
            if (all)
                for (unsigned char byte : bytes) out.push_back(bytes_[byte]);
            else if (vocabulary_.unknown >= 0) {
                // A run of unknown characters is one token.
                if (out.size() == first || out.back() != vocabulary_.unknown) out.push_back(vocabulary_.unknown);
            } else
                vocabulary_.reject("the tokenizer has no token for ", shown(bytes),
                                   ", no byte tokens and no unknown token");
        }
    }

    const Vocabulary &vocabulary_;
    std::unordered_map<std::string_view, int32_t> ids_; // pieces that merges may produce
    std::vector<int32_t> characters_;
    std::unordered_map<uint32_t, int32_t> rare_characters_;
    CharacterMap map_;
    Merges merges_, neighbours_;
    int32_t bytes_[256];
};

} // namespace

std::unique_ptr<TokenizerFamily> make_sentencepiece_pairs(const Vocabulary &vocabulary) {
    return std::make_unique<SentencePiecePairs>(vocabulary);
}

} // namespace finetune
