// SentencePiece unigram: of all ways to cut the text into pieces the one with the highest sum of scores, by Viterbi's
// algorithm over the places of the text.
#include "character_map.h"
#include "tokenizer.h"
#include "utf8.h"

#include <algorithm>
#include <limits>

namespace finetune {
namespace {

const std::string_view space_mark = "\xe2\x96\x81";
const float unknown_penalty = 10; // below the lowest score

class Unigram : public TokenizerFamily {
public:
    explicit Unigram(const Vocabulary &vocabulary)
        : vocabulary_(vocabulary), map_(vocabulary.character_map, vocabulary.source) {
        std::fill(std::begin(bytes_), std::end(bytes_), -1);
        std::vector<std::pair<std::string_view, int32_t>> pieces;
        float lowest = 0;
        for (size_t i = 0; i < vocabulary.pieces.size(); ++i) {
            const int64_t type = vocabulary.types[i];
            const int32_t id = static_cast<int32_t>(i);
            if (type == piece_byte) {
                const int value = byte_value(vocabulary.pieces[i]);
                if (value < 0)
                    vocabulary.reject("token ", i, " ", shown(vocabulary.pieces[i]),
                                      ": a byte token must read <0x00> to <0xFF>");
                bytes_[value] = id;
            }
            if (type != piece_normal) continue;
            pieces.emplace_back(vocabulary.pieces[i], id);
            lowest = std::min(lowest, vocabulary.scores[i]);
        }
        unknown_score_ = lowest - unknown_penalty;
        trie_ = Trie(std::move(pieces));
    }

    void encode(std::string_view text, bool prefix, std::vector<int32_t> &out) const override {
        const std::string normal = normalize(text, prefix);
        // The best way to each place: its score, its last piece and where that begins.
        struct Way {
            double score;
            int32_t id;
            uint32_t bytes;
        };
        std::vector<Way> ways(normal.size() + 1, {-std::numeric_limits<double>::infinity(), -1, 0});
        ways[0].score = 0;
        for (size_t i = 0; i < normal.size();) {
            uint32_t code = 0;
            const size_t character = std::max<size_t>(read_character(normal, i, &code), 1);
            const double score = ways[i].score;
            bool single = false;
            const auto reach = [&](size_t bytes, int32_t id, double gain) {
                Way &way = ways[i + bytes];
                if (score + gain > way.score) way = {score + gain, id, static_cast<uint32_t>(bytes)};
            };
            trie_.each(normal, i, [&](size_t bytes, int32_t id) {
                single = single || bytes == character;
                reach(bytes, id, double(vocabulary_.scores[size_t(id)]));
            });
            if (!single) reach(character, -1, double(unknown_score_));
            i += character;
        }
        std::vector<std::pair<size_t, const Way *>> path;
        for (size_t i = normal.size(); i > 0; i -= ways[i].bytes) path.emplace_back(i - ways[i].bytes, &ways[i]);
        bool after_unknown = false; // a run of unknown characters is one token
        for (auto step = path.rbegin(); step != path.rend(); ++step) {
            const Way &way = *step->second;
            const bool unknown =
                way.id < 0 && !append_bytes(std::string_view(normal).substr(step->first, way.bytes), out);
            if (way.id >= 0) out.push_back(way.id);
            if (unknown && !after_unknown) {
                if (vocabulary_.unknown < 0)
                    vocabulary_.reject("the tokenizer has no token for ", shown(normal.substr(step->first, way.bytes)),
                                       ", no byte tokens and no unknown token");
                out.push_back(vocabulary_.unknown);
            }
            after_unknown = unknown;
        }
    }

    void decode(int32_t id, std::string &out) const override {
        const std::string &piece = vocabulary_.pieces[size_t(id)];
        if (vocabulary_.types[size_t(id)] == piece_byte) {
            out += static_cast<char>(byte_value(piece));
            return;
        }
        for (size_t i = 0; i < piece.size();) {
            const bool space = std::string_view(piece).substr(i, space_mark.size()) == space_mark;
            out += space ? ' ' : piece[i];
            i += space ? space_mark.size() : 1;
        }
    }

private:
    std::string normalize(std::string_view text, bool prefix) const {
        std::string mapped = map_.apply(text);
        if (vocabulary_.trims) mapped = single_spaced(mapped);
        std::string out;
        out.reserve(mapped.size() + mapped.size() / 2 + 3);
        if (prefix && !mapped.empty() && vocabulary_.takes_prefix(mapped)) out += space_mark;
        for (char c : mapped) {
            if (c == ' ') out += space_mark;
            else out += c;
        }
        return out;
    }

    bool append_bytes(std::string_view bytes, std::vector<int32_t> &out) const {
        for (unsigned char byte : bytes)
            if (bytes_[byte] < 0) return false;
        for (unsigned char byte : bytes) out.push_back(bytes_[byte]);
        return true;
    }

    const Vocabulary &vocabulary_;
    CharacterMap map_;
    Trie trie_;
    float unknown_score_ = 0;
    int32_t bytes_[256];
};

} // namespace

std::unique_ptr<TokenizerFamily> make_unigram(const Vocabulary &vocabulary) {
    return std::make_unique<Unigram>(vocabulary);
}

} // namespace finetune
