// Errors of the example: one exception type, one message line, exit code 2. The library itself never throws.
#pragma once

#include <cstdint>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>

namespace finetune {

struct Error : std::runtime_error {
    using std::runtime_error::runtime_error;
};

template <class... Parts> [[noreturn]] void fail(const Parts &...parts) {
    std::ostringstream message;
    (message << ... << parts);
    throw Error(message.str());
}

// Text from a file as it may appear in a message: quoted, cut at 80 bytes, every control byte shown as \xHH.
inline std::string shown(std::string_view text) {
    static const char digits[] = "0123456789abcdef";
    std::string out = "'";
    for (size_t i = 0; i < text.size() && i < 80; ++i) {
        const unsigned char byte = static_cast<unsigned char>(text[i]);
        if (byte >= 0x20 && byte != 0x7f) {
            out += static_cast<char>(byte);
        } else {
            out += "\\x";
            out += digits[byte >> 4];
            out += digits[byte & 15];
        }
    }
    return out + (text.size() > 80 ? "...'" : "'");
}

// Products and sums that say when they do not fit in 64 bits.
inline bool multiply(uint64_t a, uint64_t b, uint64_t *product) {
    *product = a * b;
    return a == 0 || *product / a == b;
}

inline bool add(uint64_t a, uint64_t b, uint64_t *sum) {
    *sum = a + b;
    return *sum >= a;
}

} // namespace finetune
