// The JSON values of a file of rows, and what a file is that holds none.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace finetune {

// Throws an Error that tells what to do with a file that is no text in UTF-8: packed, another container, another encoding.
void check_text(std::string_view text, const std::string &path);

// Whether a file is learned as it stands: it begins with no JSON. Takes a byte order mark away. Throws an Error that tells what
// to do with a file that is neither text nor JSON, with a table, or with a text by the name of JSON.
bool is_plain_text(std::string_view &text, const std::string &path);

// One value a line, or the elements of an array that is the whole text, or one object that is; with their lines.
class JsonValues {
public:
    explicit JsonValues(std::string_view text);
    bool next(std::string_view *value, uint64_t *line);

private:
    bool is_whole(char opening) const;
    size_t value_end(size_t at) const;
    void skip(size_t bytes);
    bool next_element(std::string_view *value, uint64_t *line);
    bool next_line(std::string_view *value, uint64_t *line);

    std::string_view rest_;
    uint64_t line_ = 1;
    bool array_ = false, object_ = false;
};

} // namespace finetune
