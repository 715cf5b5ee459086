#include "data_values.h"

#include "error.h"
#include "utf8.h"

#include <algorithm>

namespace finetune {
namespace {

const char *const space = " \t\r\n";

std::string ending_of(const std::string &path) {
    const size_t dot = path.rfind('.');
    std::string ending = dot == std::string::npos ? "" : path.substr(dot + 1);
    for (char &c : ending) c = c >= 'A' && c <= 'Z' ? char(c - 'A' + 'a') : c;
    return ending;
}

void check_container(std::string_view text, const std::string &path) {
    const struct {
        std::string_view begins;
        const char *what;
    } known[] = {
        {"\x1f\x8b", "is compressed by gzip; unpack it with gunzip first"},
        {"\x28\xb5\x2f\xfd", "is compressed by zstd; unpack it with unzstd first"},
        {"\xfd" "7zXZ", "is compressed by xz; unpack it with unxz first"},
        {"BZh91AY&SY", "is compressed by bzip2; unpack it with bunzip2 first"},
        {"PK\x03\x04", "is a zip archive; unpack it first"},
        {"PAR1\x15", "is a Parquet file; write its rows as JSON lines first, as pandas' to_json(..., orient='records', lines=True) does"},
        {"GGUF\x02", "is a GGUF file, a model or an adapter; --data takes texts"},
        {"GGUF\x03", "is a GGUF file, a model or an adapter; --data takes texts"},
        {"\xff\xfe", "is UTF-16; write it as UTF-8 first: iconv -f UTF-16 -t UTF-8"},
        {"\xfe\xff", "is UTF-16; write it as UTF-8 first: iconv -f UTF-16 -t UTF-8"},
    };
    for (const auto &one : known)
        if (text.substr(0, one.begins.size()) == one.begins) fail(path, ": ", one.what);
}

} // namespace

void check_text(std::string_view text, const std::string &path) {
    check_container(text, path);
    uint64_t line = 1;
    for (size_t at = 0; at < text.size();) {
        uint32_t code = 0;
        const size_t bytes = read_character(text, at, &code);
        if (bytes == 0)
            fail(path, ":", line, ": byte ", at + 1, " of the file is not UTF-8; write it as UTF-8 first: iconv -f LATIN1 -t UTF-8, or whatever it is");
        if (code == 0) fail(path, ":", line, ": byte ", at + 1, " of the file is zero; this is no text, or not in UTF-8");
        line += code == '\n';
        at += bytes;
    }
}

bool is_plain_text(std::string_view &text, const std::string &path) {
    check_container(text, path);
    if (text.substr(0, 3) == "\xef\xbb\xbf") text.remove_prefix(3);
    const size_t first = text.find_first_not_of(space);
    if (first == std::string_view::npos || text[first] == '{' || text[first] == '[') return false;
    check_text(text, path);
    const std::string ending = ending_of(path);
    if (ending == "csv" || ending == "tsv")
        fail(path, ": tables are not read; write its rows as JSON lines first, as pandas' to_json(..., orient='records', lines=True) does");
    if (ending == "json" || ending == "jsonl" || ending == "ndjson")
        fail(path, ": holds no JSON: it begins with ", shown(text.substr(first, std::min<size_t>(40, text.find_first_of("\r\n", first) - first))),
             "; a text that is learned as it stands has the ending .txt");
    return true;
}

JsonValues::JsonValues(std::string_view text) : rest_(text), array_(is_whole('[')), object_(is_whole('{')) {
    if (array_) skip(rest_.find('[') + 1);
}

bool JsonValues::next(std::string_view *value, uint64_t *line) {
    if (!object_) return array_ ? next_element(value, line) : next_line(value, line);
    object_ = false;
    skip(rest_.find('{'));
    *value = rest_;
    *line = line_;
    rest_ = {};
    return true;
}

// Whether what closes the first bracket ends the text; an array may also be one that nothing closes.
bool JsonValues::is_whole(char opening) const {
    const size_t first = rest_.find_first_not_of(space);
    if (first == std::string_view::npos || rest_[first] != opening) return false;
    const size_t end = value_end(first), last = rest_.find_last_not_of(space);
    return rest_.find_first_not_of(space, end) == std::string_view::npos && (opening == '[' || (rest_[last] == '}' && last + 1 == end));
}

// Behind the value at `at`: its closing bracket, or the comma or bracket that ends it.
size_t JsonValues::value_end(size_t at) const {
    int depth = 0;
    bool quoted = false;
    for (; at < rest_.size(); ++at) {
        const char c = rest_[at];
        if (quoted) {
            if (c == '\\') ++at;
            else if (c == '"') quoted = false;
        } else if (c == '"') {
            quoted = true;
        } else if (c == '[' || c == '{') {
            ++depth;
        } else if (c == ']' || c == '}') {
            if (depth == 0) return at;
            if (--depth == 0) return at + 1;
        } else if (c == ',' && depth == 0) {
            return at;
        }
    }
    return rest_.size();
}

void JsonValues::skip(size_t bytes) {
    line_ += uint64_t(std::count(rest_.begin(), rest_.begin() + long(bytes), '\n'));
    rest_.remove_prefix(bytes);
}

bool JsonValues::next_element(std::string_view *value, uint64_t *line) {
    skip(std::min(rest_.find_first_not_of(" \t\r\n,"), rest_.size()));
    if (rest_.empty() || rest_[0] == ']') return false;
    size_t end = value_end(0);
    end = std::max<size_t>(end, 1);
    // Up to the comma, so that what stands between is part of the value and found to be wrong.
    while (end < rest_.size() && rest_[end] != ',' && rest_[end] != ']') ++end;
    *value = rest_.substr(0, end);
    *line = line_;
    skip(end);
    return true;
}

// No JSON text holds a bare carriage return, so it ends a line with a newline or without.
bool JsonValues::next_line(std::string_view *value, uint64_t *line) {
    while (!rest_.empty()) {
        const size_t end = std::min(rest_.find_first_of("\r\n"), rest_.size());
        *value = rest_.substr(0, end);
        *line = line_++;
        rest_.remove_prefix(std::min(end + (rest_.substr(end, 2) == "\r\n" ? 2 : 1), rest_.size()));
        if (value->find_first_not_of(" \t") != std::string_view::npos) return true;
    }
    return false;
}

} // namespace finetune
