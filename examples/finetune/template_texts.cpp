#include "template_texts.h"

#include "utf8.h"

#include <algorithm>

namespace finetune {

using Value = TemplateValue;

const TemplateText &text_of(const Value *value, const char *what) {
    if (value == nullptr || value->kind != Value::text)
        raise(what, " needs a text, not ", value == nullptr ? "nothing" : value->kind_name());
    return *value->string;
}

int64_t integer_of(const Value &value, const char *what) {
    if (value.kind != Value::integer && value.kind != Value::boolean)
        raise(what, " needs a whole number, not ", value.kind_name());
    return value.number;
}

namespace {

// What Python's strip() and split() take for space: Unicode's white space, and the four separators of ASCII.
bool is_space(uint32_t code) {
    return code == ' ' || (code >= '\t' && code <= '\r') || (code >= 0x1c && code <= 0x1f) || code == 0x85 || code == 0xa0 ||
           code == 0x1680 || (code >= 0x2000 && code <= 0x200a) || code == 0x2028 || code == 0x2029 || code == 0x202f ||
           code == 0x205f || code == 0x3000;
}

// Bytes of the character at `at`, or of the one that ends there; 1 where there is none.
size_t character_bytes(const std::string &bytes, size_t at, bool before, uint32_t *code) {
    size_t begin = at - (before ? 1 : 0);
    while (before && begin > 0 && at - begin < 4 && (bytes[begin] & 0xc0) == 0x80) --begin;
    const size_t size = read_character(bytes, begin, code);
    if (size != 0 && (!before || begin + size == at)) return size;
    *code = 0xfffd;
    return 1;
}

TemplateText replaced(const TemplateText &text, const TemplateText &from, const TemplateText &to, int64_t most) {
    if (from.bytes.empty()) raise("replace of an empty text");
    TemplateText out;
    size_t begin = 0;
    for (; most != 0; --most) {
        const size_t at = text.bytes.find(from.bytes, begin);
        if (at == std::string::npos) break;
        out += text.part(begin, at - begin);
        out += to;
        begin = at + from.bytes.size();
    }
    out += text.part(begin);
    return out;
}

} // namespace

TemplateText stripped(const TemplateText &text, const Value *given, bool left, bool right) {
    const bool spaces = given == nullptr || given->kind == Value::none;
    const std::string set = spaces ? "" : text_of(given, "strip").bytes;
    size_t begin = 0, end = text.bytes.size();
    const auto cut = [&](size_t at, size_t size, uint32_t code) {
        return spaces ? is_space(code) : set.find(text.bytes.substr(at, size)) != std::string::npos;
    };
    uint32_t code = 0;
    while (left && begin < end) {
        const size_t size = character_bytes(text.bytes, begin, false, &code);
        if (!cut(begin, size, code)) break;
        begin += size;
    }
    while (right && end > begin) {
        const size_t size = character_bytes(text.bytes, end, true, &code);
        if (!cut(end - size, size, code)) break;
        end -= size;
    }
    return text.part(begin, end - begin);
}

TemplateText mapped(TemplateText text, bool upper) {
    for (char &c : text.bytes) {
        if (c & 0x80) raise("upper and lower case beyond ASCII is not supported");
        if (upper && c >= 'a' && c <= 'z') c = char(c - 32);
        if (!upper && c >= 'A' && c <= 'Z') c = char(c + 32);
    }
    return text;
}

TemplateText titled(TemplateText text, bool every_word) {
    text = mapped(std::move(text), false);
    bool begins = true;
    for (char &c : text.bytes) {
        const bool letter = c >= 'a' && c <= 'z';
        if (letter && begins) c = char(c - 32);
        begins = every_word ? !letter && !(c >= 'A' && c <= 'Z') : false;
    }
    return text;
}

Value split(const TemplateText &text, const TemplateArguments &arguments, bool from_right) {
    const Value *separator = arguments.find(0, "sep"), *count = arguments.find(1, "maxsplit");
    int64_t most = count == nullptr ? -1 : integer_of(*count, "split");
    TemplateList parts;
    if (separator == nullptr || separator->kind == Value::none) {
        size_t begin = 0; // of the word that is being read
        for (size_t i = 0, bytes = 0; i < text.bytes.size(); i += bytes) {
            uint32_t code = 0;
            bytes = character_bytes(text.bytes, i, false, &code);
            if (!is_space(code)) continue;
            if (i > begin) parts.push_back(Value::of(text.part(begin, i - begin)));
            begin = i + bytes;
        }
        if (begin < text.bytes.size()) parts.push_back(Value::of(text.part(begin)));
        if (most >= 0) raise("split without a separator but with a count is not supported");
        return Value::of(std::move(parts));
    }
    const std::string by = text_of(separator, "split").bytes;
    if (by.empty()) raise("split by an empty text");
    size_t begin = 0, end = text.bytes.size();
    if (from_right) {
        while (most != 0) {
            const size_t at = end < by.size() ? std::string::npos : text.bytes.rfind(by, end - by.size());
            if (at == std::string::npos) break;
            parts.push_back(Value::of(text.part(at + by.size(), end - at - by.size())));
            end = at;
            --most;
        }
        parts.push_back(Value::of(text.part(0, end)));
        std::reverse(parts.begin(), parts.end());
        return Value::of(std::move(parts));
    }
    while (most != 0) {
        const size_t at = text.bytes.find(by, begin);
        if (at == std::string::npos) break;
        parts.push_back(Value::of(text.part(begin, at - begin)));
        begin = at + by.size();
        --most;
    }
    parts.push_back(Value::of(text.part(begin)));
    return Value::of(std::move(parts));
}

TemplateText replace_with(const TemplateText &text, const TemplateArguments &arguments) {
    const Value *count = arguments.find(2, "count");
    return replaced(text, text_of(arguments.find(0, "old"), "replace"), text_of(arguments.find(1, "new"), "replace"),
                    count == nullptr ? -1 : integer_of(*count, "replace"));
}

} // namespace finetune
