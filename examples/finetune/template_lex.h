// A template as words: plain text, and what stands inside its blocks and expressions.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace finetune {

struct TemplateToken {
    enum Kind { text, block_begin, block_end, print_begin, print_end, name, string, number, sign, end } kind;
    std::string bytes;
    int line;
};

// Throws Error for what has no end. The last token is of kind `end`.
std::vector<TemplateToken> lex_template(std::string_view text, const std::string &source);

} // namespace finetune
