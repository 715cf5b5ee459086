#include "tokenizer.h"

#include <algorithm>
#include <queue>

namespace finetune {
namespace {

enum : uint8_t {
    piece_normal = 1,
    piece_unknown = 2,
    piece_control = 3,
    piece_user_defined = 4,
    piece_unused = 5,
    piece_byte = 6
};

const std::string_view space_mark = "\xe2\x96\x81"; // U+2581

// Bytes of the character that begins with `byte`; a stray continuation byte counts as one character.
size_t character_bytes(unsigned char byte) { return byte < 0xc0 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4; }

int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int32_t token_id(const Gguf &model, const char *key, size_t count, int32_t absent) {
    const auto id = model.find_unsigned(key);
    if (!id) return absent;
    if (*id >= count) model.reject("key '", key, "': token ", *id, " is outside the vocabulary of ", count);
    return static_cast<int32_t>(*id);
}

// A run of text that is one symbol of the growing segmentation, in a doubly linked list.
struct Symbol {
    int64_t before, after;
    const char *text;
    size_t bytes; // 0: merged away
};

struct Merge {
    float score;
    int64_t left, right;
    size_t bytes; // of both when proposed; differs now: stale
};

struct Worse { // highest score first, then leftmost
    bool operator()(const Merge &a, const Merge &b) const {
        return a.score != b.score ? a.score < b.score : a.left > b.left;
    }
};

} // namespace

Tokenizer::Tokenizer(const Gguf &model) {
    const auto kind = model.find_string("tokenizer.ggml.model");
    if (!kind) model.reject("key 'tokenizer.ggml.model' is missing: the file holds no tokenizer");
    if (*kind != "llama")
        model.reject("tokenizer ", shown(*kind),
                     " is not supported; expected 'llama' (SentencePiece BPE). Give token ids instead");
    auto pieces = model.find_strings("tokenizer.ggml.tokens");
    auto scores = model.find_floats("tokenizer.ggml.scores");
    const auto types = model.find_integers("tokenizer.ggml.token_type");
    if (!pieces || !scores || !types)
        model.reject("keys 'tokenizer.ggml.tokens', '.scores' and '.token_type' are needed, at least one is missing");
    if (pieces->empty() || pieces->size() > INT32_MAX || scores->size() != pieces->size() ||
        types->size() != pieces->size())
        model.reject("the tokenizer lists ", pieces->size(), " tokens, ", scores->size(), " scores and ", types->size(),
                     " types; expected equal lengths");
    pieces_ = std::move(*pieces);
    scores_ = std::move(*scores);
    begin_ = token_id(model, "tokenizer.ggml.bos_token_id", pieces_.size(), -1);
    end_ = token_id(model, "tokenizer.ggml.eos_token_id", pieces_.size(), -1);
    unknown_ = token_id(model, "tokenizer.ggml.unknown_token_id", pieces_.size(), -1);
    adds_begin_ = model.find_bool("tokenizer.ggml.add_bos_token").value_or(true) && begin_ >= 0;
    adds_prefix_ = model.find_bool("tokenizer.ggml.add_space_prefix").value_or(true);
    index_pieces(model.path(), *types);
}

Tokenizer::Tokenizer(Vocabulary vocabulary)
    : own_pieces_(std::move(vocabulary.pieces)), scores_(std::move(vocabulary.scores)), begin_(vocabulary.begin),
      end_(vocabulary.end), unknown_(vocabulary.unknown), adds_begin_(vocabulary.adds_begin && vocabulary.begin >= 0),
      adds_prefix_(vocabulary.adds_prefix) {
    pieces_.assign(own_pieces_.begin(), own_pieces_.end());
    index_pieces(vocabulary.source, vocabulary.types);
}

void Tokenizer::index_pieces(const std::string &source, const std::vector<int64_t> &types) {
    const auto reject = [&source](const auto &...parts) { fail(source, ": ", parts...); };
    std::fill(std::begin(bytes_), std::end(bytes_), -1);
    types_.resize(pieces_.size());
    ids_.reserve(pieces_.size());
    for (size_t i = 0; i < pieces_.size(); ++i) {
        const std::string_view piece = pieces_[i];
        const int32_t id = static_cast<int32_t>(i);
        if (types[i] < piece_normal || types[i] > piece_byte)
            reject("token ", i, " ", shown(piece), ": type ", types[i], " is unknown, expected 1 to 6");
        if (!(scores_[i] == scores_[i])) reject("token ", i, " ", shown(piece), ": its score is not a number");
        types_[i] = static_cast<uint8_t>(types[i]);
        if (types_[i] == piece_byte) {
            const bool form = piece.size() == 6 && piece.substr(0, 3) == "<0x" && piece[5] == '>';
            const int high = form ? hex_digit(piece[3]) : -1, low = form ? hex_digit(piece[4]) : -1;
            if (high < 0 || low < 0)
                reject("token ", i, " ", shown(piece), ": a byte token must read <0x00> to <0xFF>");
            bytes_[high * 16 + low] = id;
        } else if (types_[i] == piece_user_defined && !piece.empty()) {
            user_defined_.push_back(piece);
            user_defined_ids_.emplace(piece, id);
            user_defined_first_[static_cast<unsigned char>(piece[0])] = true;
        } else if (types_[i] == piece_normal && !piece.empty()) {
            ids_.emplace(piece, id);
        } else if (types_[i] == piece_unknown && unknown_ < 0) {
            unknown_ = id;
        }
    }
    std::sort(user_defined_.begin(), user_defined_.end(),
              [](std::string_view a, std::string_view b) { return a.size() > b.size(); });
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, bool add_prefix) const {
    std::vector<int32_t> ids;
    const bool prefix = add_prefix && adds_prefix_;
    size_t plain = 0; // start of the text not yet encoded
    for (size_t i = 0; i < text.size() && !user_defined_.empty();) {
        std::string_view match;
        if (user_defined_first_[static_cast<unsigned char>(text[i])])
            for (std::string_view piece : user_defined_)
                if (text.substr(i, piece.size()) == piece) {
                    match = piece;
                    break;
                }
        if (match.empty()) {
            ++i;
            continue;
        }
        encode_plain(text.substr(plain, i - plain), prefix, ids);
        ids.push_back(user_defined_ids_.at(match));
        i += match.size();
        plain = i;
    }
    encode_plain(text.substr(plain), prefix && (plain == 0 || plain < text.size()), ids);
    return ids;
}

void Tokenizer::encode_plain(std::string_view text, bool prefix, std::vector<int32_t> &out) const {
    if (text.empty()) return;
    std::string marked;
    marked.reserve(text.size() + text.size() / 2 + 3);
    if (prefix) marked += space_mark;
    for (char c : text) c == ' ' ? marked += space_mark : marked += c;

    std::vector<Symbol> symbols;
    symbols.reserve(marked.size());
    for (size_t i = 0; i < marked.size();) {
        const size_t bytes = std::min(character_bytes(static_cast<unsigned char>(marked[i])), marked.size() - i);
        const int64_t index = static_cast<int64_t>(symbols.size());
        symbols.push_back({index - 1, index + 1, marked.data() + i, bytes});
        i += bytes;
    }
    symbols.back().after = -1;

    std::priority_queue<Merge, std::vector<Merge>, Worse> merges;
    const auto propose = [&](int64_t left, int64_t right) {
        if (left < 0 || right < 0) return;
        const std::string_view both(symbols[left].text, symbols[left].bytes + symbols[right].bytes);
        const auto found = ids_.find(both);
        if (found != ids_.end()) merges.push({scores_[found->second], left, right, both.size()});
    };
    for (int64_t i = 1; i < static_cast<int64_t>(symbols.size()); ++i) propose(i - 1, i);
    while (!merges.empty()) {
        const Merge merge = merges.top();
        merges.pop();
        Symbol &left = symbols[merge.left];
        Symbol &right = symbols[merge.right];
        if (left.bytes == 0 || right.bytes == 0 || left.bytes + right.bytes != merge.bytes) continue;
        left.bytes += right.bytes;
        right.bytes = 0;
        left.after = right.after;
        if (left.after >= 0) symbols[left.after].before = merge.left;
        propose(left.before, merge.left);
        propose(merge.left, left.after);
    }

    for (int64_t i = 0; i >= 0; i = symbols[i].after) {
        const std::string_view piece(symbols[i].text, symbols[i].bytes);
        const auto found = ids_.find(piece);
        if (found != ids_.end()) {
            out.push_back(found->second);
            continue;
        }
        bool all_bytes = true;
        for (unsigned char byte : piece) all_bytes = all_bytes && bytes_[byte] >= 0;
        if (all_bytes)
            for (unsigned char byte : piece) out.push_back(bytes_[byte]);
        else if (unknown_ >= 0) out.push_back(unknown_);
        else fail("the tokenizer has no token for ", shown(piece), ", no byte tokens and no unknown token");
    }
}

std::string Tokenizer::decode(const std::vector<int32_t> &ids, bool trim) const {
    std::string text;
    for (int32_t id : ids) {
        if (id < 0 || id >= size()) fail("token ", id, " is outside the vocabulary of ", size());
        const std::string_view piece = pieces_[id];
        if (types_[id] == piece_control || types_[id] == piece_unknown) continue;
        if (types_[id] == piece_byte) {
            text += static_cast<char>(hex_digit(piece[3]) * 16 + hex_digit(piece[4]));
            continue;
        }
        for (size_t i = 0; i < piece.size();) {
            const bool space = piece.substr(i, space_mark.size()) == space_mark;
            text += space ? ' ' : piece[i];
            i += space ? space_mark.size() : 1;
        }
    }
    return trim && adds_prefix_ && !text.empty() && text[0] == ' ' ? text.substr(1) : text;
}

} // namespace finetune
