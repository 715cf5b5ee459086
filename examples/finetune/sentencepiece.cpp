// SentencePiece's tokenizer.model, read field by field.
#include "vocabulary.h"

#include <algorithm>
#include <cstring>

namespace finetune {
namespace {

// A message of Google's protocol buffers, field by field.
class Message {
public:
    Message(std::string_view bytes, const std::string &path) : bytes_(bytes), path_(path) {}

    uint64_t field = 0, number = 0; // number: of a field that is one
    std::string_view bytes;         // of a field that is bytes, text or a message
    float decimal = 0;              // of a 32-bit field

    bool next() {
        if (bytes_.empty()) return false;
        const uint64_t key = read_number();
        field = key >> 3;
        bytes = {};
        number = 0;
        switch (key & 7) {
        case 0:
            number = read_number();
            break;
        case 1:
            take(8);
            break;
        case 2:
            bytes = take(read_number());
            break;
        case 5:
            memcpy(&decimal, take(4).data(), 4);
            break;
        default:
            reject("wire type ", key & 7, " is unknown");
        }
        return true;
    }

    template <class... Parts> [[noreturn]] void reject(const Parts &...parts) const {
        fail(path_, ": ", parts..., "; not a SentencePiece model, or damaged");
    }

private:
    std::string_view take(uint64_t count) {
        if (count > bytes_.size()) reject("a field of ", count, " bytes, but ", bytes_.size(), " remain");
        const std::string_view taken = bytes_.substr(0, count);
        bytes_.remove_prefix(count);
        return taken;
    }

    uint64_t read_number() {
        uint64_t value = 0;
        for (int shift = 0; shift < 64; shift += 7) {
            const auto byte = static_cast<unsigned char>(take(1)[0]);
            value |= uint64_t(byte & 127) << shift;
            if (byte < 128) return value;
        }
        reject("a number of more than 64 bits");
    }

    std::string_view bytes_;
    const std::string &path_;
};

// Numbers of fields in SentencePiece's ModelProto and of the messages inside it.
enum : uint64_t { model_pieces = 1, model_trainer = 2, model_normalizer = 3 };
enum : uint64_t { piece_text = 1, piece_score = 2, piece_type = 3 };
enum : uint64_t { trainer_kind = 3, trainer_unknown = 40, trainer_begin = 41, trainer_end = 42 };
enum : uint64_t { normalizer_map = 2, normalizer_prefix = 3, normalizer_trims = 4 };
const uint64_t kind_unigram = 1, kind_pairs = 2, longest_piece = 65535;

} // namespace

Vocabulary read_sentencepiece(const std::string &path) {
    const MappedFile file(path);
    Vocabulary vocabulary;
    vocabulary.source = path;
    uint64_t kind = kind_unigram;
    // The defaults of the format: id 0, 1 and 2; an id that is not in the list means that there is no such token.
    uint64_t unknown = 0, begin = 1, end = 2;
    Message model(file.text(), path);
    while (model.next()) {
        Message part(model.bytes, path);
        if (model.field == model_pieces) {
            vocabulary.pieces.emplace_back();
            vocabulary.scores.push_back(0);
            vocabulary.types.push_back(piece_normal);
            while (part.next()) {
                if (part.field == piece_text) vocabulary.pieces.back() = std::string(part.bytes);
                if (part.field == piece_score) vocabulary.scores.back() = part.decimal;
                if (part.field == piece_type) vocabulary.types.back() = int64_t(std::min<uint64_t>(part.number, 255));
            }
            if (vocabulary.pieces.back().size() > longest_piece)
                model.reject("token ", vocabulary.pieces.size() - 1, " has ", vocabulary.pieces.back().size(), " bytes");
        }
        while (model.field == model_trainer && part.next()) {
            if (part.field == trainer_kind) kind = part.number;
            if (part.field == trainer_unknown) unknown = part.number;
            if (part.field == trainer_begin) begin = part.number;
            if (part.field == trainer_end) end = part.number;
        }
        if (model.field == model_normalizer) vocabulary.trims = true; // the format's default
        while (model.field == model_normalizer && part.next()) {
            if (part.field == normalizer_map) vocabulary.character_map = std::string(part.bytes);
            if (part.field == normalizer_prefix) vocabulary.adds_prefix = part.number != 0;
            if (part.field == normalizer_trims) vocabulary.trims = part.number != 0;
        }
    }
    if (vocabulary.pieces.empty() || vocabulary.pieces.size() > INT32_MAX)
        model.reject("it lists ", vocabulary.pieces.size(), " tokens");
    if (kind != kind_pairs && kind != kind_unigram)
        fail(path, ": a SentencePiece model of kind ", kind,
             ", expected 1 (unigram) or 2 (byte pairs); give token ids instead, with --train-ids");
    if (kind == kind_unigram) vocabulary.kind = TokenizerKind::unigram;
    const auto id = [&](uint64_t at) { return at < vocabulary.pieces.size() ? static_cast<int32_t>(at) : -1; };
    vocabulary.unknown = id(unknown);
    vocabulary.begin = id(begin);
    vocabulary.end = id(end);
    return vocabulary;
}

} // namespace finetune
