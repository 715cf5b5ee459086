// Characters of UTF-8 that may not be well-formed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace finetune {

// Bytes of the character at `at`, which is below the size, and its code point; 0 where the bytes there are no
// character: stray or cut sequences, overlong forms, surrogates, values beyond U+10FFFF.
inline size_t read_character(std::string_view text, size_t at, uint32_t *code) {
    const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[at + i]); };
    const uint32_t lead = byte(0);
    *code = lead;
    if (lead < 0x80) return 1;
    if (lead < 0xc2 || lead > 0xf4) return 0;
    const size_t count = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    if (text.size() - at < count) return 0;
    *code = lead & (0x7fu >> count);
    for (size_t i = 1; i < count; ++i) {
        if ((byte(i) & 0xc0) != 0x80) return 0;
        *code = *code << 6 | (byte(i) & 0x3f);
    }
    if (count == 3 && (*code < 0x800 || (*code >= 0xd800 && *code < 0xe000))) return 0;
    if (count == 4 && (*code < 0x10000 || *code > 0x10ffff)) return 0;
    return count;
}

inline void append_character(std::string &text, uint32_t code) {
    const auto put = [&](uint32_t byte) { text += static_cast<char>(byte); };
    if (code < 0x80) return put(code);
    if (code < 0x800) {
        put(0xc0 | code >> 6);
    } else {
        if (code < 0x10000) {
            put(0xe0 | code >> 12);
        } else {
            put(0xf0 | code >> 18);
            put(0x80 | (code >> 12 & 0x3f));
        }
        put(0x80 | (code >> 6 & 0x3f));
    }
    put(0x80 | (code & 0x3f));
}

} // namespace finetune
