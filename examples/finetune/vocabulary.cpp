#include "vocabulary.h"

#include "pre_tokenizer.h"

#include <algorithm>
#include <cmath>

namespace finetune {
namespace {

int32_t token_id(const Gguf &model, const char *key, size_t count) {
    const auto id = model.find_unsigned(key);
    if (!id) return -1;
    if (*id >= count) model.reject("key '", key, "': token ", *id, " is outside the vocabulary of ", count);
    return static_cast<int32_t>(*id);
}

std::vector<std::string> owned(const std::vector<std::string_view> &views) { return {views.begin(), views.end()}; }

// Phi-3's tokens take the white space after them; its files say so only by their name.
bool is_phi3(const Gguf &model) {
    std::string name(model.find_string("general.name").value_or(""));
    std::transform(name.begin(), name.end(), name.begin(),
                   [](char c) { return c >= 'A' && c <= 'Z' ? char(c + 32) : c; });
    return name.find("phi-3") != std::string::npos || name.find("phi3") != std::string::npos;
}

} // namespace

Vocabulary read_vocabulary(const Gguf &model) {
    const auto kind = model.find_string("tokenizer.ggml.model");
    if (!kind) model.reject("key 'tokenizer.ggml.model' is missing: the file holds no tokenizer");
    Vocabulary vocabulary;
    vocabulary.source = model.path();
    if (*kind == "llama") vocabulary.kind = TokenizerKind::sentencepiece_pairs;
    else if (*kind == "t5") vocabulary.kind = TokenizerKind::unigram;
    else if (*kind == "gpt2") vocabulary.kind = TokenizerKind::byte_pairs;
    else
        model.reject("tokenizer ", shown(*kind),
                     " is not supported; expected llama (SentencePiece pairs), t5 (unigram) or gpt2 (byte pairs). Give "
                     "token ids instead, with --train-ids");
    const bool byte_pairs = vocabulary.kind == TokenizerKind::byte_pairs;
    const auto pieces = model.find_strings("tokenizer.ggml.tokens");
    const auto scores = model.find_floats("tokenizer.ggml.scores");
    const auto types = model.find_integers("tokenizer.ggml.token_type");
    const auto merges = model.find_strings("tokenizer.ggml.merges");
    if (byte_pairs && (!pieces || !types || !merges))
        model.reject("keys 'tokenizer.ggml.tokens', '.token_type' and '.merges' are needed, at least one is missing");
    if (!byte_pairs && (!pieces || !scores || !types))
        model.reject("keys 'tokenizer.ggml.tokens', '.scores' and '.token_type' are needed, at least one is missing");
    vocabulary.pieces = owned(*pieces);
    vocabulary.types = *types;
    if (byte_pairs) vocabulary.merges = owned(*merges);
    else vocabulary.scores = *scores;
    const size_t count = vocabulary.pieces.size();
    vocabulary.begin = token_id(model, "tokenizer.ggml.bos_token_id", count);
    vocabulary.end = token_id(model, "tokenizer.ggml.eos_token_id", count);
    vocabulary.turn_end = token_id(model, "tokenizer.ggml.eot_token_id", count);
    vocabulary.unknown = token_id(model, "tokenizer.ggml.unknown_token_id", count);
    bool begins = vocabulary.kind == TokenizerKind::sentencepiece_pairs;
    if (byte_pairs) {
        vocabulary.words = std::string(model.find_string("tokenizer.ggml.pre").value_or("default"));
        begins = PreTokenizer(vocabulary.words, vocabulary.source).begins();
    }
    vocabulary.adds_begin = model.find_bool("tokenizer.ggml.add_bos_token").value_or(begins);
    vocabulary.adds_prefix = model.find_bool("tokenizer.ggml.add_space_prefix").value_or(!byte_pairs);
    vocabulary.trims = model.find_bool("tokenizer.ggml.remove_extra_whitespaces").value_or(false);
    if (const auto map = model.find_integers("tokenizer.ggml.precompiled_charsmap"))
        for (int64_t byte : *map) vocabulary.character_map += static_cast<char>(byte);
    vocabulary.control_trims = is_phi3(model) && !byte_pairs;
    vocabulary.chat_template = std::string(model.find_string("tokenizer.chat_template").value_or(""));
    return vocabulary;
}

void Vocabulary::check() const {
    if (pieces.empty() || pieces.size() > INT32_MAX / 2 || types.size() != pieces.size() ||
        (kind != TokenizerKind::byte_pairs && scores.size() != pieces.size()))
        reject("the tokenizer lists ", pieces.size(), " tokens, ", scores.size(), " scores and ", types.size(),
               " types; expected equal lengths");
    for (size_t i = 0; i < pieces.size(); ++i) {
        if (types[i] < piece_normal || types[i] > piece_byte)
            reject("token ", i, " ", shown(pieces[i]), ": type ", types[i], " is unknown, expected 1 to 6");
        if (!scores.empty() && std::isnan(scores[i]))
            reject("token ", i, " ", shown(pieces[i]), ": its score is not a number");
    }
}

void Vocabulary::place(uint64_t id, const std::string &piece, int64_t type) {
    if (id >= pieces.size()) {
        pieces.resize(id + 1);
        scores.resize(id + 1, 0.0f);
        types.resize(id + 1, piece_unused);
    }
    pieces[id] = piece;
    types[id] = type;
}

} // namespace finetune
