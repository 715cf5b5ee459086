// SentencePiece's precompiled normalization of characters ("precompiled_charsmap"): a double-array trie of byte
// strings, each with the place of what replaces it.
#pragma once

#include "error.h"
#include "utf8.h"

#include <cstring>
#include <vector>

namespace finetune {

class CharacterMap {
public:
    // Bytes of the trie's size, little-endian u32; the trie's units, u32; the replacements, each ended by a zero byte.
    CharacterMap(const std::string &bytes, const std::string &source) {
        if (bytes.empty()) return;
        uint32_t size = 0;
        if (bytes.size() >= 4) memcpy(&size, bytes.data(), 4);
        if (bytes.size() < 4 || size > bytes.size() - 4 || size % 4 != 0 || size == 0)
            fail(source, ": the precompiled character map of ", bytes.size(), " bytes is damaged: its trie has ", size);
        units_.resize(size / 4);
        memcpy(units_.data(), bytes.data() + 4, size);
        replacements_ = bytes.substr(4 + size);
    }

    // Longest matches are replaced; bytes that are no UTF-8 become U+FFFD when there is a map at all.
    std::string apply(std::string_view text) const {
        if (units_.empty()) return std::string(text);
        std::string out;
        out.reserve(text.size() + text.size() / 8);
        for (size_t i = 0; i < text.size();) {
            std::string_view replacement;
            size_t bytes = longest(text, i, &replacement);
            if (bytes == 0) {
                uint32_t code = 0;
                bytes = read_character(text, i, &code);
                replacement = bytes == 0 ? "\xef\xbf\xbd" : text.substr(i, bytes);
                bytes = bytes == 0 ? 1 : bytes;
            }
            out += replacement;
            i += bytes;
        }
        return out;
    }

private:
    // A unit of Darts: bit 31 marks a value, bit 8 that a value follows, bits 0..7 and 31 the label, and the offset to
    // the children is bits 10..30, shifted by 8 more when bit 9 is set.
    static uint32_t offset(uint32_t unit) { return (unit >> 10) << ((unit & (1u << 9)) >> 6); }

    size_t longest(std::string_view text, size_t at, std::string_view *replacement) const {
        size_t most = 0;
        uint32_t node = offset(units_[0]);
        for (size_t i = at; i < text.size(); ++i) {
            const uint32_t byte = static_cast<unsigned char>(text[i]);
            if (byte == 0) break;
            node ^= byte;
            if (node >= units_.size() || (units_[node] & 0x800000ffu) != byte) break;
            const bool ends = (units_[node] >> 8 & 1) != 0;
            node ^= offset(units_[node]);
            if (!ends) continue;
            if (node >= units_.size()) break;
            const uint32_t place = units_[node] & 0x7fffffffu;
            if (place >= replacements_.size()) break;
            *replacement = std::string_view(replacements_).substr(place);
            *replacement = replacement->substr(0, replacement->find('\0'));
            most = i + 1 - at;
        }
        return most;
    }

    std::vector<uint32_t> units_;
    std::string replacements_;
};

// Runs of spaces become one, and none stays at the ends.
inline std::string single_spaced(std::string_view text) {
    std::string out;
    out.reserve(text.size());
    for (char c : text)
        if (c != ' ' || (!out.empty() && out.back() != ' ')) out += c;
    if (!out.empty() && out.back() == ' ') out.pop_back();
    return out;
}

} // namespace finetune
