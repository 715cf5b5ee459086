// A vocabulary that needs no file.
#pragma once
#include "engine_support.h"

#include "tokenizer.h"
#include "utf8.h"

namespace finetune {

// Byte pairs over all 256 bytes: ids are the bytes' values, then the merges' products, then <|end|> (control) and
// <|tool|> (user-defined).
inline Vocabulary byte_vocabulary(const std::vector<std::pair<std::string, std::string>> &merges, const char *words) {
    Vocabulary vocabulary;
    vocabulary.kind = TokenizerKind::byte_pairs;
    vocabulary.source = "bytes";
    vocabulary.words = words;
    vocabulary.adds_begin = vocabulary.adds_prefix = false;
    uint32_t next = 0x100;
    for (uint32_t byte = 0; byte < 256; ++byte) {
        const bool printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
        std::string piece;
        append_character(piece, printable ? byte : next++);
        vocabulary.pieces.push_back(piece);
    }
    for (const auto &[left, right] : merges) {
        vocabulary.merges.push_back(left + " " + right);
        vocabulary.pieces.push_back(left + right);
    }
    vocabulary.types.assign(vocabulary.pieces.size(), piece_normal);
    vocabulary.pieces.push_back("<|end|>");
    vocabulary.types.push_back(piece_control);
    vocabulary.pieces.push_back("<|tool|>");
    vocabulary.types.push_back(piece_user_defined);
    return vocabulary;
}

} // namespace finetune
