// The one way to read a binary file here: a position that knows how much is left, and tests before every read.
#pragma once

#include "error.h"

#include <cstring>

namespace finetune {

class Cursor {
public:
    Cursor(const uint8_t *data, uint64_t size, std::string path) : data_(data), size_(size), path_(std::move(path)) {}

    uint64_t offset() const { return offset_; }
    uint64_t remaining() const { return size_ - offset_; }

    // `what` names the thing being read, for the message: "length of key 3".
    template <class T> T read(const char *what) {
        need(sizeof(T), what);
        T value;
        memcpy(&value, data_ + offset_, sizeof(T));
        offset_ += sizeof(T);
        return value;
    }

    std::string_view read_string(const char *what) {
        const uint64_t start = offset_;
        const uint64_t length = read<uint64_t>(what);
        if (length > remaining()) {
            offset_ = start;
            reject(what, ": string of ", length, " bytes, but ", remaining() - 8, " remain in the file");
        }
        std::string_view text(reinterpret_cast<const char *>(data_ + offset_), static_cast<size_t>(length));
        offset_ += length;
        return text;
    }

    void skip(uint64_t bytes, const char *what) {
        need(bytes, what);
        offset_ += bytes;
    }

    template <class... Parts> [[noreturn]] void reject(const Parts &...parts) const {
        fail(path_, ": byte ", offset_, ": ", parts...);
    }

private:
    void need(uint64_t bytes, const char *what) const {
        if (bytes > remaining())
            reject(what, ": needs ", bytes, " bytes, but ", remaining(),
                   " remain; the file is truncated, fetch it again");
    }

    const uint8_t *data_;
    uint64_t size_;
    uint64_t offset_ = 0;
    std::string path_;
};

} // namespace finetune
